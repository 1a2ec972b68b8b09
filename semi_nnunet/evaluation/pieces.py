"""Connected pieces of the foreground: keep the largest one, and measure what that changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import (
    remove_all_but_largest_component_from_segmentation,
)

from semi_nnunet.core.components import label_components
from semi_nnunet.raw.pieces import ONE_PIECE_KEY

REFERENCES, SCATTERED = "references in several pieces", "predictions in several pieces"
DICE = "dice of the largest pieces"
ONLY_LARGEST = "only the largest piece of each prediction is measured"
CHANGE = 0.001  # rise of a mean Dice, from which on pieces are mentioned
ADVICE = (
    f'If the foreground of every image is one piece, write "{ONE_PIECE_KEY}": true into '
    "{}, and measure again (docs/prediction.md)."
)


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of all foreground of a case.

    Args:
        reference: their number in the reference.
        predicted: their number in the prediction; 0 if the reference has several, as it then does
            not matter.
    """

    reference: int
    predicted: int


def keep_largest_component(labels: np.ndarray, foreground: Collection[int]) -> np.ndarray:
    """Return labels in which foreground outside its largest connected component is background.

    That is the first step of nnU-Net's postprocessing.

    >>> keep_largest_component(np.array([[1, 2, 0, 0, 2]]), [1, 2]).tolist()
    [[1, 2, 0, 0, 0]]

    Args:
        labels: integers of any shape.
        foreground: their values that are not background.
    """
    kept: np.ndarray = remove_all_but_largest_component_from_segmentation(labels, [*foreground])
    return kept


def count_pieces(prediction: np.ndarray, reference: np.ndarray) -> Pieces:
    """Count the connected pieces of a prediction and its reference.

    Pieces of the prediction are not counted if the reference has several.

    >>> one, two = np.array([[0, 1, 1, 0]]), np.array([[1, 0, 0, 1]])
    >>> count_pieces(two, one), count_pieces(one, two)
    (Pieces(reference=1, predicted=2), Pieces(reference=2, predicted=0))

    Args:
        prediction, reference: of the same shape (Y, X) or (Z, Y, X), True in all foreground.
    """
    theirs = int(label_components(reference).max(initial=0))
    return Pieces(theirs, int(label_components(prediction).max(initial=0)) if theirs <= 1 else 0)


def count_cases(content: Mapping[str, Any]) -> int:
    """Return the number of cases of a ``metrics.json``."""
    return len({row["case"] for row in content["cases"]})


def describe_contradiction(content: Mapping[str, Any]) -> str:
    """Return a sentence if references contradict "one_piece", else "".

    Args:
        content: of a ``metrics.json``.
    """
    if not (several := content.get(REFERENCES)):
        return ""
    return (
        f"{several} of {count_cases(content)} references show their foreground in several pieces, "
        f'so "{ONE_PIECE_KEY}" in dataset.json of the raw data set is wrong, and predictions lose '
        "all but one. Fix: remove it, then semi_nnunet preprocess"
    )


def improves(whole: float, largest: float) -> bool:
    """Return whether a mean Dice rises by a tenth of a point or more with the largest pieces.

    >>> improves(0.812, 0.8125), improves(0.812, 0.822), improves(0.812, 0.802)
    (False, True, False)
    """
    return largest - whole >= CHANGE
