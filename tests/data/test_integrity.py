"""Every kind of bad input is found, named, and found together with the others in one pass."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from semi_nnunet.data import integrity
from semi_nnunet.data.integrity import (
    CaseReport,
    cases_in,
    check_dataset,
    dataset_problems,
    duplicate_problems,
)
from semi_nnunet.util import parallel
from semi_nnunet.util.errors import Problem, UserError

SHAPE = (6, 7, 8)


def voxels(seed: int, shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def write(path: Path, array: np.ndarray, spacing: Any = (1.0, 1.0, 2.0), **geometry: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    image.SetOrigin(geometry.get("origin", (5.0, 6.0, 7.0))[: image.GetDimension()])
    if "direction" in geometry:
        image.SetDirection(geometry["direction"])
    sitk.WriteImage(image, str(path), True)


def write_nibabel(path: Path, array: np.ndarray, pixdim: Any = None) -> None:
    image = nib.Nifti1Image(array, np.diag([1, 1, 2, 1]))
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
        image.header["sform_code"] = 1
    nib.save(image, path)


def label(seed: int = 0) -> np.ndarray:
    return (voxels(seed) % 2).astype(np.uint8)


def describe(root: Path, **changes: Any) -> None:
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **changes,
    }
    kept = {key: value for key, value in content.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))


def make(root: Path, ending: str = ".nii.gz", channels: int = 1) -> Path:
    """Two labelled, two unlabelled and one test case."""
    cases = ("imagesTr/a", "imagesTr/b", "imagesUn/u", "imagesUn/v", "imagesTs/t")
    for number, case in enumerate(cases):
        for channel in range(channels):
            write(root / f"{case}_{channel:04d}{ending}", voxels(10 * number + channel))
    for case in "ab":
        write(root / f"labelsTr/{case}{ending}", label())
    describe(root, file_ending=ending, channel_names={str(k): "MR" for k in range(channels)})
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make(tmp_path)


def problems_in(root: Path) -> list[Problem]:
    return [problem for report in check_dataset(root, 1, False) for problem in report.problems]


def only_problem(root: Path, where: str) -> str:
    problems = problems_in(root)
    assert [problem.where for problem in problems] == [where], problems
    assert problems[0].fix
    return problems[0].what


def whole_problem(root: Path, where: str) -> str:
    problems = dataset_problems(root)
    assert [problem.where for problem in problems] == [where], problems
    return problems[0].what


# ---- clean data sets ----


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_clean_data_set_has_no_problems(tmp_path: Path, ending: str) -> None:
    root = make(tmp_path, ending, channels=2)
    assert dataset_problems(root) == []
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
    assert duplicate_problems(reports) == {}


def make_png(root: Path, depth: int = 3) -> Path:
    for number, case in enumerate(("imagesTr/a", "imagesTr/b", "imagesUn/u")):
        path = root / f"{case}_0000.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(voxels(number, (9, 8, depth), np.uint8)).save(path)
    (root / "labelsTr").mkdir()
    for case in "ab":
        Image.fromarray(voxels(1, (9, 8), np.uint8) % 2).save(root / f"labelsTr/{case}.png")
    describe(root, file_ending=".png", channel_names={"0": "R", "1": "G", "2": "B"})
    return root


def test_a_clean_data_set_of_colour_png_has_no_problems(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    assert dataset_problems(root) == []
    assert problems_in(root) == []


def test_a_png_with_alpha_is_named_when_three_channels_are_declared(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    Image.fromarray(voxels(5, (9, 8, 4), np.uint8)).save(root / "imagesUn/u_0000.png")
    assert "4 channels" in only_problem(root, "imagesUn/u_0000.png")


def test_a_broken_png_is_named(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    truncate(root / "imagesUn/u_0000.png", 0.5)
    assert "cannot be opened" in only_problem(root, "imagesUn/u_0000.png")


def test_a_png_label_with_colours_is_named(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    shutil.copy(root / "imagesTr/a_0000.png", root / "labelsTr/a.png")
    problems = problems_in(root)
    assert {problem.where for problem in problems} == {"labelsTr/a.png"}
    assert "3 channels" in problems[0].what


def make_tif(root: Path, shape: tuple[int, ...]) -> Path:
    for number, name in enumerate(("imagesTr/a_0000", "imagesUn/u_0000", "labelsTr/a")):
        (root / name).parent.mkdir(exist_ok=True)
        array = voxels(number, shape) % (2 if name == "labelsTr/a" else 256)
        with tifffile.TiffWriter(root / f"{name}.tif") as tif:
            for page in array.astype(np.uint8).reshape(-1, *shape[-2:]):
                tif.write(page, contiguous=False)
        if len(shape) == 3:
            sidecar = (root / name.removesuffix("_0000")).with_suffix(".json")
            sidecar.write_text('{"spacing": [2, 1, 1]}')
    describe(root, file_ending=".tif", numTraining=1)
    return root


@pytest.mark.parametrize("shape", [(9, 8), (6, 9, 8)])
def test_a_clean_data_set_of_tif_has_no_problems(tmp_path: Path, shape: tuple[int, ...]) -> None:
    root = make_tif(tmp_path, shape)
    assert dataset_problems(root) == []
    assert problems_in(root) == []


def test_cases_listed_in_dataset_json_are_checked(data: Path) -> None:
    shutil.move(data / "imagesTr", data / "elsewhere")
    listing = {
        case: {"images": [f"elsewhere/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in "ab"
    }
    describe(data, dataset=listing)
    assert dataset_problems(data) == [] == problems_in(data)
    truncate(data / "elsewhere/b_0000.nii.gz", 0.5)
    assert "truncated" in only_problem(data, "elsewhere/b_0000.nii.gz")


def test_regions_and_the_ignore_label_are_declared_values(data: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    describe(data, labels=labels, regions_class_order=[1, 2])
    write(data / "labelsTr/a.nii.gz", (voxels(0) % 4).astype(np.uint8))
    assert dataset_problems(data) == [] == problems_in(data)


def test_an_empty_label_is_no_problem(data: Path) -> None:
    write(data / "labelsTr/a.nii.gz", np.zeros(SHAPE, np.uint8))
    assert problems_in(data) == []


# ---- bytes ----


def truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep > 0 else int(keep)])


def flip_bit(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("keep", [0.5, 0.99, -8])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_truncated_file_is_named(tmp_path: Path, ending: str, keep: float) -> None:
    root = make(tmp_path, ending)
    truncate(root / f"imagesUn/v_0000{ending}", keep)
    assert only_problem(root, f"imagesUn/v_0000{ending}")
    assert [report.content_hash for report in check_dataset(root, 1, False)][3] is None


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_flipped_bit_in_a_compressed_file_is_named(
    tmp_path: Path, ending: str, position: float
) -> None:
    root = make(tmp_path, ending)
    write(root / f"imagesUn/u_0000{ending}", voxels(2, (20, 20, 20)))
    flip_bit(root / f"imagesUn/u_0000{ending}", position)
    assert only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_truncated_gipl_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".gipl")
    assert problems_in(root) == []
    truncate(root / "imagesUn/v_0000.gipl", 0.9)
    assert "truncated" in only_problem(root, "imagesUn/v_0000.gipl")


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_tif_is_named(tmp_path: Path, keep: float) -> None:
    root = make_tif(tmp_path, (6, 90, 80))
    truncate(root / "imagesUn/u_0000.tif", keep)
    assert only_problem(root, "imagesUn/u_0000.tif")


def test_a_truncated_label_is_named(data: Path) -> None:
    truncate(data / "labelsTr/b.nii.gz", 0.5)
    assert "truncated" in only_problem(data, "labelsTr/b.nii.gz")


def test_an_empty_file_is_named(data: Path) -> None:
    (data / "imagesTr/a_0000.nii.gz").write_bytes(b"")
    assert "0 bytes" in only_problem(data, "imagesTr/a_0000.nii.gz")


def test_an_absent_label_is_named(data: Path) -> None:
    (data / "labelsTr/a.nii.gz").unlink()
    assert "absent" in only_problem(data, "labelsTr/a.nii.gz")
    assert dataset_problems(data) == problems_in(data)


def test_a_dangling_link_is_named(data: Path) -> None:
    (data / "imagesUn/u_0000.nii.gz").unlink()
    (data / "imagesUn/u_0000.nii.gz").symlink_to("nowhere.nii.gz")
    assert "nowhere.nii.gz" in only_problem(data, "imagesUn/u_0000.nii.gz")


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>" * 40, b"x", gzip.compress(b"hello")],
    ids=["page", "byte", "gzip"],  # a gzip file holds the second, and xdist's workers compare names
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, ending: str, content: bytes) -> None:
    root = make(tmp_path, ending)
    (root / f"imagesTr/a_0000{ending}").write_bytes(content)
    what = only_problem(root, f"imagesTr/a_0000{ending}")
    assert "\n" not in what
    assert "Traceback" not in what


# ---- voxels ----


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "1 NaN"), (-np.inf, "1 Inf"), (1e38, "1e+30")]
)
def test_a_voxel_that_breaks_normalisation_is_named(
    tmp_path: Path, ending: str, value: float, text: str
) -> None:
    root, array = make(tmp_path, ending), voxels(2, dtype=np.float32)
    array[1, 2, 3] = value
    write(root / f"imagesUn/u_0000{ending}", array)
    assert text in only_problem(root, f"imagesUn/u_0000{ending}")


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_named(data: Path, value: int) -> None:
    write(data / "imagesUn/u_0000.nii.gz", np.full(SHAPE, value, np.int16))
    assert f"all voxels are {value}" in only_problem(data, "imagesUn/u_0000.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_4d_image_is_named(tmp_path: Path, ending: str) -> None:
    root = make(tmp_path, ending)
    write_nibabel(root / f"imagesUn/u_0000{ending}", voxels(0, (6, 7, 8, 5)))
    assert only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_4d_image_that_holds_all_declared_channels_is_accepted_as_nnunet_does(data: Path) -> None:
    describe(data, channel_names={"0": "T1", "1": "T2"})
    for name in ("imagesTr/a", "imagesTr/b", "imagesUn/u", "imagesUn/v", "imagesTs/t"):
        array = voxels(ord(name[-1]), (8, 7, 6, 2))
        write_nibabel(data / f"{name}_0000.nii.gz", array)
    for case in "ab":
        write_nibabel(data / f"labelsTr/{case}.nii.gz", (voxels(0, (8, 7, 6)) % 2).astype(np.uint8))
    assert problems_in(data) == []


def test_an_rgb_nifti_is_named(data: Path) -> None:
    rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    write_nibabel(data / "imagesUn/u_0000.nii.gz", rgb)
    assert "RGB" in only_problem(data, "imagesUn/u_0000.nii.gz")


def test_a_vector_image_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".mha")
    image = sitk.GetImageFromArray(voxels(0, (*SHAPE, 3)), isVector=True)
    sitk.WriteImage(image, str(root / "imagesUn/u_0000.mha"))
    assert "vector" in only_problem(root, "imagesUn/u_0000.mha")


@pytest.mark.parametrize("pixdim", [(0, 1, 1), (1, -2, 1), (1, np.nan, 1), (1e-6, 1, 1)])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_an_impossible_spacing_is_named(tmp_path: Path, ending: str, pixdim: Any) -> None:
    root = make(tmp_path, ending)
    write_nibabel(root / f"imagesUn/u_0000{ending}", voxels(0), pixdim)
    assert "spacing" in only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_negative_spacing_in_mha_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".mha")
    path = root / "imagesUn/u_0000.mha"
    path.write_bytes(path.read_bytes().replace(b"Spacing = 1 1 2", b"Spacing = 1 -1 2"))
    assert "spacing" in only_problem(root, "imagesUn/u_0000.mha")


# ---- cases ----


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


@pytest.mark.parametrize("value", [2, 0.5, -1, np.nan])
def test_a_label_value_that_is_not_declared_is_named(data: Path, value: float) -> None:
    array = label().astype(np.float32)
    array[0, 0, 0] = value
    write(data / "labelsTr/a.nii.gz", array)
    text = "NaN" if np.isnan(value) else f"got {value:g}"
    assert text in only_problem(data, "labelsTr/a.nii.gz")


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


def test_two_processes_report_what_one_does(data: Path) -> None:
    break_several(data)
    assert check_dataset(data, 2, False) == check_dataset(data, 1, False)


def test_a_killed_process_ends_the_run_with_a_message() -> None:
    with pytest.raises(UserError, match="fewer"):
        list(parallel.in_processes(os._exit, [1, 1, 1], 2, "checks images"))


def test_a_crash_of_the_check_becomes_a_problem_of_the_file(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[[str], Any] = integrity.inspect_file.__globals__["scan_raw"]

    def crash(path: str) -> Any:
        if path.endswith("u_0000.nii.gz"):
            raise MemoryError("out of memory")
        return original(path)

    monkeypatch.setitem(integrity.inspect_file.__globals__, "scan_raw", crash)
    assert "out of memory" in only_problem(data, "imagesUn/u_0000.nii.gz")


def test_nothing_is_printed(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_several(data)
    check_dataset(data, 1)
    assert capfd.readouterr().out == ""


# ---- the data set as a whole ----


def test_cases_in_groups_channels_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("x_1_0001.png", "x_1_0000.png", "y_0000.png", "z.png", "y_0000.tif"):
        (tmp_path / name).touch()
    first, second = str(tmp_path / "x_1_0000.png"), str(tmp_path / "x_1_0001.png")
    assert cases_in(tmp_path, ".png") == {
        "x_1": [first, second],
        "y": [str(tmp_path / "y_0000.png")],
    }
    assert cases_in(tmp_path / "absent", ".png") == {}


def test_an_absent_dataset_json_is_named(data: Path) -> None:
    (data / "dataset.json").unlink()
    assert "absent" in whole_problem(data, "dataset.json")
    with pytest.raises(UserError, match="absent"):
        check_dataset(data, 1, False)


def test_an_invalid_dataset_json_is_named(data: Path) -> None:
    (data / "dataset.json").write_text("{'labels': ")
    assert "not JSON" in whole_problem(data, "dataset.json")


@pytest.mark.parametrize("key", ["channel_names", "labels", "numTraining", "file_ending"])
def test_a_missing_key_is_named(data: Path, key: str) -> None:
    describe(data, **{key: None})
    assert repr(key) in whole_problem(data, "dataset.json")


def test_the_old_name_modality_is_accepted(data: Path) -> None:
    describe(data, channel_names=None, modality={"0": "CT"})
    assert dataset_problems(data) == [] == problems_in(data)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"numTraining": 3}, "got 3"),
        ({"labels": {"background": 0, "organ": 2}}, "consecutive"),
        ({"labels": {"0": "background", "1": "organ"}}, "whole numbers"),
        ({"labels": {"background": 0, "ignore": 1, "organ": 2}}, "ignore"),
        ({"labels": {"organ": 0, "other": 1}}, "background"),
        ({"file_ending": ".jpg"}, "no reader"),
        ({"dataset": {"a": {"images": ["x"]}}}, "'a'"),
    ],
)
def test_wrong_content_of_dataset_json_is_named(
    data: Path, change: dict[str, Any], text: str
) -> None:
    describe(data, **change)
    assert text in whole_problem(data, "dataset.json")


@pytest.mark.parametrize("keep_folder", [True, False])
def test_no_unlabelled_images_is_a_problem(data: Path, keep_folder: bool) -> None:
    shutil.rmtree(data / "imagesUn")
    if keep_folder:
        (data / "imagesUn").mkdir()
    assert ("no image" if keep_folder else "absent") in whole_problem(data, "imagesUn")


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


# ---- duplicates ----


def leaks(root: Path) -> list[str]:
    reports: list[CaseReport] = check_dataset(root, 1, False)
    return [f"{problem.where} {problem.what}" for problem in duplicate_problems(reports).values()]


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


def test_a_space_inside_a_case_id_is_fine(data: Path) -> None:
    write(data / "imagesUn/one two_0000.nii.gz", voxels(50))
    assert dataset_problems(data) == []
    assert "one two" in {report.case for report in check_dataset(data, 1, False)}
