"""``semi_nnunet report``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.verbs.options import FIRST, MORE, Plans, one_of, option

if TYPE_CHECKING:
    from semi_nnunet.reporting.page import WrittenReport

logger = logging.getLogger(__name__)
SOURCE = one_of()


def report(
    dataset: Annotated[str | None, option("-d", group=(FIRST, SOURCE))] = None,
    *,
    plans: Plans = DEFAULT_PLANS,
    out: Annotated[Path, option("-o")] = Path("report.html"),
    values: Annotated[Sequence[Path], option(several=True, group=(FIRST, SOURCE))] = (),
    metric: Annotated[str, option()] = "dice",
    baseline: Annotated[str, option(group=MORE)] = BASELINE,
    choice: Annotated[Path | None, option(group=MORE)] = None,
    efficiency: Annotated[Sequence[Path], option(several=True, group=MORE)] = (),
) -> WrittenReport:
    """Write one HTML file that answers whether the methods help, and shows their errors.

        semi_nnunet report -d 42
        semi_nnunet report -d 42 -p nnUNetPlans_cpu --baseline nnUNetTrainer -o report.html
        semi_nnunet report --values here.csv there.csv

    The report covers what was trained with the plans (and their seeds) in nnUNet_results: the
    answer first, then methods and classes, every case, pictures of the worst, median and best case,
    the curves of every training, the filtering of unlabelled images, plans and settings. From files
    of semi_nnunet compare --write-values, which need no trainings, it has the answer, methods and
    classes, and every case. It opens without network.

    Args:
        dataset: Number or name of the data set.
        plans: Plans of the trainings; those of their seeds are found, too.
        out: The HTML file.
        values: Files of semi_nnunet compare --write-values, instead of -d.
        metric: A column of metrics.csv.
        baseline: Trainer to compare with.
        choice: choice.json of semi_nnunet auto: how the method was chosen.
        efficiency: Folders of semi_nnunet efficiency: what submissions cost.

    Returns:
        Where the report is, and its answer.

    Raises:
        UserError: nothing was measured, a name is unknown, or the file cannot be written.

    Example:
        >>> report("42", plans="short").path.name
        'report.html'
    """
    from semi_nnunet.reporting.page import write_report_page

    written = write_report_page(
        dataset,
        values=values,
        plans=plans,
        baseline=baseline,
        metric=metric,
        choice=choice,
        efficiency=efficiency,
        out=out,
    )
    logger.info("\n".join((written.headline, *written.sentences)))
    logger.info(f"wrote {written.path} ({written.size / 2**20:.1f} MB)")
    return written
