"""How often each training case is drawn, where some labels are a model's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from semi_nnunet.data.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json


def pseudo_labelled_cases(preprocessed: str | Path) -> set[str]:
    """The training cases whose labels are a model's, as semi_nnunet distil lists them."""
    path = Path(preprocessed) / PSEUDO_LABELLED_FILE
    return set(read_json(path)) if path.is_file() else set()


def sampling_probabilities(
    cases: Sequence[str], pseudo_labelled: Collection[str], labelled_share: float | None
) -> np.ndarray | None:
    """The probability of each case, float64 of the length of ``cases``, for nnU-Net's loader.

    Args:
        cases: that are trained on.
        pseudo_labelled: those whose labels are a model's, and others.
        labelled_share: of the patches that come from cases with labels of people; None: as many as
            there are of these cases, as nnU-Net does.

    Returns:
        None where every case is as likely.

    Raises:
        UserError: there are cases of one kind alone.
    """
    if labelled_share is None:
        return None
    is_pseudo = np.array([case in pseudo_labelled for case in cases])
    count = is_pseudo.sum()
    if count in (0, len(cases)):
        which = "all" if count else "none"
        raise UserError(
            f"labelled_share needs training cases with labels of people and others with pseudo "
            f"labels, got {labelled_share} where {which} of {len(cases)} are pseudo-labelled",
            fix="leave it out of plans['semi'], or train on a data set of semi_nnunet distil",
        )
    share, others = labelled_share / (len(cases) - count), (1.0 - labelled_share) / count
    return np.where(is_pseudo, others, share)
