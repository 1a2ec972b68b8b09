"""Predict images with several models together.

Folds and views of a model are averaged as logits on its grid, models as probabilities on the
image's own: both as nnU-Net does (its folds and mirrored views; nnUNetv2_ensemble). A cascade's
second stage sees the first one's labels, as in nnUNetv2_predict -prev_stage_predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.model import ImagePredictor, PredictionOptions


@dataclass(frozen=True)
class Prediction:
    """Probabilities and labels of an image, of all models together and of each.

    Args:
        probabilities: (C, *spatial) float32, in the image's own frame, mean over the models.
        labels: (*spatial), nnU-Net's labels, of regions, too.
        of_models: labels of each model.
        properties: of the image, for nnU-Net's writer.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    of_models: list[np.ndarray]
    properties: dict[str, Any]


class Labeller:
    """Models that predict images together.

    Tiles keep the size of the patch, so that labels do not depend on the memory of the machine.

    Args:
        models: of one data set.
        views: names, see :mod:`semi_nnunet.inference.views`; also for first stages of cascades.
        device: to compute on.
    """

    def __init__(self, models: Sequence[TrainedModel], views: Sequence[str], device: torch.device):
        mirror = "flips" in views
        options = PredictionOptions(mirror=mirror, views=tuple(views), shrink_tiles=False)
        self.predictors = [ImagePredictor(model, options, device) for model in models]

    @property
    def label_manager(self) -> Any:
        """nnU-Net's manager of the labels, of the first model."""
        return self.predictors[0].label_manager

    @property
    def reader_writer(self) -> Any:
        """nnU-Net's reader and writer, the same for all models."""
        return self.predictors[0].reader_writer

    def __call__(self, files: Sequence[str]) -> Prediction:
        """Predict the case with these channel files."""
        image, properties = self.reader_writer.read_images(list(files))
        of_models: list[np.ndarray] = []
        total: Any = None
        for predictor in self.predictors:
            labels, probabilities = predictor.predict_probabilities(image, properties)
            of_models.append(labels)
            total = probabilities if total is None else total + probabilities
        if len(of_models) == 1:
            return Prediction(probabilities, labels, of_models, properties)
        mean = total / len(of_models)
        labels = np.asarray(self.label_manager.convert_probabilities_to_segmentation(mean))
        return Prediction(mean, labels.astype(of_models[0].dtype), of_models, properties)
