"""Errors explain why a report cannot be written, and leave no file."""

from __future__ import annotations

import contextlib
import re
import shutil

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import write_values
from semi_nnunet.report.choice import MethodChoice
from semi_nnunet.report.write import write_report_page
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.report.gains import values
from tests.report.parsed_page import Elements, Page
from tests.report.results_tree import BASE, OURS, Tree


def test_errors_of_values_are_explained(tree, tmp_path, monkeypatch, capsys):
    tree.set_paths(monkeypatch)
    values_file, out = tmp_path / "kept.csv", ["-o", str(tmp_path / "values.html")]
    assert main(["compare", "-d", "7", "--write-values", str(values_file)]) == 0
    capsys.readouterr()
    for words, message in (
        (
            ["--values", str(values_file), "--baseline", "SemiBaselneTrainer"],
            f"did you mean '{BASE}'?",
        ),
        (["--values", str(values_file), "--metric", "iou"], "must have the columns"),
        (["--values", str(tmp_path / "none.csv")], "is not an existing file"),
        (["--values", str(values_file), "-d", "7"], "Mutually exclusive"),
        ([], "nothing to report"),
    ):
        with contextlib.suppress(SystemExit):
            assert main(["report", *words, *out]) == 2
        assert message in capsys.readouterr().err
    header, *rows = values_file.read_text().splitlines()
    undefined = [row[: row.rindex(",") + 1] for row in rows]
    for lines, message in (([], "hold no values"), (undefined, "is not defined")):
        values_file.write_text("\n".join([header, *lines]))
        assert main(["report", "--values", str(values_file), *out]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "values.html").exists()


