"""Annotated voxels of sparse labels survive the grid of the plans."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from semi_nnunet.preprocessing.cases import Case, PreprocessingSpec, preprocess_case
from semi_nnunet.preprocessing.sparse import SparseConfiguration, mark_annotated
from semi_nnunet.util.files import read_json

IGNORE = 3


def mark_slowly(label: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """Look at each voxel of the new grid, and at all annotated ones whose centre lies in it."""
    marked = resampled.copy()
    for cell in np.argwhere(resampled[0] == IGNORE):
        inside = [
            label[(0, *voxel)]
            for voxel in np.argwhere(label[0] != IGNORE)
            if all(
                low <= (index + 0.5) * new / old < low + 1
                for index, low, old, new in zip(
                    voxel, cell, label.shape[1:], resampled.shape[1:], strict=True
                )
            )
        ]
        if inside:
            marked[(0, *cell)] = max(inside)
    return marked


@settings(max_examples=30)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 99))
def test_ignored_voxels_get_the_annotations_inside_them(old, new, seed):
    rng = np.random.default_rng(seed)
    label = rng.choice([-1, 0, 1, 2, IGNORE], (1, *old), p=[0.1, 0.1, 0.1, 0.1, 0.6])
    resampled = rng.choice([-1, 0, 1, 2, IGNORE], (1, *new), p=[0.1, 0.1, 0.1, 0.1, 0.6])
    expected = resampled
    if (label == IGNORE).any() and old != new:
        expected = mark_slowly(label, resampled)
    np.testing.assert_array_equal(mark_annotated(label, resampled, IGNORE), expected)


def test_a_label_without_ignored_voxels_is_nnunets(prepared_dataset):
    plans = read_json(prepared_dataset("labels", 1).preprocessed / "nnUNetPlans.json")
    stock = ConfigurationManager(plans["configurations"]["2d"])
    label = np.random.default_rng(0).integers(0, 3, (1, 2, 20, 20))
    arguments = (label, (2, 9, 7), (1.0, 1.0, 1.0), (1.0, 2.2, 2.9))
    ours = SparseConfiguration(stock, IGNORE).resampling_fn_seg(*arguments)
    np.testing.assert_array_equal(ours, stock.resampling_fn_seg(*arguments))


@pytest.mark.parametrize("kind", ["points", "slice"])
def test_no_class_vanishes_on_the_coarser_grid(prepared_dataset, tmp_path: Path, kind: str):
    dataset = prepared_dataset("labels", 1)
    plans, description = (
        read_json(dataset.preprocessed / name) for name in ("nnUNetPlans.json", "dataset.json")
    )
    configuration = plans["configurations"]["3d_fullres"]
    configuration["spacing"] = [3.0 * mm for mm in configuration["spacing"]]
    image = next(path for path in sorted((dataset.raw / "imagesTr").iterdir()))
    case = image.name.removesuffix("_0000.nii.gz")
    source = sitk.ReadImage(str(image))
    sparse = np.full(sitk.GetArrayFromImage(source).shape, IGNORE, np.uint8)
    if kind == "points":
        sparse[1, 3, 3], sparse[2, 12, 12], sparse[3, 6, 14] = 0, 1, 2
    else:
        sparse[1] = 0
        sparse[1, 5:9, 5:9], sparse[1, 12:15, 12:15] = 1, 2
    label = sitk.GetImageFromArray(sparse)
    label.CopyInformation(source)
    sitk.WriteImage(label, str(tmp_path / f"{case}.nii.gz"))
    description["labels"] = {"background": 0, "a": 1, "b": 2, "ignore": IGNORE}
    (tmp_path / "out").mkdir()
    preprocess_case(
        Case(case, (str(image),), str(tmp_path / f"{case}.nii.gz"), "hash"),
        PreprocessingSpec(plans, "3d_fullres", description), tmp_path / "out", tmp_path / "aside",
    )  # fmt: skip
    left = blosc2.open(str(tmp_path / "out" / f"{case}_seg.b2nd"), mode="r")[:]
    assert left[0].size < sparse.size / 8
    assert {0, 1, 2, IGNORE} <= {*np.unique(left)} | {-1, IGNORE}
