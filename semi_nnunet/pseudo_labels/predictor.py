"""Predict images with several models together.

Folds and views of a model are averaged as logits on its grid, models as probabilities on the
image's own: both as nnU-Net does (its folds and mirrored views; nnUNetv2_ensemble). A cascade's
second stage sees the first one's labels, as in nnUNetv2_predict -prev_stage_predictions.

Labels that annotate only some of the classes are completed with predictions for the others.
Annotations are kept: an organ where it was drawn, and no such organ elsewhere. Models choose among
the background and the classes that were not annotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.model import ImagePredictor, PredictionOptions
from semi_nnunet.raw.classes import ANNOTATED_KEY, AnnotatedClasses, has_partial_labels
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json, sha256_of_json


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


@dataclass(frozen=True)
class LabelCompletion:
    """A folder of partial labels that predictions complete.

    Args:
        labels: folder of CASE.ending; images without such a file are labelled by models only.
        annotated: classes that each of them annotates.
        file_ending: of the files.
        ignore: value of voxels whose class nobody knows, or None.
    """

    labels: Path
    annotated: AnnotatedClasses
    file_ending: str
    ignore: int | None

    @classmethod
    def from_folder(cls, labels: Path, dataset_json: dict[str, Any]) -> LabelCompletion:
        """Find out which classes the labels of a folder annotate.

        Args:
            labels: the folder; a dataset.json in it or next to it describes what each case
                annotates.
            dataset_json: of a model, used if there is no such file.

        Raises:
            UserError: neither describes it, or the folder has no label.
        """
        own_json = optional_json(labels / DATASET_JSON) or optional_json(
            labels.parent / DATASET_JSON
        )
        description = own_json if has_partial_labels(own_json) else dataset_json
        annotated, ending = AnnotatedClasses.of(description), dataset_json["file_ending"]
        if annotated is None:
            raise UserError(
                f"--partial-labels needs {ANNOTATED_KEY!r} in dataset.json of labels or model, to "
                f"know the classes that each case annotates, and neither has it",
                fix="leave --partial-labels out, or add it",
            )
        if not any(labels.glob(f"*{ending}")):
            raise UserError(f"{labels} holds no label *{ending}", fix="correct --partial-labels")
        # a model that was trained before there was an ignore label does not know it
        values = {**dataset_json["labels"], **own_json.get("labels", {})}
        return cls(labels, annotated, ending, values.get("ignore"))

    def find_label(self, case: str) -> Path | None:
        """Return the label of a case, or None."""
        path = self.labels / f"{case}{self.file_ending}"
        return path if path.is_file() else None

    def digest(self, case: str) -> str:
        """Return a checksum of what dataset.json says about the label of a case."""
        return sha256_of_json({"annotated": self.annotated.names(case), "ignore": self.ignore})

    def complete(
        self, case: str, prediction: Prediction, reader: Any, label_manager: Any
    ) -> Prediction:
        """Combine a prediction with the annotations of its case.

        Args:
            case: its identifier.
            prediction: of the models.
            reader, label_manager: nnU-Net's.

        Raises:
            ValueError: the label does not lie on the voxels of the image.
        """
        if (path := self.find_label(case)) is None:
            return prediction
        annotation = np.asarray(reader.read_seg(str(path))[0][0])
        if annotation.shape != prediction.labels.shape:
            raise ValueError(
                f"{path} must lie on the voxels of its image, {prediction.labels.shape}, got "
                f"{annotation.shape}"
            )
        row = self.annotated.rows([case], torch.device("cpu"))[0].tolist()
        probabilities = complete_probabilities(
            prediction.probabilities,
            annotation,
            row,
            [*self.annotated.outputs()],
            self.ignore,
        )
        labels = np.asarray(label_manager.convert_probabilities_to_segmentation(probabilities))
        return replace(
            prediction, probabilities=probabilities, labels=labels.astype(prediction.labels.dtype)
        )


def complete_probabilities(
    probabilities: np.ndarray,
    annotation: np.ndarray,
    is_annotated: Sequence[bool],
    values: Sequence[tuple[int, ...]],
    ignore: int | None,
) -> np.ndarray:
    """Return the probabilities given an annotation of some classes.

    >>> half = np.full((2, 2), 0.5)
    >>> complete_probabilities(half, np.array([0, 1]), [True, True], [(0,), (1,)], None)
    array([[1., 0.], [0., 1.]], dtype=float32)

    Args:
        probabilities: of the models, (C, *spatial).
        annotation: (*spatial); nothing is known where it is ``ignore``.
        is_annotated: for each output, whether the label annotates it.
        values: for each output, its values in the label; (0,) is the background of softmax
            classes.
        ignore: nnU-Net's ignore label, or None.

    Returns:
        (C, *spatial) float32: 1 or 0 for annotated classes; voxels without an annotated class share
        the models' probability among the other softmax classes.
    """
    is_known = np.ones(annotation.shape, bool) if ignore is None else annotation != ignore
    result = probabilities.astype(np.float32, copy=True)
    for output, (annotated, labels) in enumerate(zip(is_annotated, values, strict=True)):
        if annotated and labels != (0,):
            result[output] = np.where(is_known, np.isin(annotation, labels), result[output])
    if (0,) not in values:  # regions
        return result
    drawn = is_known & (annotation != 0)
    for output, (annotated, labels) in enumerate(zip(is_annotated, values, strict=True)):
        if labels == (0,) or not annotated:
            result[output][drawn] = 0
    total = result.sum(0)
    result[values.index((0,))][total <= 0] = 1  # models are sure of a class annotated as absent
    return result / np.where(total > 0, total, 1)
