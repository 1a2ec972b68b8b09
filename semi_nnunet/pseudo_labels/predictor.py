"""Predict raw images with one or several models, over one or several views.

Folds and views of a model are averaged as logits on its grid, models as probabilities on the
image's own: both as nnU-Net does (its folds and mirrored views; nnUNetv2_ensemble). A cascade's
second stage sees the first one's labels, as by nnUNetv2_predict -prev_stage_predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from semi_nnunet.deploy.loading import load
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.pseudo_labels.test_time_augmentation import make_views
from semi_nnunet.training.prediction import with_previous_stage


@dataclass(frozen=True)
class Prediction:
    """The models' probabilities of an image, and how they disagree.

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


class LoadedModel:
    """A model that is loaded once and predicts image after image.

    Args:
        model: a second stage of a cascade brings the first, whose labels it sees.
        views: names, see :mod:`semi_nnunet.pseudo_labels.test_time_augmentation`; for every stage.
        device: to compute on.
    """

    def __init__(self, model: TrainedModel, views: Sequence[str], device: torch.device):
        self.predictor = load(model, "flips" in views, device)
        self.views = make_views(views, self.predictor.configuration_manager.spacing)
        before = model.previous
        self.previous = None if before is None else LoadedModel(before, views, device)

    @property
    def reader_writer(self) -> Any:
        """nnU-Net's, for the files of the data set."""
        return self.predictor.plans_manager.image_reader_writer_class()

    def __call__(
        self, image: np.ndarray, properties: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Predict an image as nnU-Net's reader gives it, (channels, *spatial) and its properties.

        Returns:
            The labels and probabilities, both in the image's own frame, and nnU-Net's properties.
        """
        predictor = self.predictor
        plans, configuration = predictor.plans_manager, predictor.configuration_manager
        before = None
        if self.previous is not None:  # as nnU-Net's readers give labels
            before = self.previous(image, properties)[0][None].astype(np.float32)
        data, labels_before, found = configuration.preprocessor_class(verbose=False).run_case_npy(
            image, before, dict(properties), plans, configuration, predictor.dataset_json
        )
        if before is not None:
            data = with_previous_stage(data, labels_before[0], predictor.label_manager)
        logits = self._logits(torch.from_numpy(data), len(image))
        labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, predictor.label_manager, found,
            return_probabilities=True, num_threads_torch=torch.get_num_threads(),
        )  # fmt: skip
        return labels, probabilities, found

    def _logits(self, x: torch.Tensor, image_channels: int) -> torch.Tensor:
        """Mean over the views, each brought back to the frame of ``x``."""
        mean = torch.zeros(())
        for view in self.views:
            changed = view.of(x, image_channels).contiguous()
            logits = view.back(self.predictor.predict_logits_from_preprocessed_data(changed).cpu())
            if len(self.views) == 1:
                return logits
            mean = mean + logits.float() / len(self.views)
        return mean


class Labeller:
    """Models that predict together.

    Args:
        models: of one data set.
        views, device: see :class:`LoadedModel`.
    """

    def __init__(self, models: Sequence[TrainedModel], views: Sequence[str], device: torch.device):
        self.models = [LoadedModel(model, views, device) for model in models]

    @property
    def label_manager(self) -> Any:
        """nnU-Net's, of the first model."""
        return self.models[0].predictor.label_manager

    def __call__(self, files: Sequence[str]) -> Prediction:
        """Predict the case of these channel files."""
        first, *others = self.models
        image, read = first.reader_writer.read_images(list(files))  # the same of all
        labels, total, properties = first(image, read)
        of_models = [labels]
        for model in others:
            labels, probabilities, properties = model(image, read)
            of_models.append(labels)
            total = total + probabilities
        mean = total / len(self.models)
        if len(self.models) > 1:
            labels = np.asarray(self.label_manager.convert_probabilities_to_segmentation(mean))
        return Prediction(mean, labels.astype(of_models[0].dtype), of_models, properties)
