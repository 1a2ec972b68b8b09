"""Complete labels that annotate only some of the classes with predictions for the others.

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

from semi_nnunet.pseudo_labels.predictor import Prediction
from semi_nnunet.raw.classes import ANNOTATED_KEY, AnnotatedClasses, has_partial_labels
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json


@dataclass(frozen=True)
class LabelCompletion:
    """A folder of partial labels that predictions complete.

    Args:
        labels: folder of CASE.ending; images without such a file are labelled by models only.
        annotated: classes that each of them annotates.
        file_ending: of the files.
    """

    labels: Path
    annotated: AnnotatedClasses
    file_ending: str

    @classmethod
    def from_folder(cls, labels: Path, dataset_json: dict[str, Any]) -> LabelCompletion:
        """Find out which classes the labels of a folder annotate.

        Args:
            labels: the folder; a dataset.json next to it describes what each case annotates.
            dataset_json: of a model, used if there is no such file next to the folder.

        Raises:
            UserError: neither describes it, or the folder has no label.
        """
        own_json = optional_json(labels.parent / DATASET_JSON)
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
        return cls(labels, annotated, ending)

    def find_label(self, case: str) -> Path | None:
        """Return the label of a case, or None."""
        path = self.labels / f"{case}{self.file_ending}"
        return path if path.is_file() else None

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
            label_manager.ignore_label,
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
