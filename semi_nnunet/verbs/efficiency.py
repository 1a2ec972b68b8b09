"""``semi_nnunet efficiency``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import MORE, Images, OutputFolder, option

if TYPE_CHECKING:
    from semi_nnunet.challenge.efficiency import EfficiencyResult

logger = logging.getLogger(__name__)


def efficiency(
    images: Images,
    out: OutputFolder,
    *,
    command: Annotated[str, option()],
    references: Annotated[Path | None, option("-r")] = None,
    limit: Annotated[float | None, option()] = None,
    class_tolerances: Annotated[Sequence[str], option(several=True, group=MORE)] = (),
    ending: Annotated[str, option(group=MORE)] = ".nii.gz",
) -> EfficiencyResult:
    """Measure the cost of a submission for each case, as FLARE does: time and areas under curves.

        semi_nnunet efficiency -i imagesTs -o measured --command "semi_nnunet predict --fast \\
            -m MODEL -i {inputs} -o {outputs}"
        semi_nnunet efficiency -i imagesTs -r labelsTs -o measured --command \\
            "docker run --rm -v {inputs}:/workspace/inputs/ -v {outputs}:/workspace/outputs/ NAME \\
            /bin/bash -c 'sh predict.sh'"

    Runs the command once for each case, with the folders of the case for {inputs} and {outputs},
    so that its start counts. Meanwhile it samples the processors' use (user and system time of the
    whole machine), the memory and the GPU memory every 0.1 s: nothing else should run. Areas under
    these curves are in percent x seconds and MiB x seconds. Writes efficiency.csv,
    efficiency.json, log.txt and outputs/. Cases that fail, take longer than --limit or were
    sampled too rarely are named, and the exit status is not 0. The same command continues after an
    interruption.

    Args:
        images: Folder of files CASE_0000.ending.
        out: New folder for the measurements.
        command: Command that reads {inputs} and writes {outputs}.
        references: Folder of true labels, to measure Dice and NSD, too.
        limit: Seconds after which a case is ended (default: none; FLARE22: 60).
        class_tolerances: CLASS=MM for NSD, one for each class (default: 1 mm).
        ending: Ending of the files.

    Returns:
        The cost of each case, and the problems.

    Raises:
        UserError: naming everything that is wrong with the command, the images, the references or
            the output folder.

    Example:
        >>> command = "python segment.py {inputs} {outputs}"
        >>> len(efficiency("imagesTs", "measured", command=command).cases)
        2
    """
    from semi_nnunet.challenge.efficiency import format_mean_costs, measure_efficiency
    from semi_nnunet.util.names import format_count

    measured = measure_efficiency(
        command,
        images,
        out,
        references=references,
        class_tolerances=class_tolerances,
        ending=ending,
        limit=limit,
    )
    logger.info(f"mean of {format_count(measured.cases, 'case')}:\n{format_mean_costs(measured)}")
    for problem in measured.problems:
        logger.info(str(problem))
    return measured


def has_failed(result: EfficiencyResult) -> bool:
    """Return whether a case failed."""
    return bool(result.problems)
