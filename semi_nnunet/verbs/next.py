"""``semi_nnunet next``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from semi_nnunet.verbs.options import (
    JOBS,
    MORE,
    ComputeDevice,
    Dataset,
    Models,
    Processes,
    Views,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.annotation.next_cases import NextCases

logger = logging.getLogger(__name__)


def next(
    dataset: Dataset,
    *,
    count: Annotated[int, option("-n")] = 5,
    models: Models = (),
    rule: Annotated[Literal["typical", "uncertain", "random"] | None, option()] = None,
    out: Annotated[Path, option("-o")] = Path("next.html"),
    views: Views = (),
    seed: Annotated[int, option(group=MORE)] = 0,
    processes: Processes = 1,
    device: ComputeDevice = None,
    jobs: Annotated[int | None, option(group=JOBS)] = None,
) -> NextCases:
    """Choose the unlabelled cases to annotate next.

        semi_nnunet next -d 42 -n 5
        semi_nnunet next -d 42 -n 5 -m 42/SemiUnifiedTrainer__nnUNetPlans__3d_fullres
        semi_nnunet next -d 42 -n 5 -m MODEL OTHER_MODEL --rule uncertain

    The images of imagesUn fall into as many groups of similar images as cases are wanted; the
    groups cover what the labelled images do not show. Each group gives one case: its most typical
    one, or with models an uncertain one. Several models measure their disagreement, one model the
    entropy of its labels. No two cases are of one patient or near-twins, and none is of a labelled
    patient.

    A page shows each case with the reason, a table next to it lists them. After annotation, accept
    takes the labels into the data set.

    Args:
        dataset: The data set with imagesUn. It may have no label yet.
        count: Number of cases.
        models: Folders of trained models.
        rule: What each group gives: its typical case, an uncertain one, or, without groups, random
            cases (default: uncertain with models, else typical).
        out: HTML file of the cases; the .csv is written next to it.
        views: Changed views of each image whose predictions are averaged.
        seed: Of the random numbers; another seed gives other uncertain and random cases.
        processes: Worker processes that read images which preprocess has not read.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Processes that label (default: one for each GPU; 1 on the CPU).

    Returns:
        The cases, in the order of their choice.

    Raises:
        UnfinishedError: models could not label the images.
        UserError: there is no such data set, no unlabelled image, or a model does not fit.

    Example:
        >>> chosen = next("42", count=2)
        >>> len({item.case.case for item in chosen.cases})
        2
    """
    from semi_nnunet.annotation.next_cases import find_next_cases
    from semi_nnunet.runs.launching import JobLauncher

    chosen = find_next_cases(
        dataset, count, list(models), views=list(views), rule=rule, seed=seed, out=out,
        launcher=JobLauncher(device=device, jobs=jobs), processes=processes,
    )  # fmt: skip
    for number, item in enumerate(chosen.cases, start=1):
        logger.info(f"{number}. {item.case.case}: {item.reason}")
    logger.info(f"wrote {chosen.page} and {chosen.table}")
    if chosen.proposals:
        logger.info(f"labels of the models, to be corrected: {chosen.proposals}")
    logger.info(f"next: annotate them, then semi_nnunet accept -d {dataset} -i FOLDER_OF_LABELS")
    return chosen
