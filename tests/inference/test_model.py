"""A loaded model predicts in any precision, with views, and in little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.trained import TrainedModel, find_model
from semi_nnunet.inference import model as under_test
from semi_nnunet.inference.model import (
    ImagePredictor,
    PredictionOptions,
    TileTooLargeError,
    convert_to_labels,
    make_prediction_options,
    resize_mask,
    shrink_window,
)
from semi_nnunet.inference.sliding_window import Window
from semi_nnunet.inference.views import make_views
from semi_nnunet.training.prediction import append_previous_stage
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json

CPU = torch.device("cpu")


def read_first_image(images: Path) -> tuple[np.ndarray, dict]:
    image = sitk.ReadImage(str(min(images.iterdir())))
    array = sitk.GetArrayFromImage(image)[None].astype(np.float32)
    return array, {"spacing": image.GetSpacing()[::-1]}


@pytest.fixture
def image(pool) -> tuple[np.ndarray, dict]:
    return read_first_image(pool.images)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean(first == second))


def test_faster_options_give_nearly_the_same_labels(pool, image):
    exact = ImagePredictor(pool.models[0], PredictionOptions(), CPU)(*image)
    assert len(np.unique(exact)) > 1
    for options, least in (
        (PredictionOptions(dtype=torch.float32, tiles_at_once=3), 0.9999),
        (PredictionOptions(precision=torch.bfloat16), 0.98),
        (PredictionOptions(step=0.9), 0.95),
    ):
        labels = ImagePredictor(pool.models[0], options, CPU)(*image)
        assert labels.dtype == exact.dtype
        assert agreement(labels, exact) > least


def test_speeds_are_options(monkeypatch):
    monkeypatch.setattr(under_test, "computes_bfloat16_fast", lambda: True)
    assert make_prediction_options("exact", CPU) == PredictionOptions()
    assert make_prediction_options("alike", CPU) == PredictionOptions(
        mirror=None, precision=torch.bfloat16, dtype=torch.float32
    )
    assert make_prediction_options("alike", CPU, mirror=True).mirror is True
    assert not make_prediction_options("fast", CPU).mirror
    assert make_prediction_options("fast", CPU, mirror=True, step=0.7) == PredictionOptions(
        step=0.7, precision=torch.bfloat16, dtype=torch.float32
    )
    assert make_prediction_options("fast", torch.device("cuda")).tiles_at_once == 4
    for mistake, keyword in (
        ({"speed": "quick"}, "got quick"),
        ({"step": 0}, "got 0"),
    ):
        with pytest.raises(UserError, match=keyword):
            make_prediction_options(**{"speed": "exact", "device": CPU} | mistake)


def test_a_coarse_prediction_restricts_the_fine_one(pool, image):
    everything = ImagePredictor(pool.models[0], PredictionOptions(), CPU)(*image)

    def left_half(data, properties):
        seen = np.zeros(data.shape[1:], np.uint8)
        seen[..., : seen.shape[-1] // 2] = 1
        return seen

    def nothing(data, properties):
        return np.zeros(data.shape[1:], np.uint8)

    assert not ImagePredictor(pool.models[0], PredictionOptions(), CPU, nothing)(*image).any()
    half = ImagePredictor(pool.models[0], PredictionOptions(step=1.0), CPU, left_half)(*image)
    whole = ImagePredictor(pool.models[0], PredictionOptions(step=1.0), CPU)(*image)
    quarter = everything.shape[-1] // 4
    assert np.array_equal(half[..., :quarter], whole[..., :quarter])
    ours = ImagePredictor(pool.models[0], PredictionOptions(), CPU, lambda *_: everything)(*image)
    assert agreement(ours, everything) > 0.99  # its own labels leave out little


def test_the_image_is_preprocessed_as_by_nnunet(pool, image, monkeypatch):
    predictor = ImagePredictor(pool.models[0], PredictionOptions(), CPU)
    data, properties = image
    data = np.pad(data, ((0, 0), (1, 2), (3, 0), (0, 5)))  # cropped again
    plans, configuration = predictor.loaded.plans_manager, predictor.configuration
    monkeypatch.setitem(configuration.configuration, "spacing", [0.8, 1.3])
    preprocessor = configuration.preprocessor_class(verbose=False)
    assert type(preprocessor) is DefaultPreprocessor
    expected, _, expected_cropping = preprocessor.run_case_npy(
        data, None, dict(properties), plans, configuration, {}
    )
    prepared, cropping = under_test.preprocess_image(
        data, properties, plans, configuration, preprocessor, exact=True
    )
    assert np.array_equal(prepared, expected)
    assert cropping == expected_cropping
    prepared, cropping = under_test.preprocess_image(
        data, properties, plans, configuration, preprocessor, exact=False
    )
    np.testing.assert_allclose(prepared, expected, atol=1e-5)
    assert cropping == expected_cropping


def test_with_little_memory_tiles_become_fewer_then_smaller(pool, image, monkeypatch, capsys):
    predictor = ImagePredictor(pool.models[0], PredictionOptions(tiles_at_once=2), CPU)
    patch = predictor.window.patch_size
    expected = predictor(*image)
    slabs, tried = under_test.predict_slabs, []

    def short(network, weights, data, heads, window, *rest):
        tried.append((window.tiles_at_once, window.patch_size))
        if window.tiles_at_once > 1 or window.patch_size == patch:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")
        return slabs(network, weights, data, heads, window, *rest)

    monkeypatch.setattr(under_test, "predict_slabs", short)
    labels = predictor(*image)
    assert [attempt[0] for attempt in tried] == [2, 1, 1]
    assert np.prod(tried[-1][1]) < np.prod(patch)
    assert agreement(labels, expected) > 0.9
    assert "too small" in capsys.readouterr().out

    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(under_test, "predict_slabs", never)
    with pytest.raises(TileTooLargeError, match=r"memory of cpu .*CUDA out"):
        predictor(*image)


def test_smaller_windows_fit_the_network():
    window = Window((96, 160), tiles_at_once=4)
    seen = []
    while window is not None:
        seen.append((window.tiles_at_once, *window.patch_size))
        window = shrink_window(window, (16, 16))
    assert seen == [(4, 96, 160), (2, 96, 160), (1, 96, 160), (1, 96, 80), (1, 48, 80), (1, 48, 32)]


def test_masks_are_resized_to_another_grid():
    mask = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert np.array_equal(resize_mask(mask, (4, 4)), mask.repeat(2, 0))
    assert np.array_equal(resize_mask(mask, (2, 8)), mask.repeat(2, 1))
    assert np.array_equal(resize_mask(mask, (2, 4)), mask)


def test_equal_logits_give_nnunets_labels(pool):
    manager = ImagePredictor(pool.models[0], PredictionOptions(), CPU).label_manager
    torch.manual_seed(0)
    shape = (manager.num_segmentation_heads, 4, 5, 6)
    logits = torch.randint(3, shape).half()  # many are equal
    labels, theirs = (
        convert_to_labels(logits, manager),
        manager.convert_logits_to_segmentation(logits),
    )
    assert np.array_equal(labels, theirs) and len(np.unique(labels)) > 1


def predict_whole_image(
    model: TrainedModel, views: tuple[str, ...], image: np.ndarray, properties: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Predict with nnU-Net's functions, which hold the logits of the whole image."""
    loaded = load_model(model)
    plans, configuration = loaded.plans_manager, loaded.configuration_manager
    nnunet = nnUNetPredictor(use_mirroring="flips" in views, device=CPU, allow_tqdm=False)
    nnunet.manual_initialization(
        loaded.network, plans, configuration, loaded.list_of_parameters, loaded.dataset_json,
        loaded.trainer_name, loaded.allowed_mirroring_axes,
    )  # fmt: skip
    previous = None
    if model.previous is not None:
        labels, _ = predict_whole_image(model.previous, views, image, properties)
        previous = labels[None].astype(np.float32)
    data, resampled, cropping = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, previous, dict(properties), plans, configuration, loaded.dataset_json
    )
    if previous is not None:
        data = append_previous_stage(data, resampled[0], loaded.label_manager)
    x, all_views = torch.from_numpy(data), make_views(views, configuration.spacing)
    logits = [
        view.back(nnunet.predict_logits_from_preprocessed_data(view.of(x, len(image)).contiguous()))
        for view in all_views
    ]
    mean = logits[0] if len(logits) == 1 else sum(view.float() / len(logits) for view in logits)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        mean, plans, configuration, loaded.label_manager, cropping, return_probabilities=True
    )


