"""A benchmark with hidden labels is a partition of the labelled cases."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.cli.main import main
from semi_nnunet.raw.benchmark_split import (
    Split,
    choose_held_out,
    choose_labelled,
    read_case_list,
    write_split,
)
from semi_nnunet.raw.folds import build_patient_finder, exclude_patients_of
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.verbs.split import split
from tests.data.split_sources import CASES, make_source, names


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=4), min_size=1), st.data())
def test_a_random_choice_is_a_subset_of_the_wanted_size(
    cases: set[str], data: st.DataObject
) -> None:
    number = data.draw(st.integers(1, len(cases)))
    seed = data.draw(st.integers(0, 2**32))
    chosen = choose_labelled(sorted(cases), number, None, seed)
    assert len(chosen) == len(set(chosen)) == number
    assert set(chosen) <= cases
    shuffled = data.draw(st.permutations(sorted(cases)))
    assert choose_labelled(shuffled, number, None, seed) == chosen


def test_another_seed_chooses_others() -> None:
    cases = [f"case_{number}" for number in range(50)]
    assert choose_labelled(cases, 10, None, 0) != choose_labelled(cases, 10, None, 1)


def test_fewer_labelled_cases_of_the_same_seed_are_nested() -> None:
    cases = [f"case_{number}" for number in range(50)]
    assert set(choose_labelled(cases, 5, None, 3)) < set(choose_labelled(cases, 10, None, 3))


@pytest.mark.parametrize(
    ("number", "chosen", "says"),
    [
        (None, None, "--labelled N"),
        (0, None, "between 1 and 6"),
        (7, None, "between 1 and 6, .* got 7. Fix: a smaller --labelled"),
        (3, ["a", "b"], "between 1 and 2"),
        (None, ["a", "z"], "z"),
        (None, [], "at least one"),
        (1, [], "empty. Fix: name cases"),
    ],
)
def test_an_impossible_choice_is_refused(
    number: int | None, chosen: list[str] | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        choose_labelled(CASES, number, chosen, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UserError, match="--seed must be 0 or more, got -1"):
        choose_labelled(CASES, 3, None, -1)


def test_an_empty_data_set_has_nothing_to_choose_from() -> None:
    with pytest.raises(UserError, match=r"imagesTr is empty\. Fix"):
        choose_labelled([], 3, None, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cases.txt", "b\n\n a \n"),
        ("cases.json", '["b", "a"]'),
        ("cases.json", '{"2": ["b", "a"], "1": ["c"], "note": "x"}'),
    ],
)
def test_a_case_list_may_be_text_or_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_case_list(tmp_path / name, 2) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"2": ["b"]}', "none named 3"), ("[1, 2]", "case ids"), ("{", "JSON")],
)
def test_an_invalid_case_list_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_case_list(tmp_path / "cases.json", 3)


@pytest.mark.parametrize("symlink", [False, True])
def test_the_new_data_set_is_a_partition_and_its_hidden_labels_lie_outside(
    tmp_path: Path, symlink: bool
) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    made = write_split(source, target, ["a", "c"], hidden, symlink)
    assert made.is_new and made.description == "2 in imagesTr, 4 in imagesUn, 1 in imagesTs"
    assert names(target / "imagesTr") == names(target / "labelsTr") == {"a", "c"}
    assert names(target / "imagesUn") == names(hidden) == {"b", "d", "e", "f"}
    assert {path.name for path in target.iterdir()} == {
        *("imagesTr", "labelsTr", "imagesUn", "imagesTs", "labelsTs"),
        *("dataset.json", "split.json", "split_from.json"),
    }
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 2
    for path in target.rglob("*_0000.nii.gz"):
        kind = "imagesTs" if "imagesTs" in path.parts else "imagesTr"
        assert path.read_text() == (source / kind / path.name).read_text()
        assert path.is_symlink() == symlink
    assert not list(tmp_path.glob(".*"))


@given(st.integers(1, 40), st.data())
def test_held_out_cases_are_as_many_as_requested_and_spread(
    total: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(1, total))
    cases = [f"case_{i:03d}" for i in range(total)]
    held_out = choose_held_out(data.draw(st.permutations(cases)), number)
    assert held_out == sorted(set(held_out)) and len(held_out) == number
    gaps = {cases.index(b) - cases.index(a) for a, b in pairwise(held_out)}
    assert gaps <= {total // number, -(-total // number)}


@pytest.mark.parametrize(
    ("cases", "asked", "says"),
    [
        (CASES, 0, "1 to 6 .*got 0"),
        (CASES, 7, "1 to 6 of the cases that are not labelled, got 7"),
        (CASES, ["a", "z"], "labelled, of a labelled patient, or do not exist: z"),
        (CASES, [], "got 0"),
        ((), 3, "1 to 0 of the cases that are not labelled, got 3"),  # all stay labelled
    ],
)
def test_cases_that_cannot_be_held_out_are_refused(
    cases: tuple[str, ...], asked: int | list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        choose_held_out(cases, asked)


def test_an_interrupted_split_is_simply_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    monkeypatch.setattr("semi_nnunet.raw.benchmark_split.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_split(source, target, ["a"], hidden, False)
    assert not target.exists()
    monkeypatch.undo()
    write_split(source, target, ["a", "b"], hidden, False)
    assert names(target / "imagesTr") == {"a", "b"}


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    (tmp_path / "Dataset041_New").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", False)


def test_the_same_split_again_changes_nothing_and_another_one_is_refused(tmp_path: Path) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    assert write_split(source, target, ["a"], hidden, False).is_new
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = write_split(source, target, ["a"], tmp_path / "other", False)
    assert not again.is_new and again.hidden_labels == hidden  # where they are
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UserError, match="exists already"):
        write_split(source, target, ["b"], hidden, False)


@pytest.mark.parametrize("symlink", [False, True])
def test_hidden_labels_never_replace_other_files(tmp_path: Path, symlink: bool) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    before = {path: path.read_bytes() for path in source.rglob("*.gz")}
    for folder in (source / "labelsTr", source / "below", source):
        with pytest.raises(UserError, match="outside"):
            write_split(source, target, ["a"], folder, symlink)
    hidden.mkdir()
    (hidden / "b.nii.gz").write_text("an annotation of the user")
    with pytest.raises(UserError, match=r"other labels .* b\.nii\.gz"):
        write_split(source, target, ["a"], hidden, symlink)
    assert (hidden / "b.nii.gz").read_text() == "an annotation of the user"
    assert {path: path.read_bytes() for path in source.rglob("*.gz")} == before
    (hidden / "b.nii.gz").write_bytes(before[source / "labelsTr" / "b.nii.gz"])  # an earlier split
    assert write_split(source, target, ["a"], hidden, symlink).is_new


@pytest.mark.parametrize("symlink", [False, True])
def test_source_files_that_cannot_be_read_are_named(tmp_path: Path, symlink: bool) -> None:
    source = make_source(tmp_path)
    (source / "imagesUn").mkdir()
    (source / "imagesUn" / "u_0000.nii.gz").symlink_to(tmp_path / "moved")
    (source / "imagesUn" / "v_0000.nii.gz").mkdir()
    with pytest.raises(UserError, match=r"(?s)u_0000.*v_0000"):
        write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", symlink)


@pytest.mark.parametrize("change", ["label", "image", "added", "removed", "description"])
def test_a_source_that_changed_since_is_named(tmp_path: Path, change: str) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    write_split(source, target, ["a"], hidden, False)
    for path in source.rglob("*.gz"):  # copied by another program
        os.utime(path)
    assert not write_split(source, target, ["a"], hidden, False).is_new
    description = read_json(source / "dataset.json")
    file = {
        "label": "labelsTr/b.nii.gz", "image": "imagesTr/a_0000.nii.gz",
        "added": "imagesTs/new_0000.nii.gz", "removed": "imagesTs/t_0000.nii.gz",
        "description": "dataset.json",
    }[change]  # fmt: skip
    if change == "description":
        write_json(source / file, {**description, "labels": {"background": 0, "other": 1}})
    elif change == "removed":
        (source / file).unlink()
    else:
        (source / file).write_text("corrected")
    with pytest.raises(UserError, match=re.escape(file)):
        write_split(source, target, ["a"], hidden, False)


def test_a_split_of_links_follows_its_source(tmp_path: Path) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    write_split(source, target, ["a"], hidden, True)
    (source / "labelsTr" / "b.nii.gz").write_text("corrected")
    assert not write_split(source, target, ["a"], hidden, False).is_new
    assert (hidden / "b.nii.gz").read_text() == "corrected"


def test_hidden_labels_inside_the_new_data_set_are_refused(tmp_path: Path) -> None:
    source, target = make_source(tmp_path), tmp_path / "Dataset041_New"
    with pytest.raises(UserError, match="outside"):
        write_split(source, target, ["a"], target / "labelsUn", False)
    assert not target.exists()


def test_a_case_without_a_label_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    (source / "labelsTr/b.nii.gz").unlink()
    with pytest.raises(UserError, match=r"labelsTr/b\.nii\.gz"):
        write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", True)
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_a_case_that_is_labelled_and_unlabelled_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    (source / "imagesUn").mkdir()
    (source / "imagesUn/b_0000.nii.gz").write_text("another image")
    with pytest.raises(UserError, match=r"imagesTr and in imagesUn: b\."):
        write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", False)
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_the_spacing_file_of_a_tif_is_copied(tmp_path: Path) -> None:
    source = make_source(tmp_path, ".tif", channels=1)
    for folder in ("imagesTr", "labelsTr"):
        for case in CASES:
            (source / folder / f"{case}.json").write_text("{}")
    write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", False)
    for place in ("imagesTr/a", "labelsTr/a", "imagesUn/b", "../hidden/b"):
        assert (tmp_path / "Dataset041_New" / f"{place}.json").is_file()


def test_cases_that_annotate_some_classes_do_so_in_the_new_data_set(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    content = json.loads((source / "dataset.json").read_text())
    content["labels"] = {"background": 0, "liver": 1, "spleen": 2}
    content["annotated"] = {"[no case]": ["liver"], "?": ["liver"], "b": ["spleen"]}
    (source / "dataset.json").write_text(json.dumps(content))
    target = tmp_path / "Dataset041_New"
    for entry in ({"a": ["liver"], "b": ["spleen"], "t": ["liver"]}, None):
        if entry is None:  # another list of the source makes another split
            content["annotated"] = {"b": ["liver"]}
            (source / "dataset.json").write_text(json.dumps(content))
            with pytest.raises(UserError):
                write_split(source, target, ["a", "b"], tmp_path / "hidden", False)
        else:
            write_split(source, target, ["a", "b"], tmp_path / "hidden", False)
            assert json.loads((target / "dataset.json").read_text())["annotated"] == entry


FRAMES = [f"p{patient}_{frame}" for patient in range(20) for frame in range(1 + patient % 3)]
PATIENT = r"p\d+"


@given(st.integers(1, len(FRAMES)), st.integers(0, 99))
def test_whole_patients_are_drawn_close_to_the_number(number, seed) -> None:
    patient_of = build_patient_finder({"patient": PATIENT})
    labelled = choose_labelled(FRAMES, number, None, seed, patient_of)
    others = [case for case in FRAMES if case not in labelled]
    assert exclude_patients_of(others, labelled, patient_of) == others
    assert abs(len(labelled) - number) <= 2 and labelled
    if others and number <= len(others):
        held_out = choose_held_out(others, number, patient_of)
        rest = [case for case in others if case not in held_out]
        assert exclude_patients_of(rest, held_out, patient_of) == rest and held_out
        assert len(held_out) >= number / 3


def test_a_patient_of_many_cases_is_not_drawn_for_few() -> None:
    """Of scans of 300 and 10 slices, 20 can be labelled whatever the order."""
    scans = {0: 300, **dict.fromkeys(range(1, 8), 10)}
    slices = [f"p{scan}_{i}" for scan, count in scans.items() for i in range(count)]
    patient_of = build_patient_finder({"patient": PATIENT})
    for seed in range(12):
        assert len(choose_labelled(slices, 20, None, seed, patient_of)) == 20
        assert len(choose_labelled(slices, 1, None, seed, patient_of)) == 10
    assert len(choose_held_out(slices, 320, patient_of)) == 320


def test_some_cases_of_a_patient_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match=r"all cases .*got some of p2"):
        choose_held_out(FRAMES, ["p0_0", "p2_1"], build_patient_finder({"patient": PATIENT}))


def test_lists_with_other_names_are_found_by_their_number_of_cases(tmp_path: Path) -> None:
    file = tmp_path / "lists.json"
    labelled = {"10%": ["b", "a"], "20%": ["b", "a", "c"]}
    content = {"val": ["e", "f", "a", "b"], "labelled_patients": {"x": ["p", "q"]}}
    file.write_text(json.dumps({**content, "labelled": labelled}))
    assert read_case_list(file, 2) == ["b", "a"]
    assert read_case_list(file, 3) == ["b", "a", "c"]
    with pytest.raises(UserError, match="lists named 2, 3, none named 4"):  # not those of "val"
        read_case_list(file, 4)
    with pytest.raises(UserError, match="one list"):
        read_case_list(file, None)
    labelled |= {"other": ["c", "a"], "seed": 0}
    file.write_text(json.dumps({"labelled": labelled}))
    assert read_case_list(file, 3) == ["b", "a", "c"]
    with pytest.raises(UserError, match="holds 2 different lists of 2 cases"):
        read_case_list(file, 2)


# ---- the command and the function ----


@pytest.mark.parametrize("by_file", [False, True])
def test_held_out_cases_take_the_place_of_the_test_cases(
    by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    (tmp_path / "labelled.txt").write_text("a\nd\n")
    (tmp_path / "patients.txt").write_text("b\ne\n")
    held_out = str(tmp_path / "patients.txt") if by_file else "2"  # of b, c, e, f
    command = ["split", "-d", "40", "--new-id", "650", "--cases", str(tmp_path / "labelled.txt")]
    command += ["--ignore-twins"]  # its images are texts
    assert main([*command, "--held-out", held_out]) == 0
    (new,) = tmp_path.glob("Dataset650_*")
    assert names(new / "imagesTr") == names(new / "labelsTr") == {"a", "d"}
    assert names(new / "imagesTs") == names(new / "labelsTs") == {"b", "e"}
    assert names(new / "imagesUn") == {"c", "f"} == names(tmp_path / f"hidden_labels_{new.name}")
    assert len(list((new / "imagesTs").iterdir())) == 4  # both channels
    assert main([*command, "--held-out", held_out]) == 0  # done
    assert main(command) == 2  # another one of the same number


def test_the_command_names_the_new_data_set_and_refuses_a_number_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    command = ["split", "-d", "Dataset040_Whole", "--new-id", "41", "--labelled", "2"]
    command += ["--ignore-twins"]
    assert main(command) == 0
    assert (tmp_path / "Dataset041_Whole2labelled/imagesUn").is_dir()
    assert len(list((tmp_path / "hidden_labels_Dataset041_Whole2labelled").iterdir())) == 4
    assert "semi_nnunet preprocess -d 41" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--new-name", "Other"]) == 2
    assert "is taken by Dataset041_Whole2labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--new-id", "-1"], "--new-id: must be a number from 1 to 999, got -1"),
        (["--new-id", "1000"], "--new-id: must be a number from 1 to 999, got 1000"),
        (
            ["--new-id", "41", "--new-name", "a/b"],
            "--new-name: must be a name without / and \\, got 'a/b'",
        ),
        (["--new-id", "41", "--new-name", ""], "--new-name: must be a name"),
        (["--new-id", "41", "--new-name", "  "], "--new-name: must be a name"),
    ],
)
def test_the_command_refuses_numbers_and_names_that_no_data_set_can_have(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    source = make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(["split", "-d", "Dataset040_Whole", "--labelled", "2", *words]) == 2
    assert says in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [source]


def test_the_command_takes_the_published_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    command = [
        "split",
        "-d",
        "Dataset040_Whole",
        "--new-id",
        "41",
        "--labelled",
        "2",
        "--published",
    ]
    assert main(command) == 2
    assert f"the list {source}/labelled_subsets.json does not exist" in capsys.readouterr().err
    (source / "labelled_subsets.json").write_text('{"2": ["f", "b"]}')
    assert main(command) == 0
    assert names(tmp_path / "Dataset041_Whole2labelled/imagesTr") == {"b", "f"}


def test_held_out_cases_are_whole_patients_without_labelled_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path, cases=["xa", "xb", "c", "d", "ea", "eb"])
    content = json.loads((source / "dataset.json").read_text())
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    (tmp_path / "list.txt").write_text("xa\n")
    (tmp_path / "held.txt").write_text("xb\n")
    (source / "imagesUn").mkdir()
    for case in ("ec", "g"):  # nobody labelled them; one is of a patient who is held out
        for channel in range(2):
            (source / f"imagesUn/{case}_{channel:04d}.nii.gz").write_text(f"{case} {channel}")
    (source / "dataset.json").write_text(json.dumps({**content, "patient": "."}))
    command = [
        "split",
        "-d",
        "Dataset040_Whole",
        "--new-id",
        "41",
        "--cases",
        str(tmp_path / "list.txt"),
    ]
    assert main([*command, "--held-out", str(tmp_path / "held.txt")]) == 2  # of the same patient
    assert "--held-out names cases" in capsys.readouterr().err
    (tmp_path / "held.txt").write_text("ea\neb\n")
    command += ["--held-out", str(tmp_path / "held.txt")]
    assert main(command) == 0
    assert names(tmp_path / "Dataset041_Whole1labelled/imagesTs") == {"ea", "eb"}
    assert names(tmp_path / "Dataset041_Whole1labelled/imagesUn") == {"xb", "c", "d", "g"}
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().out
    (source / "dataset.json").write_text(json.dumps({**content, "patient": ".."}))
    assert main(command) == 2  # other patients since
    assert "was not made" in capsys.readouterr().err


def test_the_function_makes_the_same_as_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    made = split("40", 41, 2, seed=3, held_out="1", ignore_twins=True)
    target, hidden = tmp_path / "Dataset041_Whole2labelled", tmp_path / "hidden_labels_Dataset041_"
    in_words = "2 in imagesTr, 3 in imagesUn, 1 in imagesTs"
    assert made == Split(target, hidden.with_name(f"{hidden.name}Whole2labelled"), True, in_words)
    assert sorted(names(target / "imagesTr")) == choose_labelled(CASES, 2, None, 3)
    command = ["split", "-d", "40", "--new-id", "41", "--labelled", "2", "--seed", "3"]
    command += ["--ignore-twins"]
    assert main([*command, "--held-out", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not split("40", 41, 2, seed=3, held_out="1", ignore_twins=True).is_new
