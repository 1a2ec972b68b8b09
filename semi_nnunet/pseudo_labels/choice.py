"""Which pseudo-labelled cases are taken: the surest ones, by a score of the method suite."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.core.case_uncertainty import checkpoint_disagreement, voxel_change
from semi_nnunet.pseudo_labels.pool import Request, ignore_value, scores_of
from semi_nnunet.pseudo_labels.uncertainty import foreground_values, onehot
from semi_nnunet.training.filtering import surest
from semi_nnunet.util.errors import Problem, UserError

OF_SEVERAL = {"change": voxel_change, "checkpoints": checkpoint_disagreement}  # labellings


@dataclass(frozen=True)
class Choice:
    """The rule by which pseudo-labelled cases are taken.

    Args:
        keep: a fraction of them (at most 1), or a number (above 1), the surest.
        most: an uncertainty above which none is taken, or None.
        score: one of :data:`~semi_nnunet.settings.common.FILTER_SCORES`, see
            :mod:`semi_nnunet.core.case_uncertainty`.
        before: folders of the same images labelled earlier, the oldest first: by the models of the
            rounds before, or by earlier checkpoints; for the scores that compare with them.
    """

    keep: float = 1.0
    most: float | None = None
    score: str = "entropy"
    before: tuple[str, ...] = ()

    def located(self) -> Choice:
        """The same, with the earlier folders as absolute paths."""
        return replace(self, before=tuple(map(os.path.abspath, self.before)))

    def record(self) -> dict[str, Any]:
        """The rule as JSON; ``before`` is left out where it is empty, as older files have it."""
        found = asdict(self)
        del found["before"]
        return {**found, **({"before": list(self.before)} if self.before else {})}


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


def case_scores(
    request: Request, choice: Choice, without: Collection[str] = ()
) -> dict[str, float]:
    """Case -> its uncertainty, of the finished cases.

    Args:
        request: the labelled pool.
        choice: by which score.
        without: cases that must not be taken.

    Raises:
        UserError: the score is not there.
    """
    scores = {case: one for case, one in scores_of(request.done()).items() if case not in without}
    if not scores:
        return {}
    if choice.score in OF_SEVERAL:
        return scores_of_labellings(request, choice, list(scores))
    known = set.intersection(*(set(values) for values in scores.values()))
    if choice.score not in known:
        raise UserError(
            f"--score {choice.score}: the pool has {', '.join(sorted(known)) or 'no score'}. "
            f"'disagreement' needs several models",
            fix="choose another score, or add a model",
        )
    return {case: values[choice.score] for case, values in scores.items()}


def scores_of_labellings(
    request: Request, choice: Choice, cases: Sequence[str]
) -> dict[str, float]:
    """Score how far the labels of each case differ from what they were earlier.

    A case that was not labelled earlier is as unsure as one can be. Voxels that are ignored in one
    of the labellings do not count.

    Raises:
        UserError: an earlier labelling is of other images, or of other shapes.
    """
    model = request.trained[0]
    plans, ending = PlansManager(model.plans), model.dataset_json["file_ending"]
    manager, reader = plans.get_label_manager(model.dataset_json), plans.image_reader_writer_class()
    classes, ignored = foreground_values(manager), ignore_value(manager)
    folders = [*(Path(earlier) / "labels" for earlier in choice.before), request.labels]
    for folder in folders:
        if cases and not any((folder / f"{case}{ending}").is_file() for case in cases):
            raise UserError(
                f"--score {choice.score}: {folder} has no labels of {cases[0]}, nor of any other "
                f"case",
                fix="label the same images there (semi_nnunet pseudo-label)",
            )
    found = {}
    for case in cases:
        files = [folder / f"{case}{ending}" for folder in folders]
        if not all(file.is_file() for file in files):
            found[case] = 1.0
            continue
        labellings = [reader.read_seg(str(file))[0][0] for file in files]
        if len({labels.shape for labels in labellings}) > 1:
            raise UserError(
                f"{', '.join(map(str, files))} differ in their shapes",
                fix="label the same images in all folders",
            )
        known = np.all([labels != ignored for labels in labellings], 0)
        found[case] = OF_SEVERAL[choice.score](
            [onehot(np.where(known, labels, 0), classes) for labels in labellings]
        )
    return found


def choose(scores: Mapping[str, float], choice: Choice) -> dict[str, float]:
    """The cases that are taken, with their uncertainty.

    Args:
        scores: of :func:`case_scores`.
        choice: which.

    Raises:
        UserError: nothing is left.
    """
    if not scores:
        raise UserError("no case is left to choose from: all are set aside, or ignored altogether")
    limit = choice.most
    below = {case: one for case, one in scores.items() if limit is None or one <= limit}
    if not below:
        raise UserError(
            f"no case has an uncertainty of at most {limit}, the lowest is "
            f"{min(scores.values()):.4f}",
            fix="raise --most",
        )
    count = round(choice.keep * len(scores)) if choice.keep <= 1 else choice.keep
    return {case: scores[case] for case in surest(below, max(1.5, count))}
