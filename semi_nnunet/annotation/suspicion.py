"""Score labels by their disagreement with out-of-fold predictions, and say why in a sentence.

The score is in units of the spread of the data set: how far the Dice of a case is below the typical
one, and how much of it an error in the label would explain. What a case has in common with the
others, such as a class that is hard or predicted too large, does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from semi_nnunet.annotation.disagreement import AS_IT_IS, AXES, Disagreement

SMOOTHING = 0.1  # of the usual size of a class, so that a few voxels count little
LEAST_SPREAD = 0.02  # of Dice between cases
MAD_TO_SPREAD = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
EXPLAINED, GAP = 2.0, 8.0  # weight of Dice that an error would explain; score of a filled gap
NOTABLE, CLEAR_GAP = 2.0, 0.5  # score and share of a gap from which the reason names them


@dataclass(frozen=True)
class Suspicion:
    """How suspicious a label is, and why.

    Args:
        score: 0 for a label that agrees as usual.
        reason: a sentence.
        name: of the class to look at.
        slice: number of the slice to look at, from 1.
        axis: across the slice, 0 to 2.
        dice: annotated class -> Dice with the prediction; NaN if neither shows it.
        places: annotated class -> number and axis of the slice to look at for it.
    """

    score: float
    reason: str
    name: str
    slice: int
    axis: int
    dice: Mapping[str, float]
    places: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class UsualAgreement:
    """How labels of a data set usually agree with predictions; one number for each class.

    Args:
        dice: median over cases.
        spread: of Dice over cases.
        smoothing: voxels that are added to each overlap.
    """

    dice: np.ndarray
    spread: np.ndarray
    smoothing: np.ndarray

    @classmethod
    def of(cls, disagreements: Sequence[Disagreement]) -> UsualAgreement:
        """Return the usual agreement of the labels of a data set."""
        overlaps = np.array([item.overlaps[AS_IT_IS] for item in disagreements], float)
        annotated = np.array([item.annotated for item in disagreements])
        is_labelled = annotated & (overlaps[:, :, 1] > 0)
        smoothing = SMOOTHING * _median(np.where(is_labelled, overlaps[:, :, 1], np.nan), 10.0)
        is_shown = annotated & (overlaps[:, :, 1:].sum(2) > 0)
        dice = np.where(is_shown, _smooth_dice(overlaps, smoothing), np.nan)
        centre = _median(dice, 1.0)
        spread = MAD_TO_SPREAD * _median(np.abs(dice - centre), 0.0)
        return cls(centre, np.maximum(spread, LEAST_SPREAD), smoothing)

    def rate(self, overlaps: np.ndarray) -> np.ndarray:
        """Return for each class how many spreads Dice is above the usual one."""
        rates = (_smooth_dice(overlaps, self.smoothing) - self.dice) / self.spread
        return np.asarray(np.where(overlaps[:, 1:].sum(1) > 0, rates, 0.0))


def score_labels(
    disagreements: Mapping[str, Disagreement], classes: Sequence[str]
) -> dict[str, Suspicion]:
    """Return case -> how suspicious its label is.

    Args:
        disagreements: case -> difference of its label and its prediction, all of one model.
        classes: names in the order of the overlaps.
    """
    usual = UsualAgreement.of([*disagreements.values()])
    return {case: _score_label(item, usual, classes) for case, item in disagreements.items()}


def _score_label(item: Disagreement, usual: UsualAgreement, classes: Sequence[str]) -> Suspicion:
    used = np.flatnonzero(item.annotated).tolist()
    overlaps = {name: counts[used] for name, counts in item.overlaps.items()}
    usual = UsualAgreement(usual.dice[used], usual.spread[used], usual.smoothing[used])
    names, present = [classes[index] for index in used], overlaps.pop(AS_IT_IS)
    rates, dice = usual.rate(present), _smooth_dice(present, np.zeros(len(used)))
    places = {classes[index]: (item.slices[index], item.axis) for index in used}
    if not names:
        return Suspicion(0.0, "It annotates no class.", "", 1, item.axis, {}, {})
    worst, best, gain = int(rates.argmin()), "", 0.0
    for name, counts in overlaps.items():
        gains = usual.rate(counts) - rates
        if gains.mean() > 0 and gains.max() > gain:
            best, gain = name, float(gains.max())
    gap = item.gap
    score = max(0.0, -float(rates[worst])) + EXPLAINED * gain + GAP * (gap.share if gap else 0)
    name = names[worst]
    if gap and gap.share >= CLEAR_GAP and GAP * gap.share >= EXPLAINED * gain:
        name, places[gap.name] = gap.name, (gap.number, gap.axis)
        reason = (
            f"Slice {gap.number} along {AXES[gap.axis]} lacks {gap.name}, which is labelled on "
            f"both sides and predicted in it."
        )
    elif EXPLAINED * gain >= NOTABLE:
        means = [np.nanmean(_smooth_dice(o, usual.smoothing)) for o in (overlaps[best], present)]
        reason = (
            f"{best[0].upper()}{best[1:]}, it agrees better with the prediction: Dice "
            f"{means[0]:.2f} instead of {means[1]:.2f}."
        )
    elif score >= NOTABLE:
        reason = _describe_difference(names[worst], present[worst], dice[worst], usual.dice[worst])
    else:
        reason = "It agrees as usual."
    by_class = dict(zip(names, dice.tolist(), strict=True))
    return Suspicion(score, reason, name, *places[name], by_class, places)


def _describe_difference(name: str, counts: np.ndarray, dice: float, usual: float) -> str:
    if not counts[1]:
        return f"{name} is predicted, but not labelled."
    if not counts[2]:
        return f"{name} is labelled, but not predicted."
    size = counts[1] / counts[2]
    return (
        f"It differs more than usual in {name}: Dice {dice:.2f} (usual {usual:.2f}), and "
        f"{size:.1f} times the predicted size."
    )


def average_suspicions(scored: Sequence[Mapping[str, Suspicion]]) -> dict[str, Suspicion]:
    """Return case -> suspicion with the mean score of several models.

    The reason is that of the model which finds the label most suspicious.
    """
    return {
        case: replace(
            scored[number][case],
            score=fmean(suspicions[case].score for suspicions in scored if case in suspicions),
        )
        for case, number in find_most_suspicious(scored).items()
    }


def find_most_suspicious(scored: Sequence[Mapping[str, Suspicion]]) -> dict[str, int]:
    """Return case -> number of the model which finds its label most suspicious.

    >>> first, second = ({"a": Suspicion(score, "", "liver", 1, 0, {}, {})} for score in (0.1, 0.7))
    >>> find_most_suspicious([first, second])
    {'a': 1}
    """
    most: dict[str, int] = {}
    for number, suspicions in enumerate(scored):
        for case, item in suspicions.items():
            if case not in most or item.score > scored[most[case]][case].score:
                most[case] = number
    return most


def _median(values: np.ndarray, default: float) -> np.ndarray:
    """Return the median over cases without NaN; the default for a class of no case."""
    columns = [column[~np.isnan(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else default for column in columns])


def _smooth_dice(overlaps: np.ndarray, smoothing: np.ndarray) -> np.ndarray:
    """Return Dice of each class; NaN without any voxel."""
    both, label, prediction = np.moveaxis(np.asarray(overlaps, float), -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((2 * both + smoothing) / (label + prediction + smoothing))
