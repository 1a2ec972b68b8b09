"""Predict raw images with one or several models, over one or several views.

Folds and views of a model are averaged as logits on its grid, models as probabilities on the
image's own: both as nnU-Net does (its folds and mirrored views; nnUNetv2_ensemble).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.deploy.trained import TrainedModel, load
from semi_nnunet.pseudo_labels.views import make_views


@dataclass(frozen=True)
class Prediction:
    """What the models say of an image.

    Args:
        probabilities: (C, *spatial) float32, in the image's own frame, mean over the models.
        labels: (*spatial), nnU-Net's labels or regions of them.
        of_models: the same for each model alone.
        properties: of the image, for nnU-Net's writer.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    of_models: list[np.ndarray]
    properties: dict[str, Any]


class Labeller:
    """Models that are loaded once and predict image after image.

    Args:
        models: of one data set.
        views: names, see :mod:`semi_nnunet.pseudo_labels.views`.
        device: to compute on.
    """

    def __init__(self, models: Sequence[TrainedModel], views: Sequence[str], device: torch.device):
        self.predictors = [load(model, "flips" in views, device) for model in models]
        self.views = [make_views(views, p.configuration_manager.spacing) for p in self.predictors]

    @property
    def label_manager(self) -> Any:
        """nnU-Net's, of the first model."""
        return self.predictors[0].label_manager

    def __call__(self, images: Sequence[str]) -> Prediction:
        """Predict the case of these channel files."""
        total, of_models, properties = None, [], {}
        for predictor, views in zip(self.predictors, self.views, strict=True):
            plans, configuration = predictor.plans_manager, predictor.configuration_manager
            preprocessor = configuration.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case(
                list(images), None, plans, configuration, predictor.dataset_json
            )
            logits = self._logits(predictor, torch.from_numpy(data), views)
            labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, plans, configuration, predictor.label_manager, properties,
                return_probabilities=True, num_threads_torch=torch.get_num_threads(),
            )  # fmt: skip
            of_models.append(labels)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        mean = total / len(self.predictors)
        if len(self.predictors) > 1:
            labels = np.asarray(self.label_manager.convert_probabilities_to_segmentation(mean))
        return Prediction(mean, labels.astype(of_models[0].dtype), of_models, properties)

    @staticmethod
    def _logits(predictor: nnUNetPredictor, x: torch.Tensor, views: Any) -> torch.Tensor:
        """Mean over the views, each brought back to the frame of ``x``."""
        mean = torch.zeros(())
        for view in views:
            changed = view.change(x).contiguous()
            logits = view.back(predictor.predict_logits_from_preprocessed_data(changed).cpu())
            if len(views) == 1:
                return logits
            mean = mean + logits.float() / len(views)
        return mean