@pytest.mark.parametrize("views", [(), ("flips",), ("rot90", "gamma", "noise")], ids=str)
@pytest.mark.parametrize("kind", ["pool", "cascade"])
def test_labels_and_probabilities_equal_those_of_nnunets_functions(request, kind, views):
    phantom = request.getfixturevalue(kind)
    model, (data, properties) = phantom.models[0], read_first_image(phantom.images)
    if kind == "pool":
        plans = read_json(model.folder / "plans.json")  # another grid than the image's
        plans["configurations"]["2d"]["spacing"] = [1.2, 1.2]
        plans["transpose_forward"], plans["transpose_backward"] = [0, 2, 1], [0, 2, 1]
        write_json(model.folder / "plans.json", plans)
        model = find_model(str(model.folder))
    data = np.pad(data, ((0, 0), (1, 2), (3, 0), (0, 5)))  # cropped again
    options = PredictionOptions(mirror="flips" in views, views=views)
    predictor = ImagePredictor(model, options, CPU)
    labels, probabilities = predictor.predict_probabilities(data, properties)
    expected_labels, expected = predict_whole_image(model, views, data, properties)
    assert np.array_equal(labels, expected_labels) and labels.dtype == expected_labels.dtype
    assert len(np.unique(labels)) > 1
    assert probabilities.dtype == np.float32 and probabilities.shape == expected.shape
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert np.array_equal(predictor(data, properties), labels)


def test_tiles_keep_their_size_if_they_may_not_shrink(pool, image, monkeypatch):
    predictor = ImagePredictor(pool.models[0], PredictionOptions(shrink_tiles=False), CPU)

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(under_test, "predict_slabs", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        predictor.predict_probabilities(*image)
