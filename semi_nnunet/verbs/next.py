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
    Flag,
    Models,
    Processes,
    Views,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.annotation.choosing import AnnotationChoice

logger = logging.getLogger(__name__)


def next(
    dataset: Dataset,
    number: Annotated[int, option("-n")] = 5,
    models: Models = (),
    *,
    rule: Annotated[
        Literal["typical", "uncertain", "random", "random-foreground"] | None, option()
    ] = None,
    views: Views = (),
    proposals: Flag = False,
    out: Annotated[Path, option("-o")] = Path("next_cases"),
    seed: Annotated[int, option(group=MORE)] = 0,
    processes: Processes = 1,
    device: ComputeDevice = None,
    jobs: Annotated[int | None, option(group=JOBS)] = None,
) -> AnnotationChoice:
    """Choose the unlabelled cases to annotate next, and say why.

        semi_nnunet next -d 42 -n 5
        semi_nnunet next -d 42 -n 5 -m Dataset042_Pancreas/MODEL --proposals
        semi_nnunet next -d 42 -n 5 -m MODEL OTHER_MODEL --views flips --rule uncertain
        semi_nnunet next -d 42 -n 5 --rule random

    Typical images that differ from each other and from the labelled ones are chosen, also if
    nothing is labelled yet. With --rule uncertain, images in which the models (-m) are uncertain
    have a higher chance: by the disagreement of several models, else by the entropy. Each class has
    its turn, and images that differ from the labelled ones have a higher chance. The models label
    imagesUn first (semi_nnunet pseudo-label).

    A choice never has two cases of one patient, near-twins, or a near-twin of a labelled case. A
    page shows a picture of each case and the reason; next.csv lists them.

    Args:
        dataset: The data set with imagesUn.
        number: Number of cases.
        models: Folders of trained models, or folds in them.
        rule: How cases are chosen (default: typical). random draws patients;
            random-foreground draws patients in whose images the models see a class, each class in
            turn.
        views: Changed views of each image whose predictions are averaged.
        proposals: Copy the images and the labels of the models, to correct them.
        out: Folder of the page, the table and the proposals.
        seed: Seed of the random numbers; another one gives other cases, except for typical.
        processes: Worker processes.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Processes that label (default: one for each GPU; 1 on the CPU).

    Returns:
        The cases with their reasons.

    Raises:
        UnfinishedError: shards of the labelling failed; the reasons were printed.
        UserError: options do not fit together, a model does not fit, or no case can be chosen.

    Example:
        >>> [chosen.case for chosen in next("42", 1).cases]
        ['phantom_0003']
    """
    from semi_nnunet.annotation.next_cases import choose_next_cases
    from semi_nnunet.runs.launching import JobLauncher
    from semi_nnunet.util.names import format_count, require_positive

    require_positive({"-n": number, "-np": processes})
    choice = choose_next_cases(
        dataset,
        number,
        models,
        rule=rule,
        views=list(views),
        out=out,
        proposals=proposals,
        seed=seed,
        processes=processes,
        launcher=JobLauncher(device=device, jobs=jobs),
    )
    width = max(len(chosen.case) for chosen in choice.cases)
    lines = [f"{chosen.case:{width}}  {chosen.reason}" for chosen in choice.cases]
    logger.info("\n".join(lines))
    for note in choice.notes:
        logger.warning(f"WARNING: {note}")
    lines = []
    if choice.review is not None:
        lines.append(f"correct the labels in {choice.review}, then: {choice.accept}")
    lines.append(
        f"{format_count(choice.cases, 'case')} by the rule {choice.rule}; see {choice.page}"
    )
    logger.info("\n".join(lines))
    return choice
