"""``semi_nnunet ensemble``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.discovery.names import DEFAULT_PLANS
from semi_nnunet.verbs.options import (
    Configurations,
    Dataset,
    Folds,
    OutputFolder,
    Plans,
    Processes,
    Trainers,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.workflows.ensemble import EnsembledSubset

logger = logging.getLogger(__name__)


def ensemble(
    dataset: Dataset,
    out: OutputFolder,
    *,
    plans: Plans = DEFAULT_PLANS,
    configurations: Configurations = None,
    trainers: Trainers = None,
    folds: Folds = None,
    only_seeds: Annotated[Sequence[int] | None, option(several=True)] = None,
    weights: Annotated[Sequence[str] | None, option(several=True)] = None,
    processes: Processes = 2,
) -> list[EnsembledSubset]:
    """Average what trainers, configurations, folds and seeds predict, and measure the result.

        semi_nnunet crossval -d 42 -c 2d 3d_fullres -tr SemiUnifiedTrainer SemiCPSTrainer --npz
        semi_nnunet ensemble -d 42 -tr SemiUnifiedTrainer SemiCPSTrainer -o together
        semi_nnunet ensemble -d 42 -tr SemiUnifiedTrainer -c 2d 3d_fullres --weights 1 2 -o weighted

    The members are all trainings with the plans and their seeds that match the options. nnU-Net
    averages their probabilities: for imagesTs those of all members, for validation cases those of
    the members of their fold. Choose members and weights by the validation cases, not by the test.

    Args:
        dataset: Number or name of the data set.
        out: Folder for test/ and validation/.
        plans: Plans identifier; those of its seeds are found, too.
        configurations: Only these (default: all).
        trainers: Only these (default: all).
        folds: Only these (default: all that were trained).
        only_seeds: Only these seeds (default: all that were trained).
        weights: Whole numbers: how often each trainer with each configuration counts, or each of
            their folds and seeds (default: once).
        processes: Worker processes.

    Returns:
        The ensembles: of the validation cases, then of imagesTs.

    Raises:
        UserError: a name is unknown, nothing matches, the members lack probabilities, or ``out``
            holds something else.

    Example:
        >>> ensembles = ensemble("42", "together", plans="short", processes=1)
        >>> [(average.subset, average.members) for average in ensembles]
        [('validation', 2), ('test', 2)]
    """
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.util.names import require_positive
    from semi_nnunet.workflows.ensemble import average_members, choose_members

    require_positive({"-np": processes})
    folders = find_folders(dataset)
    selection = {
        "trainer": trainers, "configuration": configurations, "fold": folds, "seed": only_seeds,
    }  # fmt: skip
    members = choose_members(folders, plans, selection, weights)
    ensembles = []
    for averaged in average_members(folders, members, Path(out), processes):
        ensembles.append(averaged)
        if averaged.dice:
            logger.info(f"\nmean Dice of the {averaged.subset} cases")
        for member, dice in averaged.dice.items():
            value = "not measured" if dice is None else f"{dice:.4f}"
            logger.info(f"  {member:<60}{value}")
    return ensembles
