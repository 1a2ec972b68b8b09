"""Uncertainties of an image equal those computed by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semi_nnunet.pseudo_labels.predictor import Prediction
from semi_nnunet.pseudo_labels.uncertainty import (
    compute_uncertainties,
    encode_classes,
    list_foreground_values,
)

CLASSES = SimpleNamespace(has_regions=False, foreground_labels=[1, 2])
REGIONS = SimpleNamespace(has_regions=True, foreground_regions=[(1, 2), 2])


def prediction(*of_models: Any, sure: float = 1.0) -> Prediction:
    """Labels of several models, and the mean of their probabilities, each that sure."""
    labels = [np.asarray(model_labels) for model_labels in of_models]
    probabilities = [
        np.stack([np.where(model_labels == k, sure, (1 - sure) / 2) for k in range(3)])
        for model_labels in labels
    ]
    mean = np.mean(probabilities, 0).astype(np.float32)
    return Prediction(mean, mean.argmax(0), labels, {})


def organ(columns: int, shape: tuple[int, int] = (6, 20)) -> np.ndarray:
    found = np.zeros(shape, int)
    found[1:5, 2 : 2 + columns] = 1
    found[2:4, 3:6] = 2
    return found


def test_models_that_agree_are_certain():
    scores = compute_uncertainties(prediction(*[organ(10)] * 3), CLASSES)
    assert scores == {"entropy": pytest.approx(0, abs=1e-6), "disagreement": 0.0}
    assert compute_uncertainties(prediction(organ(10)), CLASSES).keys() == {"entropy"}


def test_disagreement_is_one_minus_the_dice_with_the_mean_of_the_models():
    small, large = organ(6), organ(12)
    scores = compute_uncertainties(found := prediction(large, large, small), CLASSES)
    assert np.array_equal(found.labels, large)  # as the majority says

    def dice(k: int) -> float:
        both = ((small == k) & (large == k)).sum()
        return float(2 * both / ((small == k).sum() + (large == k).sum()))

    assert scores["disagreement"] == pytest.approx((1 - (dice(1) + dice(2)) / 2) / 3)


def test_less_probable_labels_are_less_sure():
    found = [
        compute_uncertainties(prediction(organ(10), sure=p), CLASSES)["entropy"]
        for p in (1.0, 0.9, 0.5)
    ]
    assert 0 <= found[0] < found[1] < found[2] <= 1


def test_an_image_without_foreground_is_completely_uncertain():
    nothing = np.zeros((6, 20), int)
    assert compute_uncertainties(prediction(nothing, nothing), CLASSES) == {
        "entropy": 1.0, "disagreement": 1.0,
    }  # fmt: skip


def test_regions_are_encoded_by_their_label_values():
    assert list_foreground_values(CLASSES) == [(1,), (2,)]
    assert list_foreground_values(REGIONS) == [(1, 2), (2,)]
    labels = organ(10)
    whole, core = encode_classes(labels, list_foreground_values(REGIONS))
    assert whole.dtype == torch.bool and np.array_equal(whole, labels > 0)
    assert np.array_equal(core, labels == 2)
