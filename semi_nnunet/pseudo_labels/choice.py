"""Which pseudo-labelled cases are taken: the surest ones, by a score of the method suite."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.core.case_uncertainty import checkpoint_disagreement, voxel_change
from semi_nnunet.errors import Problem, UserError
from semi_nnunet.filtering import surest
from semi_nnunet.pseudo_labels.pool import Request, scores_of
from semi_nnunet.pseudo_labels.uncertainty import foreground_values, onehot

OF_SEVERAL = {"change": voxel_change, "checkpoints": checkpoint_disagreement}  # labellings
SCORES = ("entropy", "disagreement", *OF_SEVERAL)


@dataclass(frozen=True)
class Choice:
    """Which pseudo-labelled cases are taken.

    Args:
        keep: a fraction of them (at most 1), or a number (above 1), the surest.
        most: an uncertainty above which none is taken, or None.
        score: one of :data:`SCORES`, see :mod:`semi_nnunet.core.case_uncertainty`.
        before: folders of the same images labelled earlier, the oldest first: by the models of the
            rounds before, or by earlier checkpoints; for the scores that compare with them.
    """

    keep: float = 1.0
    most: float | None = None
    score: str = "entropy"
    before: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON reads it back."""
        found = asdict(self)
        return found | {"before": list(self.before)}


def score_problems(score: str, before: Sequence[str]) -> Iterator[Problem]:
    """Scores that need an earlier labelling, and earlier labellings that nothing needs."""
    if score in OF_SEVERAL and not before:
        what = "compares with what the same images were labelled earlier"
        yield Problem(
            f"--score {score}", what, "--before FOLDER, an -o of semi_nnunet pseudo-label"
        )
    if before and score not in OF_SEVERAL:
        what = f"is for --score {' and '.join(OF_SEVERAL)}, got {score}"
        yield Problem("--before", what, "leave it out, or choose one of these scores")
    for folder in before:
        if not (Path(folder) / "labels").is_dir():
            fix = "give the -o of a semi_nnunet pseudo-label"
            yield Problem(f"--before {folder}", "has no folder labels", fix)


def case_scores(request: Request, choice: Choice) -> dict[str, float]:
    """Case -> its uncertainty, of the finished cases.

    Raises:
        UserError: the score is not there.
    """
    scores = scores_of(request.done())
    if choice.score in OF_SEVERAL:
        return {case: score_of_labellings(request, choice, case) for case in scores}
    known = set.intersection(*(set(values) for values in scores.values())) if scores else set()
    if choice.score not in known:
        raise UserError(
            f"--score {choice.score}: the pool has {', '.join(sorted(known)) or 'no score'}. "
            f"'disagreement' needs several models. Fix: choose another score, or add a model"
        )
    return {case: values[choice.score] for case, values in scores.items()}


def score_of_labellings(request: Request, choice: Choice, case: str) -> float:
    """How far the labels of a case differ from what they were earlier.

    Raises:
        UserError: they are not there, or have another shape.
    """
    model = request.trained[0]
    plans, file = PlansManager(model.plans), f"{case}{model.dataset_json['file_ending']}"
    classes = foreground_values(plans.get_label_manager(model.dataset_json))
    reader, labellings = plans.image_reader_writer_class(), list[torch.Tensor]()
    for folder in (*(Path(earlier) / "labels" for earlier in choice.before), request.labels):
        if not (folder / file).is_file():
            raise UserError(
                f"--score {choice.score}: {folder} has no labels of {case}. Fix: label the same "
                f"images there (semi_nnunet pseudo-label), or choose another score"
            )
        labels = reader.read_seg(str(folder / file))[0][0]
        labellings.append(onehot(labels, classes))
        if labellings[-1].shape != labellings[0].shape:
            raise UserError(
                f"{folder / file} has another shape than in {choice.before[0]}. Fix: label the "
                f"same images in both"
            )
    return OF_SEVERAL[choice.score](labellings)


def choose(request: Request, choice: Choice, without: Collection[str] = ()) -> dict[str, float]:
    """The cases that are taken, with their uncertainty.

    Args:
        request: the labelled pool.
        choice: which.
        without: cases that must not be taken.

    Raises:
        UserError: the score is not there, or nothing is left.
    """
    all_scores = case_scores(request, choice)
    scores = {case: value for case, value in all_scores.items() if case not in without}
    limit = choice.most
    below = {case: one for case, one in scores.items() if limit is None or one <= limit}
    if not below:
        lowest = f", the lowest is {min(scores.values()):.4f}" if scores else ": there is no case"
        raise UserError(f"no case has an uncertainty of at most {limit}{lowest}. Fix: raise --most")
    count = round(choice.keep * len(scores)) if choice.keep <= 1 else choice.keep
    return {case: scores[case] for case in surest(below, max(1.5, count))}
