"""``semi_nnunet doctor``."""

from __future__ import annotations

import logging

from semi_nnunet.verbs.options import OptionalDataset

logger = logging.getLogger(__name__)


def doctor(dataset: OptionalDataset = None) -> int:
    """Check the installation and the folders, and name a fix for each problem.

        semi_nnunet doctor
        semi_nnunet doctor -d 42          is the data set ready to train on, and what comes next?

    Args:
        dataset: Number or name of a data set to look at.

    Returns:
        The number of things to fix.

    Raises:
        UserError: there is no such data set.
    """
    from semi_nnunet.discovery.doctor import examine
    from semi_nnunet.raw.layout import find_raw_dataset
    from semi_nnunet.util.names import format_count

    if dataset is not None:
        find_raw_dataset(dataset)  # report a wrong name before the slow import of PyTorch
    problems, next_commands = 0, list[str]()
    for finding in examine(with_datasets=dataset is None):
        logger.info(str(finding))
        problems += finding.fix is not None
    if dataset is not None:
        from semi_nnunet.workflows.before_start import examine_dataset

        findings, next_commands = examine_dataset(dataset)
        logger.info("\n".join(map(str, findings)))
        problems += sum(finding.fix is not None for finding in findings)
    if problems:
        logger.info(f"\n{format_count(problems, 'thing')} to fix")
    else:
        logger.info("\neverything is in place")
    if next_commands:
        from semi_nnunet.workflows.next_step import format_next_lines

        logger.info(format_next_lines(next_commands))
    return problems


def has_failed(result: int) -> bool:
    """Return whether there is something to fix."""
    return result > 0
