"""``semi_nnunet accept``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import MORE, Dataset, Flag, Processes, RareFlag, option

if TYPE_CHECKING:
    from semi_nnunet.annotation.accept import AcceptedRound

logger = logging.getLogger(__name__)


def accept(
    dataset: Dataset,
    reviewed: Annotated[Path | None, option("-i")] = None,
    *,
    proposals: Annotated[Path | None, option()] = None,
    replace: Flag = False,
    validate: Flag = False,
    undo: Flag = False,
    untouched: RareFlag = False,
    annotated: Annotated[Sequence[str], option(several=True, group=MORE)] = (),
    replan: RareFlag = False,
    processes: Processes = 1,
) -> AcceptedRound:
    """Accept reviewed labels: their cases become labelled cases, without planning again.

        semi_nnunet accept -d 42 -i reviewed
        semi_nnunet accept -d 42 -i reviewed --proposals predictions
        semi_nnunet accept -d 42 --undo

    A label CASE.ending of an unlabelled case is copied to labelsTr, and its images move from
    imagesUn to imagesTr. dataset.json, the folds and the preprocessed data follow; only the new
    cases are preprocessed. Plans stay as they are, so that trained weights fit and derived plans
    stay valid. Validation cases stay where they are, and new cases are trained on in every fold,
    except those of a patient or near-twin that the fold validates on.

    All labels are checked against their images first; if anything is wrong, everything is named
    and nothing is moved. If the command is interrupted, the same command finishes it. The rounds
    are listed in annotation_rounds.json.

    Args:
        dataset: Number or name of the data set.
        reviewed: Folder of the reviewed labels, which stay there.
        proposals: Folder of the labels as models wrote them, to find those that were not changed
            (default: what is recorded next to the reviewed labels).
        replace: Also correct the labels of labelled cases.
        validate: New cases become validation cases of the smallest fold.
        undo: Take the last round back.
        untouched: Accept proposals in which no voxel was changed.
        annotated: Classes that the labels annotate (default: as dataset.json says, else all).
        replan: Plan and preprocess again with the new labels, and say what changed.
        processes: Worker processes.

    Returns:
        The round.

    Raises:
        UserError: with every label that cannot be accepted; or there is no round to take back.
    """
    from semi_nnunet.annotation.accept import (
        AcceptOptions,
        accept_labels,
        describe_outdated,
        take_last_round_back,
    )
    from semi_nnunet.raw.layout import find_raw_dataset
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.util.names import format_count, require_positive

    require_positive({"-np": processes})
    find_raw_dataset(dataset)
    folders = find_folders(dataset)
    if undo:
        round_ = take_last_round_back(folders)
        logger.info(f"round {round_.number} is taken back")
        return round_
    options = AcceptOptions(
        replaces=replace,
        keeps_untouched=untouched,
        validates=validate,
        classes=tuple(annotated),
        replans=replan,
        processes=processes,
    )
    round_ = accept_labels(folders, reviewed, proposals, options)
    if round_.number:
        logger.info(
            f"round {round_.number}: labelled {format_count(round_.added, 'case')}, and corrected "
            f"{format_count(round_.corrected, 'label')}"
        )
    for change in round_.plan_changes:
        logger.info(f"planned again: {change}")
    if warning := describe_outdated(round_):
        logger.info(f"{warning}. Train them again, or continue from them (continue_from=MODEL)")
    if not (folders.preprocessed / "dataset.json").is_file():
        logger.info(f"next: semi_nnunet preprocess -d {dataset}")
    return round_
