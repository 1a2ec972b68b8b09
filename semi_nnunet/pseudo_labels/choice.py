"""Select the most certain pseudo-labelled cases by a score of the method suite."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.core.case_uncertainty import checkpoint_disagreement, voxel_change
from semi_nnunet.pseudo_labels.pool import LabellingRequest, choose_ignore_label, read_uncertainties
from semi_nnunet.pseudo_labels.uncertainty import encode_classes, list_foreground_values
from semi_nnunet.raw.readers import BrokenFileError, read_with_nnunet
from semi_nnunet.training.filtering import select_least_uncertain
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.verify.file_bytes import find_incomplete_images

COMPARISON_SCORES = {"change": voxel_change, "checkpoints": checkpoint_disagreement}


@dataclass(frozen=True)
class SelectionRule:
    """The rule by which pseudo-labelled cases are selected.

    >>> SelectionRule(keep=0.5).record()
    {'keep': 0.5, 'most': None, 'score': 'entropy'}

    Args:
        keep: a fraction of the cases (at most 1), or a number (above 1); the most certain are kept.
        most: the largest uncertainty of a kept case, or None.
        score: one of :data:`~semi_nnunet.settings.common.FILTER_SCORES`, see
            :mod:`semi_nnunet.core.case_uncertainty`.
        before: for scores that compare with earlier labels: folders of the same images labelled by
            the models of earlier rounds, or by earlier checkpoints, the oldest first.
    """

    keep: float = 1.0
    most: float | None = None
    score: str = "entropy"
    before: tuple[str, ...] = ()

    def with_absolute_paths(self) -> SelectionRule:
        """Return the same rule with absolute paths."""
        return replace(self, before=tuple(map(os.path.abspath, self.before)))

    def record(self) -> dict[str, Any]:
        """Return the rule as JSON; as in older files, an empty ``before`` is left out."""
        content = asdict(self)
        del content["before"]
        return {**content, **({"before": list(self.before)} if self.before else {})}


def find_score_problems(score: str, before: Sequence[str], models: int) -> Iterator[Problem]:
    """Yield a problem if earlier labels or models are missing, or labels given for another score.

    Args:
        score: its name.
        before: folders of earlier labels.
        models: number of those that label.
    """
    if score == "disagreement" and models < 2:
        fix = "add a model to -m, or --score entropy"
        yield Problem("--score disagreement", "needs several models, -m is one", fix)
    if score in COMPARISON_SCORES and not before:
        message = "compares with earlier labels of the same images"
        yield Problem(
            f"--score {score}", message, "--before FOLDER, an -o of semi_nnunet pseudo-label"
        )
    if before and score not in COMPARISON_SCORES:
        message = f"is for --score {' and '.join(COMPARISON_SCORES)}, got {score}"
        yield Problem("--before", message, "leave it out, or choose one of these scores")
    for folder in before:
        if not (Path(folder) / "labels").is_dir():
            fix = "give the -o of a semi_nnunet pseudo-label"
            yield Problem(f"--before {folder}", "has no folder labels", fix)


def score_cases(
    request: LabellingRequest, choice: SelectionRule, excluded: Collection[str] = ()
) -> dict[str, float]:
    """Return case -> uncertainty of the finished cases.

    Args:
        request: of the labelled pool.
        choice: names the score.
        excluded: cases that must not be selected.

    Raises:
        UserError: the pool does not have the score.
    """
    uncertainties = read_uncertainties(request.done())
    scores = {case: values for case, values in uncertainties.items() if case not in excluded}
    if not scores:
        return {}
    if choice.score in COMPARISON_SCORES:
        return compare_labellings(request, choice, list(scores))
    available = set.intersection(*(set(values) for values in scores.values()))
    if choice.score not in available:
        raise UserError(
            f"--score {choice.score}: the pool has {', '.join(sorted(available)) or 'no score'}. "
            f"'disagreement' needs several models",
            fix="choose another score, or add a model",
        )
    return {case: values[choice.score] for case, values in scores.items()}


def compare_labellings(
    request: LabellingRequest, choice: SelectionRule, cases: Sequence[str]
) -> dict[str, float]:
    """Score how far the labels of each case differ from earlier ones.

    A case without earlier labels gets the largest uncertainty, 1. Voxels that any labelling ignores
    do not count.

    Raises:
        UserError: earlier labels are of other images, or of other shapes.
    """
    model = request.trained[0]
    plans, ending = PlansManager(model.plans), request.file_ending
    manager, reader = plans.get_label_manager(model.dataset_json), plans.image_reader_writer_class()
    classes, ignored = list_foreground_values(manager), choose_ignore_label(manager)
    folders = [*(Path(earlier) / "labels" for earlier in choice.before), request.labels]
    for folder in folders:
        if cases and not any((folder / f"{case}{ending}").is_file() for case in cases):
            raise UserError(
                f"--score {choice.score}: {folder} has no labels of {cases[0]}, nor of any other "
                f"case",
                fix="label the same images there (semi_nnunet pseudo-label)",
            )
    scores = {}
    for case in cases:
        files = [folder / f"{case}{ending}" for folder in folders]
        if not all(file.is_file() for file in files):
            scores[case] = 1.0
            continue
        labellings = [read_label(file, type(reader)) for file in files]
        if len({labels.shape for labels in labellings}) > 1:
            raise UserError(
                f"{', '.join(map(str, files))} differ in their shapes",
                fix="label the same images in all folders",
            )
        valid = np.all([labels != ignored for labels in labellings], 0)
        scores[case] = COMPARISON_SCORES[choice.score](
            [encode_classes(np.where(valid, labels, 0), classes) for labels in labellings]
        )
    return scores


def read_label(file: Path, reader: type[Any]) -> np.ndarray:
    """Return a label (Z, Y, X).

    Raises:
        UserError: the file is damaged.
    """
    problems = [*find_incomplete_images([file])]
    raise_if_any("a label is damaged:", problems)
    try:
        return np.asarray(read_with_nnunet(str(file), reader, is_label=True)[0][0])
    except BrokenFileError as error:
        raise UserError(f"{file}: {error}", fix="label this image again") from error


def select_cases(scores: Mapping[str, float], choice: SelectionRule) -> dict[str, float]:
    """Return the selected cases with their uncertainty.

    >>> select_cases({"a": 0.3, "b": 0.1, "c": 0.2}, SelectionRule(keep=2))
    {'b': 0.1, 'c': 0.2}

    Args:
        scores: of :func:`score_cases`.
        choice: the rule.

    Raises:
        UserError: nothing remains.
    """
    if not scores:
        raise UserError("no case can be selected: all are skipped or completely ignored")
    limit = choice.most
    certain = {case: score for case, score in scores.items() if limit is None or score <= limit}
    if not certain:
        raise UserError(
            f"no case has an uncertainty of at most {limit}, the lowest is "
            f"{min(scores.values()):.4f}",
            fix="raise --max-uncertainty",
        )
    count = round(choice.keep * len(scores)) if choice.keep <= 1 else choice.keep
    return {case: scores[case] for case in select_least_uncertain(certain, max(1.5, count))}
