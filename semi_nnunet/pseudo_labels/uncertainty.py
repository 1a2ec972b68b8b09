"""How unsure the models are of an image, on its own voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.case_uncertainty import disagreement, foreground_entropy
from semi_nnunet.pseudo_labels.predictor import Prediction


def uncertainties(prediction: Prediction, label_manager: Any) -> dict[str, float]:
    """Name of a score -> its value in [0, 1], see :mod:`semi_nnunet.core.case_uncertainty`.

    "entropy" always; "disagreement" with several models: of each with their mean, averaged.
    """
    exclusive = not label_manager.has_regions
    probabilities = torch.from_numpy(prediction.probabilities)
    scores = {"entropy": foreground_entropy(probabilities, exclusive)}
    if len(prediction.of_models) > 1:
        classes = foreground_values(label_manager)
        mean = onehot(prediction.labels, classes)
        each = [disagreement(onehot(labels, classes), mean) for labels in prediction.of_models]
        scores["disagreement"] = float(np.mean(each))
    return scores


def foreground_values(label_manager: Any) -> list[tuple[int, ...]]:
    """The label values of each foreground class, or of each region."""
    if label_manager.has_regions:
        regions = label_manager.foreground_regions
        return [tuple(r) if isinstance(r, (list, tuple)) else (r,) for r in regions]
    return [(int(label),) for label in label_manager.foreground_labels]


def onehot(labels: np.ndarray, classes: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Bool (classes, *spatial)."""
    return torch.stack([torch.from_numpy(np.isin(labels, values)) for values in classes])
