"""Outliers are named with reasons, the worst first; ordinary variation is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.readers import UNTOLD, Geometry
from semi_nnunet.util.errors import Problem
from semi_nnunet.verify.domain import Outlier, find_outliers
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import CaseReport
from tests.data.raw_datasets import SHAPE, describe, make, make_png, voxels, write

MR, CT = ["MR"], ["CT"]
CT_VALUES = (-1000.0, -950.0, -100.0, 150.0, 900.0)
MR_VALUES = (0.0, 10.0, 120.0, 500.0, 900.0)


def report(case: str = "u", subset: str = "unlabelled", **changes: Any) -> CaseReport:
    """A case of 40 x 200 x 200 voxels of 2.5 x 1 x 1 mm, its axes as DICOM has them."""
    values = changes.pop("values", [MR_VALUES])
    place = Geometry((40, 200, 200), (2.5, 1.0, 1.0), (0.0, 0.0, 0.0), None, "LPS")
    quantiles = tuple(tuple(channel) for channel in values)
    return CaseReport(case, subset, case, (), replace(place, **changes), quantiles)


def found(
    *cases: CaseReport,
    channels: Sequence[str] = tuple(MR),
    other_domain: bool = False,
    labelled: Sequence[CaseReport] = (),
) -> list[Outlier]:
    known = list(labelled) or [report("a", "labelled"), report("b", "labelled")]
    return find_outliers([*known, *cases], channels, other_domain)


def reason(*args: Any, **options: Any) -> str:
    """The one reason of the one outlier."""
    (outlier,) = found(*args, **options)
    (text,) = outlier.reasons
    return text


# ---- what is named ----


def test_an_unusual_spacing_is_named_with_that_of_the_labelled_images() -> None:
    (outlier,) = found(report(spacing=(40.0, 0.05, 0.05)))
    assert outlier.case == "u"
    for own, labelled in (
        ("40 x 0.05 x 0.05 mm (z, y, x)", " 2.5 x 1 x 1."),
        ("1600 x 10 x 10 mm", ""),
    ):
        assert any(own in text and labelled in text for text in outlier.reasons)


@pytest.mark.parametrize("shape", [(4, 20, 20), (40, 20, 200), (40, 200, 2000)])
def test_a_tiny_and_a_huge_image_are_named(shape: tuple[int, ...]) -> None:
    text = reason(report(shape=shape))
    assert text.startswith(f"It measures {2.5 * shape[0]:g} x {shape[1]} x {shape[2]} mm (z, y, x)")
    assert text.endswith("measure 100 x 200 x 200.")


@pytest.mark.parametrize(("scale", "shift"), [(1e5, 0), (1, 5e5), (1e-5, 0), (-1, 0)])
@pytest.mark.parametrize("channels", [MR, CT])
def test_unusual_intensities_are_named(scale: float, shift: float, channels: list[str]) -> None:
    values = [sorted(scale * value + shift for value in MR_VALUES)]
    text = reason(report(values=values), channels=channels)
    low, high = values[0][0], values[0][-1]
    assert text.startswith(f"Channel 0 ({channels[0]!r}) has values from {low:.4g} to {high:.4g}, ")
    assert "from 0 to 900" in text


def test_the_sign_reveals_ct_among_mr_and_ct_with_a_moved_zero() -> None:
    text = reason(report(values=[CT_VALUES]))
    assert text.endswith("none of them has.")
    known = [report("a", "labelled", values=[CT_VALUES])]
    moved = report(values=[[value + 1024 for value in CT_VALUES]])
    text = reason(moved, labelled=known, channels=CT)
    assert text.endswith("all of them have.")


def test_windowed_ct_is_named_and_mr_in_another_unit_is_not() -> None:
    eight_bits = report(values=[(0.0, 0.0, 60.0, 160.0, 200.0)])
    known = [report("a", "labelled", values=[CT_VALUES])]
    assert found(eight_bits, labelled=known, channels=CT)
    assert not found(eight_bits)


def test_mirrored_axes_are_named() -> None:
    text = reason(report(towards="RPS"))
    assert "towards RPS" in text and "towards LPS" in text


def test_a_missing_orientation_is_named_if_labelled_images_have_one() -> None:
    text = reason(report(towards=UNTOLD))
    assert "(qform and sform are 0)" in text
    known = [report("a", "labelled", towards=UNTOLD), report("b", "labelled")]
    assert not found(report(towards=UNTOLD), report("v"), labelled=known)


@pytest.mark.parametrize("towards", ["LPS", ""])
def test_axes_of_a_labelled_image_and_unknown_axes_are_ordinary(towards: str) -> None:
    known = [report("a", "labelled", towards=towards), report("b", "labelled", towards="RAS")]
    assert not found(report(towards="RAS"), report("v", towards=""), labelled=known)


@pytest.mark.parametrize("other", ["near", "far", "unreal"])
def test_only_an_impossible_origin_is_enough_for_an_outlier(other: str) -> None:
    origin = {"near": 250.0, "far": 1000.0, "unreal": 20_000.0}[other]
    place = {"origin": (0.0, origin, 0.0)}
    assert len(found(report(**place))) == (other == "unreal")
    (outlier,) = found(report(towards="RPS", **place))
    assert len(outlier.reasons) == (1 if other == "near" else 2)
    if other != "near":
        assert f"origin is {origin:.4g} mm away" in outlier.reasons[-1]


def test_each_channel_is_compared_with_itself() -> None:
    values, swapped = [MR_VALUES, CT_VALUES], [CT_VALUES, MR_VALUES]
    known = [report("a", "labelled", values=values)]
    assert not found(report(values=values), labelled=known, channels=["T1", "CT"])
    (outlier,) = found(report(values=swapped), labelled=known, channels=["T1", "CT"])
    assert [text.split("'")[1] for text in outlier.reasons] == ["T1", "CT"]


def test_only_pictures_are_compared_by_their_colours() -> None:
    coloured = [[factor * value for value in MR_VALUES] for factor in (1.0, 0.8, 0.6)]
    grey, channels = [MR_VALUES] * 3, ["R", "G", "B"]
    for values, others in ((coloured, grey), (grey, coloured)):
        picture = report("a", "labelled", values=values, origin=None)
        (outlier,) = found(
            report(values=others, origin=None), labelled=[picture], channels=channels
        )
        assert "picture" in outlier.reasons[0]
        scan = report("a", "labelled", values=values)
        assert not found(report(values=others), labelled=[scan], channels=channels)


def test_the_worst_comes_first() -> None:
    mild, worse = report("mild", towards="RPS"), report("worse", shape=(4, 20, 2000))
    worst = report("worst", spacing=(40.0, 0.05, 0.05), values=[[1e5 * v for v in MR_VALUES]])
    outliers = found(mild, worst, report("fine"), worse)
    assert [outlier.case for outlier in outliers] == ["worst", "worse", "mild"]
    assert all(outlier.score >= 1 for outlier in outliers)
    assert [outlier.score for outlier in outliers] == sorted(
        (outlier.score for outlier in outliers), reverse=True
    )
    assert "spacing" in outliers[0].reasons[0]


# ---- what is not ----


@given(
    seed=st.integers(0, 2**32 - 1),
    labelled=st.integers(1, 20),
    channels=st.sampled_from([["CT"], ["MR"], ["T1", "T2"]]),
)
def test_ordinary_variation_is_not_named(seed: int, labelled: int, channels: list[str]) -> None:
    """Slices of 1.5 to 4 mm, fields of view that differ by half, scanners of several units."""
    rng = np.random.default_rng(seed)

    def drawn(case: str, subset: str) -> CaseReport:
        spacing = (float(rng.uniform(1.5, 4)), *map(float, rng.uniform(0.6, 1.2, 2)))
        extent = rng.uniform(0.7, 1.4, 3) * (150, 300, 300)
        scale = float(rng.uniform(0.2, 5)) if channels != CT else 1.0
        base = CT_VALUES if channels == CT else MR_VALUES
        values = [[scale * v * float(rng.uniform(0.8, 1.2)) for v in base] for _ in channels]
        return report(
            case, subset, values=np.sort(values).tolist(), spacing=spacing,
            shape=tuple(int(size / mm) for size, mm in zip(extent, spacing, strict=True)),
            origin=tuple(map(float, rng.uniform(-200, 200, 3))),
        )  # fmt: skip

    known = [drawn(f"l{number}", "labelled") for number in range(labelled)]
    cases = [drawn(f"u{number}", "unlabelled") for number in range(20)]
    assert not found(*cases, labelled=known, channels=channels)


@given(st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
def test_outliers_do_not_depend_on_the_unit_of_intensities(unit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reports = [
        report(
            str(n),
            "labelled" if n < 3 else "unlabelled",
            values=[np.sort(rng.normal(0, 10.0 ** rng.integers(0, 6), 5))],
        )
        for n in range(8)
    ]
    scaled = [replace(r, quantiles=(tuple(unit * v for v in r.quantiles[0]),)) for r in reports]
    assert [(one.case, pytest.approx(one.score)) for one in find_outliers(scaled, MR)] == [
        (one.case, one.score) for one in find_outliers(reports, MR)
    ]


def test_a_declared_other_domain_is_only_compared_by_its_axes() -> None:
    mr = report(values=[CT_VALUES], spacing=(12.0, 0.1, 0.1), origin=(9e9, 0.0, 0.0))
    assert found(mr) and not found(mr, other_domain=True)
    text = reason(replace(mr, geometry=report(towards="RPS").geometry), other_domain=True)
    assert text.startswith("Its axes")


def test_bad_labelled_and_test_cases_are_not_listed() -> None:
    strange: dict[str, Any] = {"spacing": (40.0, 0.05, 0.05)}
    bad = replace(report(**strange), problems=(Problem("u", "is broken", "fix it"),))
    unread = CaseReport("v", "unlabelled", None, (Problem("v", "is broken", "fix it"),))
    assert found(bad, unread, report("t", "test", **strange)) == []


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 5.0)])
def test_nearly_constant_images_are_no_error(values: tuple[float, ...]) -> None:
    known = [report("a", "labelled", values=[(0.0,) * 5])]
    assert not found(report(values=[values]), labelled=known)
    assert len(found(report(values=[(7.0,) * 5]))) == 1  # none is like that


# ---- from files ----


def outliers_in(root: Path) -> dict[str, tuple[str, ...]]:
    raw = RawDataset.of(root)
    reports = check_dataset(raw, 1, False)
    assert not any(one.problems for one in reports)
    return {one.case: one.reasons for one in find_outliers(reports, raw.channels)}


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("channels", [1, 2])
def test_hostile_files_are_found_and_ordinary_ones_are_not(
    tmp_path: Path, ending: str, channels: int
) -> None:
    root = make(tmp_path, ending, channels)
    assert outliers_in(root) == {}
    for channel in range(channels):
        mirrored = {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}
        write(root / f"imagesUn/u_{channel:04d}{ending}", voxels(1), (0.05, 0.05, 40), **mirrored)
    scaled = voxels(2).astype(np.float32) * 1e5
    write(root / f"imagesUn/v_{channels - 1:04d}{ending}", scaled)
    outliers = outliers_in(root)
    assert list(outliers) == ["u", "v"]
    assert "40 x 0.05 x 0.05" in outliers["u"][0] and "RAS" in outliers["u"][-1]
    assert len(outliers["v"]) == 1


def test_one_labelled_image_is_enough(data: Path) -> None:
    for path in (data / "imagesTr/b_0000.nii.gz", data / "labelsTr/b.nii.gz"):
        path.unlink()
    describe(data, numTraining=1)
    assert outliers_in(data) == {}
    write(data / "imagesUn/u_0000.nii.gz", voxels(3, (60, 7, 8)))
    assert list(outliers_in(data)) == ["u"]


def test_natural_pictures_have_no_place_and_are_measured_in_pixels(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    assert outliers_in(root) == {}
    Image.fromarray(voxels(7, (90, 8, 3), np.uint8)).save(root / "imagesUn/u_0000.png")
    ((case, (text,)),) = outliers_in(root).items()
    assert case == "u" and "90 x 8 pixels (y, x)" in text and text.endswith(" 9 x 8.")


def test_a_dark_picture_is_named_in_each_colour(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    dark = voxels(7, (9, 8, 3), np.uint8) // 50
    Image.fromarray(dark).save(root / "imagesUn/u_0000.png")
    assert outliers_in(root) == {}  # each image is normalised by itself
    describe(root, file_ending=".png", channel_names=dict.fromkeys("012", "rgb_to_0_1"))
    (reasons,) = outliers_in(root).values()
    assert sorted(text[:9] for text in reasons) == ["Channel 0", "Channel 1", "Channel 2"]


def test_flat_images_with_a_spacing_are_measured_in_mm(tmp_path: Path) -> None:
    root = make(tmp_path)
    for path in root.glob("*/*.nii.gz"):
        array = voxels(len(path.name) + ord(path.name[0]), SHAPE[1:])
        write(path, (array % 2).astype(np.uint8) if path.parent.name == "labelsTr" else array)
    assert outliers_in(root) == {}
    write(root / "imagesUn/u_0000.nii.gz", voxels(5, SHAPE[1:]), (10.0, 10.0))
    (reasons,) = outliers_in(root).values()
    assert any("10 x 10 mm (y, x)" in text and text.endswith(" 1 x 1.") for text in reasons)


@pytest.mark.parametrize("labelled_axes", [2, 3])
def test_flat_images_of_two_and_of_three_axes_are_alike(tmp_path: Path, labelled_axes: int) -> None:
    def write_flat(name: str, seed: int, axes: int) -> None:
        path, array = tmp_path / f"{name}.nii.gz", voxels(seed, (9, 8))
        path.parent.mkdir(exist_ok=True)
        place = np.diag([-0.3, -0.3, 1, 1])
        nib.save(nib.Nifti1Image(array if axes == 2 else array[..., None], place), path)

    for number, case in enumerate("abc"):
        write_flat(f"imagesTr/{case}_0000", number, labelled_axes)
        write_flat(f"imagesUn/u{case}_0000", number + 10, 5 - labelled_axes)
    describe(tmp_path, channel_names={"0": "MR"}, numTraining=3)
    reports = [r for r in check_dataset(tmp_path, 1, False) if r.geometry]
    assert len(reports) == 6
    reports = [replace(r, problems=()) for r in reports]  # there are no labels
    assert find_outliers(reports, MR) == []


def test_a_volume_among_flat_images_is_named() -> None:
    flat = [report(c, "labelled", shape=(1, 200, 200), spacing=(999.0, 1.0, 1.0)) for c in "ab"]
    assert found(report(shape=(1, 200, 200), spacing=(1.0, 1.0, 1.0)), labelled=flat) == []
    (outlier,) = found(report(), labelled=flat)
    assert outlier.reasons == ("It is a volume, the labelled images are flat.",)
    flat_one = report(shape=(1, 200, 200), spacing=(999.0, 1.0, 1.0))
    assert reason(flat_one) == "It is flat, the labelled images are volumes."
    assert found(flat_one, report(), labelled=[flat[0], report("b", "labelled")]) == []
