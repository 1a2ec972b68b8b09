"""``semi_nnunet compare``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.verbs.options import (
    MORE,
    Configurations,
    OptionalDataset,
    OutputFile,
    Plans,
    Trainers,
    option,
)

logger = logging.getLogger(__name__)


def compare(
    dataset: OptionalDataset = None,
    *,
    plans: Plans = DEFAULT_PLANS,
    configurations: Configurations = None,
    trainers: Trainers = None,
    metric: Annotated[str, option()] = "dice",
    baseline: Annotated[str, option(group=MORE)] = BASELINE,
    values: Annotated[Sequence[Path], option(several=True, group=MORE)] = (),
    out: OutputFile = None,
    write_values: Annotated[Path | None, option(group=MORE)] = None,
) -> str:
    """Report whether trainers beat the baseline: paired by case, over folds and seeds.

        semi_nnunet compare -d 42
        semi_nnunet compare -d 42 --metric nsd_surfel_2mm --baseline nnUNetTrainer
        semi_nnunet compare -d 42 --write-values here.csv
        semi_nnunet compare --values here.csv there.csv

    The command reads what was trained with the plans (and their seeds) in nnUNet_results. The
    difference of a case is the mean over its classes, and over the folds and seeds that predicted
    it. Cases of one patient count as one, if dataset.json names patients. The mean comes with a
    95 % bootstrap interval over cases and, if there are several, seeds, and with Wilcoxon's test,
    corrected for the number of trainers (of single classes: trainers x classes; Holm). "better"
    needs both, and at least 500 steps of training: with fewer, no verdict is given. Overlaps are in
    points (hundredths). Methods with fewer seeds than others come last and are not ranked with
    them. If a training invents a class that a case does not show, trainings that find
    nothing there count as perfect. Trainings whose steps, batches, labelled cases or other common
    settings differ from their baseline's are named. Nothing but the numbers is known of --values.
    The best model is chosen on validation cases, never on imagesTs.

    Args:
        dataset: Number or name of the data set.
        plans: Plans of the trainings; those of their seeds are found, too.
        configurations: Only these configurations.
        trainers: Only these trainers and the baseline.
        metric: A column of metrics.csv.
        baseline: Trainer to compare with.
        values: Files of --write-values to compare, in addition to -d or without it.
        out: Also write the tables to this Markdown file.
        write_values: Write every compared value to this CSV file.

    Returns:
        The tables and their notes, as Markdown.

    Raises:
        UserError: a name is unknown, a file cannot be read, or nothing was measured.

    Example:
        >>> compare("42", plans="short").splitlines()[0]
        '## validation cases'
    """
    from semi_nnunet.workflows.compare import NothingToCompareError, compare_trainings

    try:
        text = compare_trainings(
            dataset,
            plans=plans,
            configurations=configurations,
            trainers=trainers,
            baseline=baseline,
            metric=metric,
            values=values,
            out=out,
            write_values_to=write_values,
        )
    except NothingToCompareError as error:
        logger.info("\n".join(error.notes))
        raise
    logger.info(text.rstrip("\n"))
    if dataset is not None:
        logger.info(f"next: semi_nnunet report -d {dataset} -p {plans}")
    return text