def test_nothing_measured_is_explained(tmp_path, monkeypatch, capsys):
    tree = Tree(tmp_path, cases=1)
    tree.set_paths(monkeypatch)
    assert main(["report", "-d", "7", "-o", str(tmp_path / "r.html")]) == 2
    assert "semi_nnunet crossval" in capsys.readouterr().err
    assert main(["report", "-d", "7", "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.fixture
def values_file(tmp_path):
    """A file with values of two methods."""
    rows = [*values(BASE, 0), *values(OURS, 0.03)]
    path = tmp_path / "kept.csv"
    write_values(
        path, {"test": rows}, "dice", ("Seven \N{GREEK SMALL LETTER ALPHA}", "nnUNetPlans")
    )
    return path


def test_the_returned_answer_is_in_the_file(values_file, tmp_path):
    report = write_report_page(values=[values_file], out=tmp_path / "page.html")
    assert report.path == tmp_path / "page.html" and report.size == report.path.stat().st_size
    text = Page(report.path.read_text(encoding="utf-8")).text
    assert report.headline in text and len(report.sentences) > 2
    assert all(sentence in text for sentence in report.sentences)
    assert {path.name for path in tmp_path.iterdir()} == {"kept.csv", "page.html"}


def test_a_report_replaces_an_older_one_completely_or_not_at_all(values_file, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("an older one")
    with pytest.raises(UserError):
        write_report_page(values=[values_file], baseline="Nobody", out=out)
    assert out.read_text() == "an older one"
    write_report_page(values=[values_file], out=out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_file_of_values_is_not_overwritten(values_file):
    content = values_file.read_text()
    with pytest.raises(UserError, match=r"kept\.csv"):
        write_report_page(values=[values_file], out=values_file)
    assert values_file.read_text() == content


def test_a_report_without_data_is_rejected(values_file, tmp_path):
    with pytest.raises(UserError, match="nothing to report"):
        write_report_page(out=tmp_path / "page.html")
    with pytest.raises(UserError, match="-p chooses trainings of -d"):
        write_report_page(values=[values_file], plans="others", out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("shape", [(6, 24, 20), (24, 20)])
def test_no_name_becomes_an_element_of_the_page(shape, tmp_path, monkeypatch, capsys):
    def report(called, first, second):
        labels = {"background": 0, first: 1, second: 2}
        name = f"Dataset007_Seven{called}"
        tree = Tree(tmp_path / "".join(filter(str.isalnum, called)), shape, 3, name, labels, called)
        tree.set_paths(monkeypatch)
        for trainer in (BASE, OURS):
            tree.describe(tree.train(trainer), unlabelled=trainer == OURS)
        out = tree.root / "report.html"
        assert main(["report", "-d", "7", "-o", str(out)]) == 0
        return out.read_text(encoding="utf-8")

    of_files = IMAGE  # a slash cannot be in the name of a file
    page, plain = report(of_files, SCRIPT, IMAGE), report("plain", "liver", "tumour")
    assert "alert(1)" in page
    outside = re.sub(r'<script type="application/json">.*?</script>', "", page, flags=re.DOTALL)
    assert SCRIPT not in outside and IMAGE not in outside
    hostile, usual = Elements(page), Elements(plain)
    assert hostile.found == usual.found  # the same elements, with the same attributes
    assert len(hostile.scripts) == len(usual.scripts)
    assert SCRIPT in hostile.text and IMAGE in hostile.text


def test_no_name_reaches_the_terminal_as_an_escape_sequence(tmp_path, monkeypatch, capsys):
    escape = "\x1b[31mred\x1b[2J"
    labels = {"background": 0, f"liver{escape}": 1, "tumour": 2}
    tree = Tree(tmp_path, cases=3, labels=labels)
    tree.set_paths(monkeypatch)
    for trainer in (BASE, OURS):
        tree.train(trainer)  # semi_nnunet evaluate
    assert main(["report", "-d", "7", "-o", str(tmp_path / "report.html")]) == 0
    assert main(["compare", "-d", "7"]) == 0
    folder = tree.results / f"{OURS}__nnUNetPlans{escape}__2d" / "fold_0"
    shutil.copytree(tree.results / f"{OURS}__nnUNetPlans__2d" / "fold_0", folder)
    assert main(["status", "-d", "7"]) == 0
    assert main(["compare", "-d", "7", "-p", f"none{escape}"]) == 2
    (tree.raw / "imagesUn").mkdir()
    (tree.raw / "imagesUn" / f"a{escape}.txt").touch()
    (tree.raw / "imagesUn" / f"a{escape}_0000.nii.gz").touch()
    assert main(["preprocess", "-d", "7", "-np", "1"]) == 2
    output = "".join(capsys.readouterr())
    assert "\x1b" not in output and "\\x1b[31mred" in output


def test_the_choice_and_the_cost_of_submissions_are_shown(values_file, tmp_path):
    rows = (("short", "100", "0 1", "Base, <script>", "CPS"),)
    MethodChoice("SemiCPSTrainer", ("Folds 0 1 choose.",), rows, ("CPS ships.",)).write(
        tmp_path / "choice.json"
    )
    folders = []
    for name, seconds in (("<b>slow", 20.0), ("fast", 4.5)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        mean = {"seconds": seconds, "cpu_area": 9.0, "own_memory": 5.0, "dice": 0.9}
        content = {"command": 'run "<i>"', "mean": mean, "cases": {"a": mean}}
        write_json(folders[-1] / "efficiency.json", content)
    out = tmp_path / "shown.html"
    write_report_page(
        values=[values_file], choice=tmp_path / "choice.json", efficiency=folders, out=out
    )
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    for text in ("Folds 0 1 choose.", "Base, <script>", "CPS ships.", "<b>slow", "20.0", "4.5"):
        assert text in page.text
    assert "Base, <script>" not in html and "<b>slow" not in html and "<i>" not in html
    assert 'href="#choice"' in html and 'href="#cost"' in html
    write_report_page(values=[values_file], out=out)
    html = out.read_text(encoding="utf-8")
    assert 'href="#choice"' not in html and 'href="#cost"' not in html
