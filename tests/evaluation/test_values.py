"""Values are read from tables, kept in one file, and rejected if incomplete."""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.comparison import compare_with_baseline, format_overall_table
from semi_nnunet.evaluation.values import (
    Value,
    merge_values,
    read_values,
    read_values_files,
    write_values,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_csv
from tests.evaluation.measured import BASE, ORIGIN, OURS, values


def test_too_much_volume_is_as_bad_as_too_little(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "case,class,volume_difference_ml\na,liver,-3\nb,liver,2\n"
    )
    volumes, _ = read_values([(OURS, "0", 0, tmp_path / "metrics.csv")], "volume_difference_ml")
    assert [value.value for value in volumes] == [3.0, 2.0]
    rows = [*values(BASE, 0), *values(OURS, 0.02)]
    table = format_overall_table(
        compare_with_baseline(rows, "Base", "volume_difference_ml"), "volume_difference_ml"
    )
    assert "| |volume_difference_ml| |" in table


def test_missing_tables_are_returned(tmp_path):
    no_values, missing = read_values([(OURS, "0", 0, tmp_path / "metrics.csv")], "dice")
    assert no_values == [] and missing == [str(tmp_path / "metrics.csv")]
    (tmp_path / "metrics.csv").write_text("case,class,dice\na,liver,0.5\nb,liver,good\n")
    with pytest.raises(UserError, match=r"metrics.csv, line 3 .* dice"):
        read_values([(OURS, "0", 0, tmp_path / "metrics.csv")], "dice")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"case,class,dice\n", "no case"),
        (b"case,class,dice\na,liver,0.5\na,tumour,0.5\nb,liver,0.5\n", "b lacks some"),
        (b"case,class,dice\na,liver,0.5\nb,li", "end is missing, after line 3"),
        (b"case,class,dice\na,liver,0.5\nb,li\n", "line 3 has 2 values, not 3"),
        (b"case,class,dice\na,liver,\xff\n", "UTF-8"),
    ],
)
def test_an_incomplete_table_is_rejected(tmp_path, content, why):
    """Some of the cases would give another mean without notice."""
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=why):
        read_values([(OURS, "0", 0, tmp_path / "metrics.csv")], "dice")


# ---- files of values ----


def test_written_values_give_the_same_comparison(tmp_path, capsys):
    """Two machines trained a seed each; a class that a case does not show stays undefined."""
    absent = Value(BASE, "0", 0, "case00", "absent", math.nan)
    rows = [*values(BASE, 0), *values(OURS, 0.02), absent]
    rows = [replace(v, patient=v.case[:6]) for v in rows]
    paths = []
    for seed in (0, 1):
        paths.append(tmp_path / f"{seed}.csv")
        seed_values = {"test": [v for v in rows if v.seed == seed], "validation": []}
        write_values(paths[-1], seed_values, "dice", ORIGIN)
    merged, origin = read_values_files(paths, "dice")
    assert {v.patient_or_case for v in merged["test"] if v.case in ("case010", "case011")} == {
        "case01"
    }
    assert origin == ORIGIN
    (direct,) = compare_with_baseline(rows, "Base", "dice")
    (reread,) = compare_with_baseline(merged["test"], "Base", "dice")
    assert reread.overall.mean == pytest.approx(direct.overall.mean, abs=1e-6)
    assert reread.overall.cases == direct.overall.cases and len(reread.seeds) == 2
    assert sum(math.isnan(v.value) for v in merged["test"]) == 1

    command = ["compare", "--baseline", "Base", "--values", *map(str, paths)]
    assert main([*command, "--write-values", str(tmp_path / "both.csv")]) == 0
    output = capsys.readouterr().out
    assert (
        "## test cases" in output and "## validation" not in output and "of one patient" in output
    )
    assert main([*command[:4], str(tmp_path / "both.csv")]) == 0
    assert capsys.readouterr().out == output


