"""``semi_nnunet auto``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    Dataset,
    Flag,
    Launcher,
    OptionalConfiguration,
    OutputFile,
    Trainers,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.automatic.run import ExportedModel

logger = logging.getLogger(__name__)


def auto(
    dataset: Dataset,
    *,
    hours: Annotated[float, option()] = 8.0,
    configuration: OptionalConfiguration = None,
    trainers: Trainers = None,
    out: OutputFile = None,
    dry_run: Flag = False,
    launcher: Launcher | None = None,
) -> ExportedModel | None:
    """Go from a raw data set to the model with the highest expected Dice, in a budget of hours.

        semi_nnunet auto -d 42 --hours 8
        semi_nnunet auto -d 42 --hours 8 --dry-run
        semi_nnunet auto -d 42 -c 3d_fullres -tr SemiUnifiedTrainer SemiCPSTrainer

    The command verifies, plans and preprocesses the data, measures a few steps of every candidate
    on this device (or uses an earlier semi_nnunet benchmark), and prints how it divides the hours.
    All candidates and the supervised baseline train briefly, the better half twice as long, and
    the best candidate at least four times as long, with a baseline of the same time. Cases that
    did not choose the method then decide: labelled test cases, or validation cases of other folds.
    The folder auto_NAME (with -c auto_NAME_CONFIGURATION) holds the exported model for stock
    nnU-Net, the predictions of imagesTs, the report, and a README.md that begins with the answer.
    Every step is a command that is printed and that you could type. If it is interrupted, the same
    command continues; --hours counts over restarts.

    Args:
        dataset: Number or name of the data set.
        hours: Hours to spend, counted over restarts.
        configuration: Such as 2d (default: 3d_fullres for volumes on a GPU, else 2d).
        trainers: Candidates, the most promising first (default: the unified method, FixMatch,
            Mean Teacher and distillation). The baseline always takes part.
        out: Folder for the model, the predictions and the report (default: auto_NAME, with -c
            auto_NAME_CONFIGURATION).
        dry_run: Print the table and the commands, and do nothing.
        launcher: Where the trainings run; None: on this machine.

    Returns:
        What is exported; None with ``dry_run``, or if the trainings were handed to a cluster.

    Raises:
        UserError: the options or the data are wrong, another process works on it, the time is too
            short, or a stage failed.

    Example:
        >>> auto("42", hours=2, dry_run=True)  # prints the commands
    """
    from semi_nnunet.automatic import run
    from semi_nnunet.discovery.names import BASELINE
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.util.names import unique

    folders, jobs = find_folders(dataset), (launcher or Launcher()).for_jobs()
    candidates = unique([name for name in trainers or run.CANDIDATES if name != BASELINE])
    name = f"auto_{folders.raw.name}" + (f"_{configuration}" if configuration else "")
    target = Path(out or name).absolute()
    run.require_valid_options(hours, candidates, target, folders.raw.name)
    auto_run = run.AutoRun.of(folders, configuration, candidates, hours, jobs, target)
    if dry_run:
        auto_run.show_commands()
        return None
    model = auto_run.execute_alone()
    if model is not None:
        logger.info(f"\n{model.answer}\n{model.trainer} is in {model.folder}")
    return model
