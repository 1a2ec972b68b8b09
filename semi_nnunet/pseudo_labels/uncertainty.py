"""Compute how unsure models are of an image, on its own voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.case_uncertainty import foreground_entropy, network_disagreement
from semi_nnunet.pseudo_labels.predictor import Prediction


def compute_uncertainties(prediction: Prediction, label_manager: Any) -> dict[str, float]:
    """Return name of a score -> value in [0, 1], see :mod:`semi_nnunet.core.case_uncertainty`.

    "entropy" always; "disagreement" with several models: of each with their mean, averaged.
    """
    exclusive = not label_manager.has_regions
    probabilities = torch.from_numpy(prediction.probabilities)
    scores = {"entropy": foreground_entropy(probabilities, exclusive)}
    if len(prediction.of_models) > 1:
        classes = list_foreground_values(label_manager)
        mean = encode_classes(prediction.labels, classes)
        distances = [
            network_disagreement(encode_classes(labels, classes), mean)
            for labels in prediction.of_models
        ]
        scores["disagreement"] = float(np.mean(distances))
    return scores


def list_foreground_values(label_manager: Any) -> list[tuple[int, ...]]:
    """Return the label values of each foreground class or region."""
    if label_manager.has_regions:
        regions = label_manager.foreground_regions
        return [tuple(r) if isinstance(r, (list, tuple)) else (r,) for r in regions]
    return [(int(label),) for label in label_manager.foreground_labels]


def encode_classes(labels: np.ndarray, classes: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Return bool (classes, *spatial): voxels whose label is among the values of each class.

    >>> encode_classes(np.array([0, 1, 2]), [(1,), (1, 2)]).int().tolist()
    [[0, 1, 0], [0, 1, 1]]
    """
    return torch.stack([torch.from_numpy(np.isin(labels, values)) for values in classes])
