"""A benchmark with hidden labels is a partition of the labelled cases."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.data.patients import apart_from, patient_finder
from semi_nnunet.data.splits import (
    choose_held_out,
    choose_labelled,
    describe,
    read_case_list,
    write_split,
)
from semi_nnunet.util.errors import UserError
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
        (1, [], "the list is empty. Fix: name cases"),
    ],
)
def test_a_choice_that_is_not_possible_is_refused(
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
    [('{"2": ["b"]}', "none named 3"), ("[1, 2]", "list of case ids"), ("{", "JSON")],
)
def test_a_case_list_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_case_list(tmp_path / "cases.json", 3)


@pytest.mark.parametrize("symlink", [False, True])
def test_the_new_data_set_is_a_partition_and_its_hidden_labels_lie_outside(
    tmp_path: Path, symlink: bool
) -> None:
    source, target, hidden = make_source(tmp_path), tmp_path / "Dataset041_New", tmp_path / "hidden"
    assert write_split(source, target, ["a", "c"], hidden, symlink)
    assert describe(target) == "2 in imagesTr, 4 in imagesUn, 1 in imagesTs"
    assert names(target / "imagesTr") == names(target / "labelsTr") == {"a", "c"}
    assert names(target / "imagesUn") == names(hidden) == {"b", "d", "e", "f"}
    assert {path.name for path in target.iterdir()} == {
        *("imagesTr", "labelsTr", "imagesUn", "imagesTs", "labelsTs"),
        *("dataset.json", "split.json"),
    }
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 2
    for path in target.rglob("*_0000.nii.gz"):
        kind = "imagesTs" if "imagesTs" in path.parts else "imagesTr"
        assert path.read_text() == (source / kind / path.name).read_text()
        assert path.is_symlink() == symlink
    assert not list(tmp_path.glob(".*"))


@given(st.integers(1, 40), st.data())
def test_held_out_cases_are_as_many_as_asked_for_and_spread(
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
        (CASES, 0, "1 to 6 of the cases that are not labelled, got 0"),
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
    monkeypatch.setattr("semi_nnunet.data.splits.write_json", lambda *_: 1 / 0)
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
    assert write_split(source, target, ["a"], hidden, False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write_split(source, target, ["a"], hidden, False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UserError, match="exists already"):
        write_split(source, target, ["b"], hidden, False)


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
    with pytest.raises(UserError, match=r"in imagesTr and in imagesUn: b\."):
        write_split(source, tmp_path / "Dataset041_New", ["a"], tmp_path / "hidden", False)
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_the_spacing_of_a_tif_goes_with_it(tmp_path: Path) -> None:
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
def test_whole_patients_are_drawn_as_near_to_the_number_as_they_allow(number, seed) -> None:
    patient_of = patient_finder({"patient": PATIENT})
    labelled = choose_labelled(FRAMES, number, None, seed, patient_of)
    others = [case for case in FRAMES if case not in labelled]
    assert apart_from(others, labelled, patient_of) == others
    assert abs(len(labelled) - number) <= 2 and labelled
    if others and number <= len(others):
        held_out = choose_held_out(others, number, patient_of)
        rest = [case for case in others if case not in held_out]
        assert apart_from(rest, held_out, patient_of) == rest and held_out
        assert len(held_out) >= number / 3


def test_a_patient_of_many_cases_is_not_drawn_for_few() -> None:
    """Of scans of 300 and 10 slices, 20 can be labelled whatever the order."""
    scans = {0: 300, **dict.fromkeys(range(1, 8), 10)}
    slices = [f"p{scan}_{i}" for scan, count in scans.items() for i in range(count)]
    patient_of = patient_finder({"patient": PATIENT})
    for seed in range(12):
        assert len(choose_labelled(slices, 20, None, seed, patient_of)) == 20
        assert len(choose_labelled(slices, 1, None, seed, patient_of)) == 10
    assert len(choose_held_out(slices, 320, patient_of)) == 320


def test_some_cases_of_a_patient_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match="all cases of a patient or none, got some of p2"):
        choose_held_out(FRAMES, ["p0_0", "p2_1"], patient_finder({"patient": PATIENT}))


def test_lists_that_are_named_otherwise_are_found_by_their_number_of_cases(tmp_path: Path) -> None:
    file = tmp_path / "lists.json"
    labelled = {"10%": ["b", "a"], "20%": ["b", "a", "c"]}
    content = {"val": ["e", "f", "a", "b"], "labelled_patients": {"x": ["p", "q"]}}
    file.write_text(json.dumps({**content, "labelled": labelled}))
    assert read_case_list(file, 2) == ["b", "a"]
    assert read_case_list(file, 3) == ["b", "a", "c"]
    with pytest.raises(UserError, match="lists named 2, 3, none named 4"):  # not those of "val"
        read_case_list(file, 4)
    with pytest.raises(UserError, match="must hold one list of cases here"):
        read_case_list(file, None)
    labelled |= {"other": ["c", "a"], "seed": 0}
    file.write_text(json.dumps({"labelled": labelled}))
    assert read_case_list(file, 3) == ["b", "a", "c"]
    with pytest.raises(UserError, match="holds 2 different lists of 2 cases"):
        read_case_list(file, 2)
