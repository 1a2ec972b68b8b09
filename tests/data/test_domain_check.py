"""Outliers are logged, listed and shown, and skipped on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv
from semi_nnunet.verify.domain import MAX_PRINTED, check_domain
from semi_nnunet.verify.integrity import check_dataset
from tests.data.copied import Copy, names
from tests.data.raw_datasets import describe, make, make_png, voxels, write

MIRRORED = {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}


def checked(root: Path, *, skip: bool = False, skipped: Any = ()) -> dict[str, list[str]]:
    raw = RawDataset.of(root)
    reports = check_dataset(raw, 1, False)
    return check_domain(raw, reports, skipped, root / "pre", skip)


def listed(root: Path) -> list[dict[str, str]]:
    return read_csv(root / "pre/domain_check/outliers.csv")[1]


def size_of_sheet(root: Path) -> tuple[int, int]:
    with Image.open(root / "pre/domain_check/outliers.png") as image:
        image.load()
        return image.size


def make_hostile(root: Path, count: int = 1) -> list[str]:
    """Unlabelled cases of which each is worse than the one before."""
    cases = [f"w{number:02d}" for number in range(count)]
    for number, case in enumerate(cases):
        size = 0.1 / (1 + number)
        write(root / f"imagesUn/{case}_0000.nii.gz", voxels(100 + number), (size, size, 2.0))
    return cases


# ---- what is written and printed ----


def test_outliers_are_counted_ranked_and_shown(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = make_hostile(data, 14)
    assert checked(data) == {}
    rows = listed(data)
    assert [row["case"] for row in rows] == cases[::-1]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 15)]
    assert [float(row["score"]) for row in rows] == sorted(
        (float(row["score"]) for row in rows), reverse=True
    )
    assert all("Its spacing is 2 x 0." in row["reason"] for row in rows)
    width, height = size_of_sheet(data)
    assert width > 1500 and height > 1000  # 2 labelled images and 12 others
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("WARNING: 14 of 16 unlabelled images")
    assert lines[1].startswith(f"  {cases[-1]}: Its spacing is 2 x ")
    assert lines[MAX_PRINTED + 1] == "  ... and 4 more"
    assert str(data / "pre/domain_check/outliers.csv") in lines[-2] and "outliers.png" in lines[-2]
    assert "--skip-outliers" in lines[-1] and '"unlabelled_domain": "other"' in lines[-1]


def test_without_outliers_nothing_is_logged_and_old_files_are_removed(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (case,) = make_hostile(data)
    checked(data)
    (data / f"imagesUn/{case}_0000.nii.gz").unlink()
    capsys.readouterr()
    assert checked(data) == {}
    assert capsys.readouterr().out == "" and not (data / "pre/domain_check").exists()


@pytest.mark.parametrize("case", ["<script>alert(1)<", "=1+1, 'x' \"y\"; $a_b$ %s {0}", "心臓"])
def test_a_name_is_text(data: Path, case: str) -> None:
    write(data / f"imagesUn/{case}_0000.nii.gz", voxels(7), (0.05, 0.05, 40.0))
    assert list(checked(data, skip=True)) == [case]
    assert [row["case"] for row in listed(data)] == [case]
    text = (data / "pre/domain_check/outliers.csv").read_text(encoding="utf-8")
    assert not any(line.lstrip('"').startswith("=") for line in text.splitlines())  # no formula
    assert min(size_of_sheet(data)) > 300


def test_pictures_and_a_single_labelled_case_have_a_sheet(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    for path in (root / "imagesTr/b_0000.png", root / "labelsTr/b.png"):
        path.unlink()
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**description, "numTraining": 1}))
    Image.fromarray(voxels(7, (90, 8, 3), np.uint8)).save(root / "imagesUn/u_0000.png")
    checked(root)
    assert [row["case"] for row in listed(root)] == ["u"] and min(size_of_sheet(root)) > 300


def test_several_channels_have_a_sheet(tmp_path: Path) -> None:
    root = make(tmp_path, channels=2)
    for channel in range(2):
        write(root / f"imagesUn/u_{channel:04d}.nii.gz", voxels(channel + 7), **MIRRORED)
    assert list(checked(root, skip=True)) == ["u"] and min(size_of_sheet(root)) > 300


@pytest.mark.parametrize("is_grey", [True, False])
def test_grey_pictures_among_coloured_ones_are_named(tmp_path: Path, is_grey: bool) -> None:
    """Ultrasound in a pool of endoscopy: only the colour differs beyond doubt."""
    root = make_png(tmp_path)
    pictures = [*root.glob("images*/*.png")]
    odd = root / "imagesUn" / "odd_0000.png"
    for number, path in enumerate([*pictures, odd]):
        factors = (1.0, 1.0, 1.0) if (path == odd) == is_grey else (1.0, 0.7, 0.4)
        colours = voxels(number, (9, 8, 1), np.uint8) * np.array(factors)
        Image.fromarray(colours.astype(np.uint8)).save(path)
    checked(root)
    (row,) = listed(root)
    assert row["case"] == "odd" and ("grey" if is_grey else "coloured") in row["reason"]


# ---- skipped images ----


def test_outliers_are_skipped_on_request(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = make_hostile(data)
    aside = checked(data, skip=True)
    assert list(aside) == [case] and aside[case][0].startswith("Its spacing is 2 x 0.1 x 0.1 mm")
    out, err = capsys.readouterr()
    assert "skipped 1 of 3 unlabelled images" in out and "Fix" not in out
    assert err == ""


def test_bad_cases_are_not_compared(data: Path) -> None:
    (case,) = make_hostile(data)
    assert checked(data, skipped={case: ["equals a labelled image"]}, skip=True) == {}
    assert not (data / "pre").exists()


def test_skipping_all_unlabelled_images_is_refused(data: Path) -> None:
    for number, case in enumerate("uv"):
        write(data / f"imagesUn/{case}_0000.nii.gz", voxels(number + 7), (0.05, 0.05, 40.0))
    with pytest.raises(UserError, match=r"all 2 differ much.*unlabelled_domain"):
        checked(data, skip=True)
    assert len(listed(data)) == 2


def test_a_declared_other_domain_has_no_warning_and_no_skipped_cases(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_hostile(data, 2)
    describe(data, unlabelled_domain="other")
    assert checked(data, skip=True) == {} and capsys.readouterr() == ("", "")
    describe(data, unlabelled_domain="same")
    assert len(checked(data, skip=True)) == 2


# ---- the command ----


def scaled(path: Path, factor: float) -> None:
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32)
    sitk.WriteImage(image * factor, str(path))


def test_the_command_warns_and_with_skip_outliers_no_training_sees_them(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    first = names(copy.raw / "imagesUn")[0]
    scaled(copy.raw / f"imagesUn/{first}_0000.nii.gz", 1e5)
    command = ["preprocess", "-d", copy.number, "-c", "2d", "-np", "1"]
    pool = copy.preprocessed / "nnUNetPlans_2d_unlabeled"
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "WARNING: 1 of 4 unlabelled images" in err
    assert f"  {first}: Channel 0 (" in err and "2d: 5 labelled and 4 unlabelled cases" in out
    assert first in Manifest(pool).present()

    assert main([*command, "--skip-outliers"]) == 0
    out = capsys.readouterr().out
    assert "skipped 1 of 4" in out and "2d: 5 labelled and 3 unlabelled cases" in out
    assert len(Manifest(pool).present()) == 3 and first not in Manifest(pool).present()
    assert not list(pool.glob(f"{first}*"))
    skipped = json.loads((copy.preprocessed / "semi_skipped.json").read_text())
    assert list(skipped) == [first] and skipped[first][0].startswith("Channel 0 (")


def test_ordinary_unlabelled_images_cause_no_warning(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy.prepare() == {"2d": (5, 4)}
    assert "differ" not in capsys.readouterr().out
    assert not (copy.preprocessed / "domain_check").exists()
