"""A loaded model predicts in any precision, where it is told to, and with little memory."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from semi_nnunet.inference import model as under_test
from semi_nnunet.inference.model import (
    ImagePredictor,
    Options,
    labels_of,
    nearest_on,
    options_of,
    smaller,
)
from semi_nnunet.inference.sliding_window import Window
from semi_nnunet.util.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def image(pool) -> tuple[np.ndarray, dict]:
    found = sitk.ReadImage(str(min(pool.images.iterdir())))
    return sitk.GetArrayFromImage(found)[None].astype(np.float32), {
        "spacing": found.GetSpacing()[::-1]
    }


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean(one == other))


def test_faster_options_give_nearly_the_same_labels(pool, image):
    exact = ImagePredictor(pool.models[0], Options(), CPU)(*image)
    assert len(np.unique(exact)) > 1
    for options, least in (
        (Options(dtype=torch.float32, tiles_at_once=3), 0.9999),
        (Options(precision=torch.bfloat16), 0.98),
        (Options(step=0.9), 0.95),
    ):
        labels = ImagePredictor(pool.models[0], options, CPU)(*image)
        assert labels.dtype == exact.dtype
        assert agreement(labels, exact) > least


def test_speeds_are_options(monkeypatch):
    monkeypatch.setattr(under_test, "computes_bfloat16_fast", lambda: True)
    assert options_of("exact", CPU) == Options()
    assert options_of("alike", CPU) == Options(
        mirror=None, precision=torch.bfloat16, dtype=torch.float32
    )
    assert options_of("alike", CPU, mirror=True).mirror is True
    assert not options_of("fast", CPU).mirror
    assert options_of("fast", CPU, mirror=True, step=0.7) == Options(
        step=0.7, precision=torch.bfloat16, dtype=torch.float32
    )
    assert options_of("fast", torch.device("cuda")).tiles_at_once == 4
    for wrong, says in (
        ({"speed": "quick"}, "one of exact, alike, fast, got quick"),
        ({"step": 0}, "got 0"),
    ):
        with pytest.raises(UserError, match=says):
            options_of(**{"speed": "exact", "device": CPU} | wrong)


def test_a_coarse_look_leaves_out_the_rest(pool, image):
    everything = ImagePredictor(pool.models[0], Options(), CPU)(*image)

    def left_half(data, properties):
        seen = np.zeros(data.shape[1:], np.uint8)
        seen[..., : seen.shape[-1] // 2] = 1
        return seen

    def nothing(data, properties):
        return np.zeros(data.shape[1:], np.uint8)

    assert not ImagePredictor(pool.models[0], Options(), CPU, nothing)(*image).any()
    half = ImagePredictor(pool.models[0], Options(step=1.0), CPU, left_half)(*image)
    whole = ImagePredictor(pool.models[0], Options(step=1.0), CPU)(*image)
    quarter = everything.shape[-1] // 4
    assert np.array_equal(half[..., :quarter], whole[..., :quarter])
    ours = ImagePredictor(pool.models[0], Options(), CPU, lambda *_: everything)(*image)
    assert agreement(ours, everything) > 0.99  # its own labels leave out little


def test_the_image_is_prepared_as_by_nnunet(pool, image, monkeypatch):
    predictor = ImagePredictor(pool.models[0], Options(), CPU)
    data, properties = image
    data = np.pad(data, ((0, 0), (1, 2), (3, 0), (0, 5)))  # cropped again
    plans, configuration = predictor.predictor.plans_manager, predictor.configuration
    monkeypatch.setitem(configuration.configuration, "spacing", [0.8, 1.3])
    how = configuration.preprocessor_class(verbose=False)
    assert type(how) is DefaultPreprocessor
    expected, _, known = how.run_case_npy(data, None, dict(properties), plans, configuration, {})
    found, ours = under_test.preprocessed(data, properties, plans, configuration, how, exact=True)
    assert np.array_equal(found, expected)
    assert ours == known
    found, ours = under_test.preprocessed(data, properties, plans, configuration, how, exact=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert ours == known


def test_where_memory_is_short_tiles_become_fewer_then_smaller(pool, image, monkeypatch, capsys):
    predictor = ImagePredictor(pool.models[0], Options(tiles_at_once=2), CPU)
    patch = predictor.window.patch_size
    expected = predictor(*image)
    slabs, tried = under_test.slabs, []

    def short(network, weights, data, heads, window, *rest):
        tried.append((window.tiles_at_once, window.patch_size))
        if window.tiles_at_once > 1 or window.patch_size == patch:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")
        return slabs(network, weights, data, heads, window, *rest)

    monkeypatch.setattr(under_test, "slabs", short)
    labels = predictor(*image)
    assert [one[0] for one in tried] == [2, 1, 1]
    assert np.prod(tried[-1][1]) < np.prod(patch)
    assert agreement(labels, expected) > 0.9
    assert "the memory was too small; going on" in capsys.readouterr().out

    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(under_test, "slabs", never)
    with pytest.raises(
        UserError, match=r"memory of cpu must hold a tile.*CUDA out of memory\. Fix"
    ):
        predictor(*image)


def test_smaller_windows_fit_the_network():
    window = Window((96, 160), tiles_at_once=4)
    seen = []
    while window is not None:
        seen.append((window.tiles_at_once, *window.patch_size))
        window = smaller(window, (16, 16))
    assert seen == [(4, 96, 160), (2, 96, 160), (1, 96, 160), (1, 96, 80), (1, 48, 80), (1, 48, 32)]


def test_masks_are_carried_to_another_grid():
    mask = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert np.array_equal(nearest_on(mask, (4, 4)), mask.repeat(2, 0))
    assert np.array_equal(nearest_on(mask, (2, 8)), mask.repeat(2, 1))
    assert np.array_equal(nearest_on(mask, (2, 4)), mask)


def test_labels_are_nnunets_also_of_equal_logits(pool):
    manager = ImagePredictor(pool.models[0], Options(), CPU).predictor.label_manager
    torch.manual_seed(0)
    shape = (manager.num_segmentation_heads, 4, 5, 6)
    logits = torch.randint(3, shape).half()  # many are equal
    found, theirs = labels_of(logits, manager), manager.convert_logits_to_segmentation(logits)
    assert np.array_equal(found, theirs) and len(np.unique(found)) > 1
