"""The predictions of a cascade's first stage that its next stage needs: which are missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.util.errors import UserError


def missing_predictions(folder: str | None, cases: Sequence[str]) -> list[str]:
    """Cases without a stored prediction of the previous stage; none without such a stage."""
    if folder is None:
        return []
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return [case for case in cases if f"{case}.b2nd" not in there]


def require_predictions(folder: str | None, cases: Sequence[str], command: str) -> None:
    """Check that every case has a prediction of the previous stage.

    Raises:
        UserError: naming those that have none, and the command that makes them.
    """
    missing = missing_predictions(folder, cases)
    if missing:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise UserError(
            f"the cascade needs the previous stage's predictions in {folder}, they are missing for "
            f"{len(missing)} cases: {shown}",
            fix=f"{command}",
        )


def predicts_unlabelled(fold: int | str) -> bool:
    """Whether a fold's training predicts the unlabelled cases: one does, always the same."""
    return str(fold) in ("0", "all")


def never_validated(preprocessed: Path, fold: int | str) -> list[str]:
    """Pseudo-labelled training cases, which are in no validation: nnU-Net never predicts them.

    None of fold "all", which validates its training cases. A case that a person labelled has to be
    predicted by a fold that was not trained on it.
    """
    return [] if str(fold) == "all" else sorted(pseudo_labelled_cases(preprocessed))
