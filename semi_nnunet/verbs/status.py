"""``semi_nnunet status``."""

from __future__ import annotations

import logging

from semi_nnunet.verbs.options import Dataset, OptionalPlans

logger = logging.getLogger(__name__)


def status(dataset: Dataset, plans: OptionalPlans = None) -> list[str]:
    """Show which trainings of a data set are done, running, begun and still to come.

        semi_nnunet status -d 42

    The command reads the files of the trainings, so it also shows what another machine, or
    nnU-Net's own commands, trained there. It estimates the time left. Whether data or settings have
    changed since, semi_nnunet compare and crossval say.

    Args:
        dataset: Number or name of the data set.
        plans: Only trainings with these plans (default: any).

    Returns:
        A line for each training, below the name of its plans, and one for all of them.

    Raises:
        UserError: there is no such data set, or nothing was trained with these plans, though with
            others.

    Example:
        >>> status("42")[0]
        'short:'
    """
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.workflows.next_step import format_next_lines, suggest_for_dataset
    from semi_nnunet.workflows.status import report_trainings as list_trainings

    lines = list_trainings(dataset, plans)
    logger.info("\n".join(lines))
    if next_commands := suggest_for_dataset(find_folders(dataset), plans):
        logger.info(format_next_lines(next_commands))
    return lines
