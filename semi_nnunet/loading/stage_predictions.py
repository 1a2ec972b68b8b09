"""Predictions of a cascade's first stage that its next stage needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from semi_nnunet.preprocessing.manifest import read_sources
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.raw.layout import STAGE_IMAGES
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json
from semi_nnunet.util.names import format_count, list_first


def find_missing_predictions(folder: str | None, cases: Sequence[str]) -> list[str]:
    """Return the cases without a stored prediction of the previous stage, in ``folder``.

    >>> find_missing_predictions(None, ["a"])  # a configuration without a previous stage
    []
    """
    if folder is None:
        return []
    files = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return [case for case in cases if f"{case}.b2nd" not in files]


def read_images(case_folder: str | Path, cases: Sequence[str]) -> dict[str, str]:
    """Return case -> short hash of its image, of cases preprocessed by this package."""
    sources = read_sources(case_folder, cases)
    return {case: source.split("-")[0] for case, source in sources.items()}


def find_outdated_predictions(folder: str | None, images: Mapping[str, str]) -> list[str]:
    """Return the cases whose image has changed since the previous stage predicted it.

    Folds of our trainers record the images that they predict; of other predictions nothing is
    known.

    Args:
        folder: of the predictions, None without a previous stage.
        images: case -> short hash of its image now.
    """
    if folder is None:
        return []
    predicted: dict[str, set[str]] = {}
    for record in Path(folder).parents[1].glob(f"fold_*/{STAGE_IMAGES}"):
        for case, image in optional_json(record).items():
            predicted.setdefault(case, set()).add(image)
    return [case for case, image in images.items() if image not in predicted.get(case, {image})]


def require_predictions(
    folder: str | None, cases: Sequence[str], case_folder: str | Path, command: str
) -> None:
    """Raise a UserError if predictions of the previous stage are missing, or of earlier images.

    Args:
        folder: of the predictions, None without a previous stage.
        cases: the cases to be predicted.
        case_folder: of the preprocessed cases.
        command: makes the predictions; the fix of the error.
    """
    if folder is None:
        return
    if outdated := find_outdated_predictions(folder, read_images(case_folder, cases)):
        raise UserError(
            f"the previous stage's predictions in {folder} are of images that have changed since: "
            f"{list_first(outdated, 10)}",
            fix=command,
        )
    if missing := find_missing_predictions(folder, cases):
        raise UserError(
            f"the cascade needs the previous stage's predictions in {folder}, they are missing for "
            f"{format_count(missing, 'case')}: {list_first(missing, 10)}",
            fix=command,
        )


def predicts_unlabelled(fold: int | str) -> bool:
    """Return whether a fold's training predicts the unlabelled cases; fold 0 and "all" do."""
    return str(fold) in ("0", "all")


def list_never_validated(preprocessed: Path, fold: int | str) -> list[str]:
    """Return the training cases that nnU-Net never predicts, as they are in no validation.

    These are the pseudo-labelled cases; none for fold "all", which validates its training cases. A
    case that a person labelled must be predicted by a fold that was not trained on it.
    """
    return [] if str(fold) == "all" else sorted(read_pseudo_labelled_cases(preprocessed))
