"""Metrics of masks, against hand-made values, medpy and MONAI."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_nnunet.evaluation.metrics import (
    Measure,
    describe_columns,
    mask_metrics,
    weighted_percentile,
)
from tests.evaluation.masks import SPACINGS, blobs

MM = Measure({"1mm": 1.0, "2mm": 2.0})


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_edge_metrics_agree_with_medpy(dimensions, seed):
    binary = pytest.importorskip("medpy.metric.binary")
    (ours, theirs), spacing = blobs(dimensions, seed), SPACINGS[dimensions]
    metrics = mask_metrics(ours, theirs, spacing, MM)
    assert metrics["dice"] == pytest.approx(binary.dc(ours, theirs))
    assert metrics["iou"] == pytest.approx(binary.jc(ours, theirs))
    assert metrics["hd95_edge_mm"] == pytest.approx(binary.hd95(ours, theirs, spacing))
    assert metrics["asd_edge_mm"] == pytest.approx(binary.asd(ours, theirs, spacing))
    in_voxels = mask_metrics(ours, theirs, spacing, Measure({}, "voxels"))
    assert in_voxels["hd95_edge_voxels"] == pytest.approx(binary.hd95(ours, theirs))
    assert in_voxels["asd_edge_voxels"] == pytest.approx(binary.asd(ours, theirs))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_both_conventions_agree_with_monai(dimensions, seed):
    monai = pytest.importorskip("monai.metrics")
    (ours, theirs), spacing = blobs(dimensions, seed), SPACINGS[dimensions]
    metrics = mask_metrics(ours, theirs, spacing, MM)
    masks = [torch.tensor(mask)[None, None] for mask in (ours, theirs)]
    shared = {"include_background": True, "spacing": spacing}

    def surface_dice(tolerance: float, surfel: bool) -> float:
        return monai.compute_surface_dice(
            *masks, [tolerance], use_subvoxels=surfel, **shared
        ).item()

    for name, tolerance in MM.tolerances.items():
        assert metrics[f"nsd_edge_{name}"] == pytest.approx(
            surface_dice(tolerance, False), abs=1e-6
        )
        assert metrics[f"nsd_surfel_{name}"] == pytest.approx(
            surface_dice(tolerance, True), abs=1e-6
        )
    mean = monai.compute_average_surface_distance(*masks, symmetric=True, **shared)
    assert metrics["assd_edge_mm"] == pytest.approx(mean.item(), rel=1e-5)
    assert metrics["nsd_edge_1mm"] != pytest.approx(metrics["nsd_surfel_1mm"], abs=0.01)


def test_a_cube_against_itself_and_shifted():
    cube = np.zeros((12, 12, 12), dtype=bool)
    cube[3:8, 3:8, 3:8] = True
    equal = mask_metrics(cube, cube, (2, 1, 1), MM)
    assert equal["dice"] == equal["iou"] == equal["nsd_edge_1mm"] == equal["nsd_surfel_1mm"] == 1.0
    assert equal["hd95_edge_mm"] == equal["asd_edge_mm"] == equal["assd_surfel_mm"] == 0.0
    assert equal["volume_difference_ml"] == 0.0
    moved = mask_metrics(np.roll(cube, 2, axis=0), cube, (2, 1, 1), MM)
    assert moved["hd95_edge_mm"] == pytest.approx(4.0)
    assert moved["dice"] == pytest.approx(0.6)
    bigger = np.zeros_like(cube)
    bigger[2:8, 3:8, 3:8] = True
    grown = mask_metrics(bigger, cube, (2, 1, 1), MM)
    assert grown["volume_difference_ml"] == pytest.approx(25 * 2 / 1000)
    assert grown["relative_volume_difference"] == pytest.approx(0.2)


def test_a_shape_in_only_one_mask_gets_the_worst_values():
    nothing = np.zeros((10, 10), dtype=bool)
    dot = nothing.copy()
    dot[4, 4] = True
    for pair in ((nothing, dot), (dot, nothing)):
        metrics = mask_metrics(*pair, (3.0, 4.0), MM)
        assert metrics["dice"] == metrics["nsd_edge_2mm"] == metrics["nsd_surfel_1mm"] == 0.0
        assert metrics["hd95_edge_mm"] == metrics["assd_surfel_mm"] == pytest.approx(50.0)
        assert list(metrics) == list(describe_columns(MM))
    fixed_distance = mask_metrics(nothing, dot, (1, 1), Measure({}, missed_distance=7.0))
    assert fixed_distance["hd95_surfel_mm"] == 7.0


def test_metrics_of_two_empty_masks_are_undefined():
    nothing = np.zeros((5, 5), dtype=bool)
    metrics = mask_metrics(nothing, nothing, (1, 1), MM)
    undefined = {column for column, value in metrics.items() if math.isnan(value)}
    assert undefined == set(metrics)


def test_the_column_of_a_size_names_volume_or_area_and_its_unit():
    nothing, some = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)
    slices = mask_metrics(some, nothing, (0.5, 3.0), Measure({}, axes=2))
    assert slices["area_difference_mm2"] == 16 * 1.5
    pictures = mask_metrics(some, nothing, (1.0, 1.0), Measure({}, "pixels", axes=2))
    assert pictures["area_difference_pixels"] == 16 and "hd95_edge_pixels" in pictures
    assert math.isnan(pictures["relative_volume_difference"])
    volumes = mask_metrics(some[None], nothing[None], (2.0, 0.5, 3.0), Measure({}, "voxels"))
    assert volumes["volume_difference_voxels"] == 16


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), min_size=1, max_size=30))
def test_a_weighted_percentile_equals_that_of_repeated_values(pairs):
    values, weights = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    repeated = np.sort(np.repeat(values, weights.astype(int)))
    index = math.ceil(0.95 * len(repeated) - 1e-9) - 1
    assert weighted_percentile(values, weights, 95) == repeated[max(index, 0)]


def test_every_column_describes_its_convention():
    for column, meaning in describe_columns(MM).items():
        assert ("edge" in column) == ("the same weight" in meaning)
        assert ("surfel" in column) == ("weigh their area" in meaning)
