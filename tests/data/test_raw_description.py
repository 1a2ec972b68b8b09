"""dataset.json and the names of files are read and checked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semi_nnunet.raw.description import RawDataset, find_cases, find_misnamed_images
from semi_nnunet.util.errors import UserError
from semi_nnunet.verify.integrity import check_dataset, find_dataset_problems
from tests.data.raw_datasets import (
    describe,
    label,
    only_problem,
    problems_in,
    truncate,
    voxels,
    whole_problem,
    write,
)


def test_cases_in_groups_channels_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("x_1_0001.png", "x_1_0000.png", "y_0000.png", "z.png", "y_0000.tif"):
        (tmp_path / name).touch()
    first, second = str(tmp_path / "x_1_0000.png"), str(tmp_path / "x_1_0001.png")
    assert find_cases(tmp_path, ".png") == {
        "x_1": [first, second],
        "y": [str(tmp_path / "y_0000.png")],
    }
    assert find_cases(tmp_path / "absent", ".png") == {}


# ---- dataset.json ----


def test_an_absent_dataset_json_is_named(data: Path) -> None:
    (data / "dataset.json").unlink()
    assert "absent" in whole_problem(data, "dataset.json")
    with pytest.raises(UserError, match="absent"):
        check_dataset(data, 1, False)


def test_a_pipe_in_place_of_dataset_json_is_named(data: Path) -> None:
    (data / "dataset.json").unlink()
    os.mkfifo(data / "dataset.json")
    assert "a file" in whole_problem(data, "dataset.json")


@pytest.mark.parametrize("content", ["{'labels': ", '{"labels": ' + "[" * 100_000], ids=len)
def test_an_invalid_dataset_json_is_named(data: Path, content: str) -> None:
    (data / "dataset.json").write_text(content)
    assert "not JSON" in whole_problem(data, "dataset.json")


@pytest.mark.parametrize("key", ["channel_names", "labels", "numTraining", "file_ending"])
def test_a_missing_key_is_named(data: Path, key: str) -> None:
    describe(data, **{key: None})
    assert repr(key) in whole_problem(data, "dataset.json")


@pytest.mark.parametrize("declared", ["mr", True, None, ["other"], {}])
def test_an_unknown_unlabelled_domain_is_named(data: Path, declared: Any) -> None:
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**description, "unlabelled_domain": declared}))
    found = whole_problem(data, "dataset.json")
    assert f"same, other, got {declared!r}" in found


def test_the_unlabelled_domain_is_the_same_unless_declared(data: Path) -> None:
    assert not RawDataset.of(data).other_domain
    for declared in ("same", "other"):
        describe(data, unlabelled_domain=declared)
        assert RawDataset.of(data).other_domain == (declared == "other")
    describe(data, channel_names={"0": "T1", "1": "CT"})
    assert RawDataset.of(data).channels == ["T1", "CT"]


def test_the_old_name_modality_is_accepted(data: Path) -> None:
    describe(data, channel_names=None, modality={"0": "CT"})
    assert find_dataset_problems(data) == [] == problems_in(data)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"numTraining": 3}, "got 3"),
        ({"labels": {"background": 0, "organ": 2}}, "consecutive"),
        ({"labels": {"0": "background", "1": "organ"}}, "whole numbers"),
        ({"labels": {"background": 0, "ignore": 1, "organ": 2}}, "ignore"),
        ({"labels": {"organ": 0, "other": 1}}, "background"),
        ({"file_ending": ".jpg"}, "no reader"),
        ({"channel_names": {"CT": 0}}, "'channel_names' must map"),
        ({"channel_names": {"0": 0}}, "'channel_names' must map"),
        ({"channel_names": {"0": "R", "2": "G"}}, "got {'0': 'R', '2': 'G'}"),
        ({"channel_names": {"1": "R", "0": "G"}}, "in this order"),
        ({"channel_names": None, "modality": {"CT": 0}}, "'channel_names' must map"),
        ({"channel_names": {"0": "C\nT"}}, "'channel_names' must have no"),
        ({"labels": {"background": 0, "\u202eorgan": 1}}, "a name of 'labels' must have no line"),
        ({"dataset": {"a": {"images": ["x"]}}}, "'a'"),
    ],
)
def test_wrong_content_of_dataset_json_is_named(
    data: Path, change: dict[str, Any], text: str
) -> None:
    describe(data, **change)
    assert text in whole_problem(data, "dataset.json")


def test_regions_and_the_ignore_label_are_declared_values(data: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    describe(data, labels=labels, regions_class_order=[1, 2])
    write(data / "labelsTr/a.nii.gz", (voxels(0) % 4).astype(np.uint8))
    assert find_dataset_problems(data) == [] == problems_in(data)


WHOLE_AND_CORE = {"background": 0, "whole": [1, 2], "core": [2]}


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (None, "2 regions (whole, core), got none"),
        ([1], "must give a label for each of the 2 regions (whole, core), got [1]"),
        ([1, 7], "1, 2, got [7]"),
        ([1, 0], "must hold labels of the regions, 1, 2, got [0]"),
        (["1", 2], "must hold labels of the regions, 1, 2, got ['1']"),
        ({"whole": 1, "core": 2}, "must give a label for each of the 2 regions"),
        ([1, 1], "becomes 1 of whole"),
    ],
)
def test_a_wrong_order_of_regions_is_named(data: Path, order: Any, text: str) -> None:
    describe(data, labels=WHOLE_AND_CORE, regions_class_order=order)
    assert text in whole_problem(data, "dataset.json")


def test_an_order_that_does_not_give_the_labels_back_is_named(data: Path) -> None:
    describe(data, labels=WHOLE_AND_CORE, regions_class_order=[2, 1])
    first, second = find_dataset_problems(data)
    assert "1 of whole becomes 2" in first.what
    assert "becomes 1 of whole" in second.what


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (WHOLE_AND_CORE, [1, 2]),
        ({"background": 0, "any": [1, 2]}, [1]),  # labels that are merged
        ({"background": 0, "any": [1, 2]}, [2]),
        ({"background": 0, "a": [1, 3], "b": [2, 3], "both": 3, "ignore": 4}, [1, 2, 3]),
        ({"background": 0, "organ": 1}, None),  # no regions
    ],
)
def test_an_order_that_gives_the_labels_back_is_accepted(
    data: Path, labels: dict[str, Any], order: Any
) -> None:
    describe(data, labels=labels, regions_class_order=order)
    assert find_dataset_problems(data) == []


def test_cases_listed_in_dataset_json_are_checked(data: Path) -> None:
    shutil.move(data / "imagesTr", data / "elsewhere")
    listing = {
        case: {"images": [f"elsewhere/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in "ab"
    }
    describe(data, dataset=listing)
    assert find_dataset_problems(data) == [] == problems_in(data)
    truncate(data / "elsewhere/b_0000.nii.gz", 0.5)
    assert "truncated" in only_problem(data, "elsewhere/b_0000.nii.gz")


# ---- names of files ----


@pytest.mark.parametrize("keep_folder", [True, False])
def test_no_unlabelled_images_is_a_problem(data: Path, keep_folder: bool) -> None:
    shutil.rmtree(data / "imagesUn")
    if keep_folder:
        (data / "imagesUn").mkdir()
    assert ("no image" if keep_folder else "absent") in whole_problem(data, "imagesUn")


def test_ignored_voxels_are_unlabelled_so_no_other_images_are_needed(data: Path) -> None:
    shutil.rmtree(data / "imagesUn")
    describe(data, labels={"background": 0, "organ": 1, "ignore": 2})
    assert find_dataset_problems(data) == []


def test_an_unlabelled_file_of_another_ending_is_named(data: Path) -> None:
    (data / "imagesUn/w_0000.nrrd").touch()
    assert ".nii.gz" in whole_problem(data, "imagesUn/w_0000.nrrd")


def test_a_file_without_a_channel_number_is_named(data: Path) -> None:
    shutil.copy(data / "imagesUn/u_0000.nii.gz", data / "imagesUn/w.nii.gz")
    assert "CASE_0000" in whole_problem(data, "imagesUn/w.nii.gz")


@pytest.mark.parametrize("folder", ["imagesTr/a", "imagesTs/t"])
def test_a_case_in_two_subsets_is_named(data: Path, folder: str) -> None:
    case = folder[-1]
    write(data / f"imagesUn/{case}_0000.nii.gz", voxels(50))
    assert repr(case) in whole_problem(data, "imagesUn")


@pytest.mark.parametrize("folder", ["labelsTr", "labelsUn"])
def test_a_label_of_an_unlabelled_case_is_named(data: Path, folder: str) -> None:
    write(data / f"{folder}/u.nii.gz", label())
    assert "'u'" in whole_problem(data, f"{folder}/u.nii.gz")


@pytest.mark.parametrize("case", ["a ", " a", "a\tb", "a\nb", "a\\b", "a_seg"])
def test_an_unusable_case_id_is_named(data: Path, case: str) -> None:
    write(data / "imagesUn/u_0000.nii.gz", voxels(50))
    os.rename(data / "imagesUn/u_0000.nii.gz", data / f"imagesUn/{case}_0000.nii.gz")
    assert repr(case) in whole_problem(data, f"case {case!r} (unlabelled)")


def test_a_space_inside_a_case_id_is_fine(data: Path) -> None:
    write(data / "imagesUn/one two_0000.nii.gz", voxels(50))
    assert find_dataset_problems(data) == []
    assert "one two" in {report.case for report in check_dataset(data, 1, False)}


@pytest.mark.parametrize("folder", ["imagesTr", "imagesTs"])
def test_a_second_file_of_another_ending_is_named(data: Path, folder: str) -> None:
    case = "a" if folder == "imagesTr" else "t"
    for name in (f"{case}_0000.nrrd", "alone_0000.nrrd", f"{case}_0000.txt"):
        (data / folder / name).touch()
    what = whole_problem(data, f"{folder}/{case}_0000.nrrd")
    assert "must end with .nii.gz" in what and f"{case}_0000.nii.gz" in what


def add_mac_files(folder: Path) -> None:
    """Write what a Mac leaves next to the files of a folder."""
    for path in [*folder.iterdir()]:
        path.with_name(f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000"))
    (folder / ".DS_Store").write_bytes(b"Bud1")


@pytest.mark.parametrize("folder", ["imagesUn", "labelsTr"])
def test_hidden_files_of_a_mac_are_no_cases(data: Path, folder: str) -> None:
    add_mac_files(data / folder)
    assert find_dataset_problems(data) == [] == problems_in(data)


@pytest.mark.parametrize(("folder", "count"), [("imagesTr", 2), ("imagesTs", 1)])
def test_hidden_files_of_a_mac_that_nnunet_would_read_are_one_problem(
    data: Path, folder: str, count: int
) -> None:
    add_mac_files(data / folder)
    (problem,) = find_dataset_problems(data)
    assert f"macOS wrote {count} files" in problem.what
    assert problem.fix == f"find {data} -name '._*' -delete"


def test_misnamed_images_are_named(tmp_path: Path) -> None:
    for name in ("a_0000.nii.gz", "b.nii.gz", "c.NII", "d_0000.png", ".e.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "f.nii.gz").mkdir()
    cases = find_cases(tmp_path, ".nii.gz")
    assert [one.where for one in find_misnamed_images(tmp_path, cases)] == [
        "b.nii.gz",
        "c.NII",
        "d_0000.png",
    ]
    assert [one.where for one in find_misnamed_images(tmp_path, cases, [".nii.gz"])] == ["b.nii.gz"]
