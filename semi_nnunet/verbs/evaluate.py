"""``semi_nnunet evaluate``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import MORE, Flag, OutputFile, Processes, RareFlag, option

if TYPE_CHECKING:
    from semi_nnunet.evaluation.measuring import EvaluationResult

logger = logging.getLogger(__name__)


def evaluate(
    predictions: Annotated[Path, option("-i")],
    references: Annotated[Path, option("-r")],
    *,
    out: OutputFile = None,
    tolerances: Annotated[Sequence[float], option(several=True)] = (1.0, 2.0),
    class_tolerances: Annotated[Sequence[str], option(several=True, group=MORE)] = (),
    lesions: Annotated[Sequence[str], option(several=True)] = (),
    voxels: Flag = False,
    incomplete: RareFlag = False,
    dataset_json: Annotated[Path | None, option(group=MORE)] = None,
    missed_distance: Annotated[float | None, option(group=MORE)] = None,
    processes: Processes = 2,
) -> EvaluationResult:
    """Measure predictions against references: overlap, surfaces, volumes of every case and class.

        semi_nnunet evaluate -i predictions -r $nnUNet_raw/Dataset042_Pancreas/labelsTs

    Writes metrics.csv (one row for each case and class), metrics.json (with the means and a
    description of each column) and nnU-Net's summary.json. Distances are in mm on the native grid;
    for pictures (.png and the like), which have no spacing, in pixels. Surface metrics come in both
    common conventions, which give different numbers: *_edge as in MONAI and medpy, *_surfel as in
    DeepMind's surface-distance and FLARE. hd95_edge is the percentile of both directions together,
    as in medpy; MONAI takes the larger of the two. A class that neither mask shows is not counted.
    A class that only one mask shows has overlap 0 and, as distance, the diagonal of the image.
    --lesions any 0.5 also measures lesions (connected components): F1, sensitivity, precision and
    false positives, where two lesions match if they share a voxel, or have an IoU of at least 0.5;
    lesions.csv lists every lesion with its volume.

    Args:
        predictions: Folder of predicted files.
        references: Folder of reference files with the same names.
        out: Folder for the tables (default: the predictions' folder).
        tolerances: Distances in mm up to which surfaces agree, for NSD.
        class_tolerances: CLASS=MM, one tolerance for each class, as in FLARE: columns nsd_*_own.
        lesions: Rules by which lesions match: any, or the smallest IoU (default: "lesions" of
            dataset.json, usually none).
        voxels: Measure in voxels, as papers on LA and ACDC do.
        incomplete: Accept references without a prediction.
        dataset_json: Names the classes or regions (default: the one next to the predictions,
            written by nnUNetv2_predict, or the one of the references' data set).
        missed_distance: Distance in mm of a class that only one mask shows (default: the diagonal
            of the image).
        processes: Worker processes.

    Returns:
        The means and all cases, as written.

    Raises:
        UserError: files do not match, cannot be read, hold undeclared values or do not lie on the
            voxels of their reference.

    Example:
        >>> evaluate("predictions", "labelsTs", processes=1).cases
        2
    """
    from semi_nnunet.evaluation.measuring import evaluate_folders
    from semi_nnunet.evaluation.pieces import (
        ADVICE,
        DICE,
        ONLY_LARGEST,
        SCATTERED,
        describe_contradiction,
        improves,
    )
    from semi_nnunet.evaluation.tables import format_class_means, format_lesions
    from semi_nnunet.raw.layout import find_raw_description
    from semi_nnunet.util.names import format_count
    from semi_nnunet.workflows.next_step import format_next_lines, suggest_after_measuring

    measured = evaluate_folders(
        predictions,
        references,
        out=out,
        dataset_json=dataset_json,
        tolerances=tolerances,
        class_tolerances=class_tolerances,
        lesions=lesions,
        in_voxels=voxels,
        missed_distance=missed_distance,
        partial=incomplete,
        processes=processes,
    )
    logger.info(format_class_means(measured.content))
    tables = "metrics.csv, metrics.json and summary.json"
    if "lesions" in measured.content:
        logger.info(format_lesions(measured.content["lesions"]))
        tables = f"lesions.csv, {tables}"
    logger.info(f"{format_count(measured.cases, 'case')}; wrote {tables} to {measured.folder}")
    pieces, dice = measured.content.get("pieces"), measured.content["foreground_mean"]["dice"]
    if pieces == ONLY_LARGEST:
        logger.info(f"{ONLY_LARGEST}, as {measured.description} says")
        if wrong := describe_contradiction(measured.content):
            logger.warning(f"WARNING: {wrong}")
    elif pieces and DICE in pieces and improves(dice, pieces[DICE]):
        advice = ADVICE.format(find_raw_description(Path(measured.description)))
        logger.info(
            f"Each reference shows its foreground in one piece, and {pieces[SCATTERED]} of "
            f"{measured.cases} predictions do not. With only their largest piece, the mean Dice is "
            f"{pieces[DICE]:.3f} instead of {dice:.3f}. {advice}"
        )
    if next_commands := suggest_after_measuring(Path(predictions)):
        logger.info(format_next_lines(next_commands))
    return measured
