"""All bad inputs are found in one pass."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from semi_nnunet.util.errors import UserError
from semi_nnunet.verify.image_files import QUANTILES
from semi_nnunet.verify.integrity import (
    check_dataset,
    find_dataset_problems,
    find_dataset_warnings,
    find_duplicate_problems,
    verify_dataset,
)
from semi_nnunet.verify.reports import CaseReport
from tests.data.raw_datasets import (
    SHAPE,
    describe,
    label,
    make,
    make_png,
    make_tif,
    only_problem,
    problems_in,
    truncate,
    voxels,
    write,
)

# ---- clean data sets ----


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_clean_data_set_has_no_problems(tmp_path: Path, ending: str) -> None:
    root = make(tmp_path, ending, channels=2)
    assert find_dataset_problems(root) == []
    reports = check_dataset(root, 1, False)
    assert [(report.subset, report.case) for report in reports] == [
        ("labelled", "a"),
        ("labelled", "b"),
        ("unlabelled", "u"),
        ("unlabelled", "v"),
        ("test", "t"),
    ]
    assert [report.problems for report in reports] == [()] * 5
    assert len({report.content_hash for report in reports}) == 5
    assert find_duplicate_problems(reports) == {}


def test_a_clean_data_set_of_colour_png_has_no_problems(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    assert find_dataset_problems(root) == []
    assert problems_in(root) == []


@pytest.mark.parametrize("shape", [(9, 8), (6, 9, 8)])
def test_a_clean_data_set_of_tif_has_no_problems(tmp_path: Path, shape: tuple[int, ...]) -> None:
    root = make_tif(tmp_path, shape)
    assert find_dataset_problems(root) == []
    assert problems_in(root) == []


@pytest.mark.parametrize("name", ["imagesTr/a", "imagesUn/u", "labelsTr/a"])
def test_a_stack_without_the_spacing_that_others_have_is_named(tmp_path: Path, name: str) -> None:
    root = make_tif(tmp_path, (6, 9, 8))
    stacks = "Tiff3DIO"
    describe(root, file_ending=".tif", numTraining=1, overwrite_image_reader_writer=stacks)
    (root / f"{name}.json").unlink()
    named = {problem.where: problem.what for problem in problems_in(root)}
    image = "a.tif" if name == "labelsTr/a" else f"{name[-1]}_0000.tif"
    assert (
        named[f"{name}.json"]
        == f"must hold the spacing of {image}, as others have it, but is absent"
    )


def test_stacks_without_any_spacing_are_accepted(tmp_path: Path) -> None:
    root = make_tif(tmp_path, (6, 9, 8))
    stacks = "Tiff3DIO"
    describe(root, file_ending=".tif", numTraining=1, overwrite_image_reader_writer=stacks)
    for path in root.glob("*/*.json"):
        path.unlink()
    for path in root.glob("*/*.tif"):
        image = label() if path.parent.name == "labelsTr" else voxels(len(str(path)))
        tifffile.imwrite(path, image.astype(np.uint8))
    assert problems_in(root) == []


def test_a_report_describes_the_images_of_a_case(tmp_path: Path) -> None:
    root = make(tmp_path, channels=2)
    *_, report = check_dataset(root, 1, False)
    assert report.geometry is not None and report.geometry.shape == SHAPE
    assert report.geometry.spacing == (2.0, 1.0, 1.0) and report.geometry.towards == "LPS"
    expected = [np.quantile(voxels(seed), QUANTILES) for seed in (40, 41)]
    np.testing.assert_allclose(report.quantiles, expected)


def test_the_good_files_of_a_bad_case_are_described(tmp_path: Path) -> None:
    root = make(tmp_path, channels=2)
    truncate(root / "imagesTs/t_0000.nii.gz", 0.5)
    *_, report = check_dataset(root, 1, False)
    assert report.problems and report.geometry is not None and len(report.quantiles) == 1


# ---- cases ----


def test_an_absent_label_is_named(data: Path) -> None:
    (data / "labelsTr/a.nii.gz").unlink()
    assert "absent" in only_problem(data, "labelsTr/a.nii.gz")
    assert find_dataset_problems(data) == problems_in(data)


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, channels=3)
    (root / "imagesUn/u_0001.nii.gz").unlink()
    assert "missing" in only_problem(root, "imagesUn/u_0001.nii.gz")


def test_an_extra_channel_is_named(data: Path) -> None:
    write(data / "imagesTs/t_0001.nii.gz", voxels(77))
    assert "too many" in only_problem(data, "imagesTs/t_0001.nii.gz")


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("shape", {"shape": (6, 7, 9)}),
        ("spacing", {"spacing": (1.0, 1.1, 2.0)}),
        ("origin", {"origin": (505.0, 6.0, 7.0)}),
        ("direction", {"direction": (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)}),
    ],
)
@pytest.mark.parametrize("which", ["imagesUn/u_0001", "labelsTr/a"])
def test_a_grid_that_does_not_match_is_named(
    tmp_path: Path, which: str, text: str, change: dict[str, Any]
) -> None:
    root = make(tmp_path, channels=2)
    array = voxels(3, change.get("shape", SHAPE)) % (2 if which == "labelsTr/a" else 1000)
    geometry = {key: value for key, value in change.items() if key != "shape"}
    write(root / f"{which}.nii.gz", array, **geometry)
    assert text in only_problem(root, f"{which}.nii.gz")


def test_rounding_in_a_label_header_is_no_mismatch(data: Path) -> None:
    write(data / "labelsTr/a.nii.gz", label(), (1.0, 1.0001, 2.0), origin=(5.01, 6.0, 7.0))
    assert problems_in(data) == []


# ---- the run ----


def break_several(data: Path) -> set[str]:
    truncate(data / "imagesTr/a_0000.nii.gz", 0.5)
    write(data / "labelsTr/b.nii.gz", label() * 3)
    (data / "imagesUn/u_0000.nii.gz").write_bytes(b"")
    write(data / "imagesUn/v_0001.nii.gz", voxels(0))
    write(data / "imagesTs/t_0000.nii.gz", np.zeros(SHAPE))
    return {
        "imagesTr/a_0000.nii.gz",
        "labelsTr/b.nii.gz",
        "imagesUn/u_0000.nii.gz",
        "imagesUn/v_0001.nii.gz",
        "imagesTs/t_0000.nii.gz",
    }


def test_all_bad_files_are_reported_in_one_pass(data: Path) -> None:
    expected = break_several(data)
    assert {problem.where for problem in problems_in(data)} == expected


def test_two_processes_give_the_same_reports_as_one(data: Path) -> None:
    break_several(data)
    assert check_dataset(data, 2, False) == check_dataset(data, 1, False)


def test_nothing_is_printed(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_several(data)
    check_dataset(data, 1)
    assert capfd.readouterr().out == ""


# ---- duplicates ----


def leaks(root: Path) -> list[str]:
    reports: list[CaseReport] = check_dataset(root, 1, False)
    return [
        f"{problem.where} {problem.what}" for problem in find_duplicate_problems(reports).values()
    ]


@pytest.mark.parametrize("source", ["imagesTr/b", "imagesTs/t"])
def test_a_recompressed_copy_of_a_known_image_is_leakage(data: Path, source: str) -> None:
    content = gzip.decompress((data / f"{source}_0000.nii.gz").read_bytes())
    copy = data / "imagesUn/u_0000.nii.gz"
    copy.write_bytes(gzip.compress(content, 1))
    assert copy.read_bytes() != (data / f"{source}_0000.nii.gz").read_bytes()
    (found,) = leaks(data)
    assert "case u" in found
    assert repr(source[-1]) in found


def test_a_copy_with_another_voxel_type_is_leakage(data: Path) -> None:
    write(data / "imagesUn/u_0000.nii.gz", voxels(0, dtype=np.float32))
    assert len(leaks(data)) == 1


def test_equal_unlabelled_images_are_no_leakage(data: Path) -> None:
    shutil.copy(data / "imagesUn/u_0000.nii.gz", data / "imagesUn/v_0000.nii.gz")
    assert leaks(data) == []


def test_unreadable_images_are_no_duplicates(data: Path) -> None:
    for name in ("imagesTr/a", "imagesUn/u"):
        (data / f"{name}_0000.nii.gz").write_bytes(b"")
    assert leaks(data) == []


# ---- warnings ----


def warned(root: Path) -> list[str]:
    return list(find_dataset_warnings(check_dataset(root, 1, False)))


def test_a_clean_data_set_has_no_warnings(data: Path) -> None:
    assert warned(data) == []


def test_labels_without_any_class_are_a_problem(data: Path) -> None:
    for case in "ab":
        write(data / f"labelsTr/{case}.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match="labelsTr") as caught:
        verify_dataset(data, 1, skip_bad=False)
    assert "no label shows a class" in caught.value.problems[0].what


def test_empty_labels_cause_a_warning(data: Path) -> None:
    for case in "ab":
        write(data / f"labelsTr/{case}.nii.gz", np.zeros(SHAPE, np.uint8))
    (text,) = warned(data)
    assert text.startswith("2 of 2 labels show no class")
    assert "Fix: " in text


def test_a_labelled_test_image_causes_a_warning(data: Path) -> None:
    shutil.copy(data / "imagesTr/a_0000.nii.gz", data / "imagesTs/t_0000.nii.gz")
    (text,) = warned(data)
    assert "t (labelled: a)." in text


def test_a_single_labelled_case_causes_a_warning() -> None:
    (text,) = find_dataset_warnings([CaseReport("a", "labelled", "hash", ())])
    assert "at least 2 labelled cases, got 1 (a)" in text and "fold 'all'" in text


def test_a_warning_names_only_the_first_cases() -> None:
    empty = [
        CaseReport(f"c{number}", "labelled", None, (), only_background=True) for number in range(12)
    ]
    (text,) = find_dataset_warnings(empty)
    assert "c8, c9 and 2 more. They" in text
