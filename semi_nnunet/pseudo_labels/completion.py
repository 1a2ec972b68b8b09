"""Labels that annotate some of the classes, completed by what models say of the others.

What people annotated stays: an organ where they drew it, and no such organ elsewhere. The models
choose among the background and the classes that were not annotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_nnunet.data.annotated_classes import KEY, AnnotatedClasses, is_partial
from semi_nnunet.pseudo_labels.predictor import Prediction
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json


@dataclass(frozen=True)
class Completion:
    """The labels of people, and what they annotate.

    Args:
        labels: folder of them, CASE.ending; images without one are labelled by the models alone.
        annotated: which classes each of them annotates.
        file_ending: of the files.
    """

    labels: Path
    annotated: AnnotatedClasses
    file_ending: str

    @classmethod
    def of(cls, labels: Path, dataset_json: dict[str, Any]) -> Completion:
        """The labels of a folder.

        Args:
            labels: the folder; a dataset.json beside it tells what each case annotates.
            dataset_json: of a model; it tells that where there is none beside the folder.

        Raises:
            UserError: neither tells anything, or the folder has no label.
        """
        beside = optional_json(labels.parent / "dataset.json")
        told = beside if is_partial(beside) else dataset_json
        annotated, ending = AnnotatedClasses.of(told), dataset_json["file_ending"]
        if annotated is None:
            raise UserError(
                f"--complete needs {KEY!r} in the dataset.json of the labels or of the model, to "
                f"know the classes that each case annotates, and neither has it",
                fix="leave --complete out, or add it",
            )
        if not any(labels.glob(f"*{ending}")):
            raise UserError(f"{labels} holds no label *{ending}", fix="correct --complete")
        return cls(labels, annotated, ending)

    def file_of(self, case: str) -> Path | None:
        """The label of a case, if there is one."""
        path = self.labels / f"{case}{self.file_ending}"
        return path if path.is_file() else None

    def __call__(self, case: str, prediction: Prediction, reader: Any, manager: Any) -> Prediction:
        """What models and people say together.

        Args:
            case: its identifier.
            prediction: of the models.
            reader: nnU-Net's.
            manager: nnU-Net's label manager.

        Raises:
            ValueError: the label does not lie on the voxels of the image.
        """
        if (path := self.file_of(case)) is None:
            return prediction
        known = np.asarray(reader.read_seg(str(path))[0][0])
        if known.shape != prediction.labels.shape:
            raise ValueError(
                f"{path} must lie on the voxels of its image, {prediction.labels.shape}, got "
                f"{known.shape}"
            )
        row = self.annotated.rows([case], torch.device("cpu"))[0].tolist()
        probabilities = completed(
            prediction.probabilities,
            known,
            row,
            [*self.annotated.outputs()],
            manager.ignore_label,
        )
        labels = np.asarray(manager.convert_probabilities_to_segmentation(probabilities))
        return replace(
            prediction, probabilities=probabilities, labels=labels.astype(prediction.labels.dtype)
        )


def completed(
    probabilities: np.ndarray,
    known: np.ndarray,
    annotated: Sequence[bool],
    values: Sequence[tuple[int, ...]],
    ignore: int | None,
) -> np.ndarray:
    """The probabilities that are left where some classes are known.

    Args:
        probabilities: of the models, (C, *spatial).
        known: the label of people (*spatial); nothing is known where it is ``ignore``.
        annotated: of each output, whether the label annotates it.
        values: of each output, the values of the label that are it; (0,) is the background of
            softmax classes.
        ignore: nnU-Net's ignore label, or None.

    Returns:
        (C, *spatial) float32: 1 or 0 for what is annotated; where no annotated class is, softmax
        classes share the probability that the models give to the others.
    """
    told = np.ones(known.shape, bool) if ignore is None else known != ignore
    found = probabilities.astype(np.float32, copy=True)
    regions = (0,) not in values
    for output, (is_told, own) in enumerate(zip(annotated, values, strict=True)):
        if is_told and own != (0,):
            found[output] = np.where(told, np.isin(known, own), found[output])
    if regions:
        return found
    drawn = told & (known != 0)
    for output, (is_told, own) in enumerate(zip(annotated, values, strict=True)):
        if own == (0,) or not is_told:
            found[output][drawn] = 0
    total = found.sum(0)
    found[values.index((0,))][total <= 0] = 1  # the models are sure of a class that is not there
    return found / np.where(total > 0, total, 1)
