"""``semi_nnunet status``."""

from __future__ import annotations

import logging

from semi_nnunet.verbs.options import Dataset, OptionalPlans

logger = logging.getLogger(__name__)


def status(dataset: Dataset, plans: OptionalPlans = None) -> list[str]:
    """Show which trainings of a data set are done, running, begun and still to come.

        semi_nnunet status -d 42

    The command reads the files of the trainings, so it also shows what another machine, or
    nnU-Net's own commands, trained there. It estimates the time left, and warns of trainings whose
    data have changed since. Whether settings have changed, semi_nnunet crossval says.

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
    from semi_nnunet.raw.layout import find_unfinished_round
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.runs.trainings import find_jobs
    from semi_nnunet.workflows.matched import find_outdated_trainings
    from semi_nnunet.workflows.next_step import format_next_lines, suggest_for_dataset
    from semi_nnunet.workflows.status import report_trainings as list_trainings

    lines = list_trainings(dataset, plans)
    logger.info("\n".join(lines))
    folders = find_folders(dataset)
    problems = find_outdated_trainings(folders, find_jobs(folders, plans))
    problems += find_unfinished_round(folders.raw)
    for problem in problems:
        logger.warning(problem.as_warning())
    if not problems and (next_commands := suggest_for_dataset(folders, plans)):
        logger.info(format_next_lines(next_commands))
    return lines