def test_values_that_cannot_be_compared_are_rejected(tmp_path, capsys):
    path = tmp_path / "values.csv"
    rows = [*values(BASE, 0), *values(OURS, 0.02)]
    write_values(path, {"test": rows}, "dice", ORIGIN)
    for words, says in [
        ([], "--values FILE"),
        (["--values", str(tmp_path / "none.csv")], "none.csv is not an existing file"),
        (["--values", str(tmp_path)], "is not an existing file"),
        (["--values", str(path), "-p", "tiny"], "-p chooses trainings of -d"),
        (["--values", str(path), "-o", f"{tmp_path}/../{tmp_path.name}/values.csv"], "lost"),
        (["--values", str(path), "--metric", "iou"], "class, iou, got"),
        (["--values", str(path), "-tr", "Our"], "did you mean 'Ours'?"),
        (["--values", str(path), "--baseline", "Nobody"], "trainer 'Nobody': is not in the files"),
    ]:
        assert main(["compare", *words]) == 2
        assert says in capsys.readouterr().err
    changed = [replace(v, value=v.value + 0.001) for v in rows]
    assert len(merge_values(rows, rows, "dice")) == len(rows)
    with pytest.raises(UserError, match=r"Base 2d, fold 0, seed 0 .* twice: case case00"):
        merge_values(rows, changed, "dice")
    with pytest.raises(UserError, match="trained twice"):  # in one file, too
        write_values(path, {"test": [*rows, *changed]}, "dice", ORIGIN)
        read_values_files([path], "dice")
    for old, new in (
        (",0,case00,", ",zero,case00,"),
        (",case00,case00,liver,", ",case00,"),
        (",case00,case00,liver,", ",case00,case00,,"),
        (",liver,0.", ",liver,inf"),
        (",liver,0.", ",liver,80."),
        (",liver,0.", ",liver,-0."),
        (",test,", ",Test,"),  # would be left out
        (",case00,case00,liver", ",case00 ,case00,liver"),
    ):
        write_values(path, {"test": rows}, "dice", ORIGIN)
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(UserError, match=r"values.csv, line 2 must hold 11 values"):
            read_values_files([path], "dice")
    write_values(path, {"test": rows}, "dice", ORIGIN)
    path.write_text(path.read_text().replace("\n", "\n\n", 2) + "odd\n\n")
    with pytest.raises(UserError, match=f"line {len(rows) + 5} must hold"):
        read_values_files([path], "dice")
    path.write_bytes("Dataset,plän".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-8"):
        read_values_files([path], "dice")


def test_values_of_other_data_or_plans_are_not_mixed(tmp_path):
    for name, origin in (("a", ORIGIN), ("b", ("Livers", "nnUNetPlans"))):
        subsets = {"test": values(BASE, 0, seeds=1)}
        write_values(tmp_path / f"{name}.csv", subsets, "dice", origin)
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(UserError, match=r"Hearts with nnUNetPlans .*Livers with nnUNetPlans"):
        read_values_files(paths, "dice")
    with pytest.raises(UserError, match=r"Hearts with nnUNetPlans .*Hearts with nnUNetPlans_600"):
        read_values_files(paths[:1], "dice", ("Hearts", "nnUNetPlans_600"))


def test_values_written_without_patients_get_them_from_the_other_file(tmp_path):
    """The order of the files does not matter."""
    anonymous = [*values(BASE, 0), *values(OURS, 0.02)]
    with_patients = [replace(v, patient="Ann" if v.case < "case06" else "Bob") for v in anonymous]
    for first, second in ((anonymous, with_patients), (with_patients, anonymous)):
        assert {v.patient_or_case for v in merge_values(first, second, "dice")} == {"Ann", "Bob"}
    conflicting = [replace(v, patient="Eve", seed=7) for v in anonymous]
    with pytest.raises(UserError, match=r"case case00 .* Ann and Eve"):
        merge_values(with_patients, conflicting, "dice")


def test_values_without_a_partner_are_written(tmp_path, monkeypatch, capsys):
    """A machine may have trained only the baseline; absent classes are credited when comparing."""
    rows = {"test": [*values(BASE, 0), Value(BASE, "0", 0, "case00", "none", math.nan)]}
    write_values(tmp_path / "a.csv", rows, "dice", ORIGIN)
    invents = [Value(OURS, "0", 0, "case00", "none", 0.0), *values(OURS, 0.02)]
    write_values(tmp_path / "b.csv", {"test": invents}, "dice", ORIGIN)
    paths, out = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], str(tmp_path / "out.csv")
    command = ["compare", "--baseline", "Base", "--write-values", out, "--values"]
    assert main([*command, paths[0]]) == 0
    assert "(dice: 2d 75.44)" in capsys.readouterr().out
    assert main([*command, *paths]) == 0
    assert ",none,\n" in Path(out).read_text(encoding="utf-8")  # not credited in the file
    assert re.search(r"\| none +\| -100\.00", capsys.readouterr().out)


# ---- every prefix of a file is refused ----


def prefixes_of(path: Path) -> Iterator[tuple[int, Path]]:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        yield length, path
    path.write_bytes(content)


def test_no_prefix_of_a_table_is_accepted(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [[case, name, 0.5, ""] for case in ("a", 'b, "2"', "c") for name in ("liver", "tumour")]
    write_csv(path, [["case", "class", "dice", "hd95"], *rows])
    tables = [(OURS, "0", 0, path)]
    for _ in prefixes_of(path):
        with pytest.raises(UserError, match="complete table"):
            read_values(tables, "dice")
    assert len(read_values(tables, "dice")[0]) == 6


def test_no_prefix_of_values_is_accepted(tmp_path):
    path = tmp_path / "values.csv"
    write_values(path, {"validation": values(OURS, 0.02)}, "dice", ORIGIN)
    expected = read_values_files([path], "dice")
    for length, _ in prefixes_of(path):
        with pytest.raises(UserError, match=r"complete CSV file|the columns") as refused:
            read_values_files([path], "dice")
        assert length == 0 or "complete" in str(refused.value)
    assert read_values_files([path], "dice") == expected


def test_tables_of_earlier_versions_and_of_spreadsheets_are_read(tmp_path):
    path = tmp_path / "values.csv"
    write_values(path, {"validation": values(OURS, 0.02)}, "dice", ORIGIN)
    expected = read_values_files([path], "dice")
    text = path.read_text().removesuffix("\n").replace('"', "")
    for same in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        path.write_bytes(same.encode())
        assert read_values_files([path], "dice") == expected
        path.write_bytes(same.encode()[:-3])
        with pytest.raises(UserError, match="its end is"):
            read_values_files([path], "dice")


def test_names_that_spreadsheets_would_compute_are_texts_and_are_read_back(tmp_path):
    path, hostile = tmp_path / "values.csv", '=cmd|"/c calc"!A1'
    names = ("@SUM(1)", "+a", "-b", "'=quoted", "'plain")
    pairs = zip(values(OURS, 0.0), names, strict=False)
    rows = [replace(value, case=hostile, name=name) for value, name in pairs]
    write_values(path, {"test": rows}, "dice", ORIGIN)
    with path.open(newline="") as file:
        cells = [cell for row in list(csv.reader(file))[1:] for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-"))]
    read, _ = read_values_files([path], "dice")
    assert [(v.case, v.name) for v in read["test"]] == [(v.case, v.name) for v in rows]
    write_csv(path, [["case", "class", "volume"], ["a", "liver", "-3.5"]])
    assert "a,liver,-3.5\n" in path.read_text()  # a number
