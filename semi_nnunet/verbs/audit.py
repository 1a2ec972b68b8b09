"""``semi_nnunet audit``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    MORE,
    Configurations,
    Folds,
    Model,
    OptionalDataset,
    Plans,
    Processes,
    Trainers,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.annotation.audit_list import LabelAudit

logger = logging.getLogger(__name__)


def audit(
    dataset: OptionalDataset = None,
    *,
    configurations: Configurations = None,
    trainers: Trainers = None,
    plans: Plans = "nnUNetPlans",
    folds: Folds = None,
    model: Model = None,
    out: Annotated[Path, option("-o")] = Path("audit.html"),
    pictures: Annotated[int, option(group=MORE)] = 30,
    processes: Processes = 1,
) -> LabelAudit:
    """List the labels to look at again, by their disagreement with predictions of crossval.

        semi_nnunet audit -d 42
        semi_nnunet audit -d 42 -c 3d_fullres -tr SemiBaselineTrainer -o audit.html
        semi_nnunet audit -m 42/SemiBaselineTrainer__nnUNetPlans__2d

    crossval predicts every labelled case with a network that has not seen its label. audit compares
    these predictions with the labels, and lists all labels, the most suspicious first: on the
    screen, in audit.csv (each class of each case), and with pictures in audit.html. A sentence says
    what is wrong: classes swapped, the label shifted, mirrored, too small or too large, a slice
    missing, or only an unusual difference. Scores are relative to the usual Dice of each class. If
    several trainings fit, their scores are averaged.

    The command refuses predictions that are missing, or were made from other labels.

    Args:
        dataset: Number or name of the data set.
        configurations: Only trainings of these configurations (default: all).
        trainers: Only trainings of these trainers (default: all).
        plans: Plans of the trainings; those of their seeds are used, too.
        folds: Audit only the validation cases of these folds (default: all).
        model: Folder TRAINER__PLANS__CONFIGURATION of the trainings, instead of -d, -c, -tr, -p.
        out: The HTML file; the .csv is written next to it.
        pictures: Number of labels that are shown as pictures.
        processes: Worker processes.

    Returns:
        The labels, the most suspicious first.

    Raises:
        UserError: there are no predictions, or they were made from other data or labels.

    Example:
        >>> audited = audit("42", plans="short", folds=["0"])
        >>> audited.labels[0].suspicion.score >= audited.labels[-1].suspicion.score
        True
    """
    from semi_nnunet.annotation.audit import ModelSelection, audit_labels
    from semi_nnunet.annotation.audit_list import format_first_labels

    selection = ModelSelection(configurations, trainers, plans, folds)
    audited = audit_labels(
        dataset, selection, model, out=out, pictures=pictures, processes=processes
    )
    logger.info(format_first_labels(audited))
    logger.info(f"wrote {audited.page} and {audited.table}")
    return audited
