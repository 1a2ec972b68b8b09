"""How a budget of hours is divided into rounds of trainings: successive halving, then the proof.

All candidates train briefly, the better half twice as long, the best one and the baseline at least
four times as long (Jamieson & Talwalkar 2016, arXiv:1502.07943, with three rounds; theirs take the
same time each, ours leave at least half of it to the last one, whose model ships).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from semi_nnunet.automatic.cases import Cases
from semi_nnunet.runs.folders import ALL
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.progress import readable_time

SHORT, LONGER, FULL = "short", "longer", "full"
LENGTHS = {SHORT: 1, LONGER: 2, FULL: 4}  # steps of a training, relative to each other, at least
LEAST_STEPS = 100  # of a training that ships
LEAST_TO_CHOOSE = 500  # steps; after 150 on Hippocampus, all methods had what the baseline had
SHARES = {SHORT: 1 / 2, LONGER: 1 / 3}  # of the time that is left before a round, for all choosing


@dataclass(frozen=True)
class Rate:
    """What trainings of one trainer take on this device.

    Args:
        step: seconds of one step, loading included.
        besides: seconds of a training's start and of its final validation.
        case: seconds to predict a case.
    """

    step: float
    besides: float
    case: float


@dataclass(frozen=True)
class Round:
    """Trainings of one length.

    Args:
        name: one of :data:`LENGTHS`.
        trainers: with the teachers of those that are taught by another.
        folds: that each of them trains.
        steps: of each training.
    """

    name: str
    trainers: tuple[str, ...]
    folds: tuple[str, ...]
    steps: int

    def seconds(self, rates: Mapping[str, Rate], test_cases: int, at_a_time: int) -> float:
        """About how long the round takes, with so many trainings at a time.

        Only the last round predicts test cases.
        """
        cases = test_cases if self.name == FULL else 0
        one_of_each = sum(
            rates[name].besides + rates[name].case * cases + rates[name].step * self.steps
            for name in self.trainers
        )
        return one_of_each * len(self.folds) / at_a_time


@dataclass(frozen=True)
class Setting:
    """What a schedule depends on besides the budget.

    Args:
        rates: trainer -> what it takes; all candidates, with the teachers of those that have one.
        teachers: trainer -> the one that must be trained before it.
        baseline: the trainer that all are compared with.
        cases: that can choose and prove.
        steps_per_epoch: trainings have whole epochs.
        most_steps: of any training.
        at_a_time: trainings that run beside each other.
    """

    rates: Mapping[str, Rate]
    teachers: Mapping[str, str]
    baseline: str
    cases: Cases
    steps_per_epoch: int
    most_steps: int
    at_a_time: int = 1

    def with_teachers(self, trainers: Sequence[str]) -> tuple[str, ...]:
        """The trainers, each after the one that teaches it."""
        found: dict[str, None] = {}
        for name in trainers:
            if name in self.teachers:
                found[self.teachers[name]] = None
            found[name] = None
        return tuple(found)


def rounds_ahead(
    setting: Setting, candidates: Sequence[str], done: Collection[str] = ()
) -> list[Round]:
    """The rounds to come, as long as their :data:`LENGTHS`.

    Args:
        setting: of the schedule.
        candidates: that are left, without the baseline; the best first, as far as it is known.
        done: names of the rounds that are over.

    In later rounds, the first candidates stand for those that will be left, and the costliest of
    them for the best one; where no round is left to choose it, it is the first.
    """
    left, rounds = list(candidates), list[Round]()
    for name in (SHORT, LONGER):
        if name not in done and setting.cases.choosing and len(left) > 1:
            trainers = setting.with_teachers([setting.baseline, *left])
            rounds.append(Round(name, trainers, setting.cases.choosing, LENGTHS[name]))
            left = better_half(left)
    best = costliest(setting, left) if rounds else left[0]
    last = setting.with_teachers([setting.baseline, best])
    return [*rounds, Round(FULL, last, (ALL, *setting.cases.proving), LENGTHS[FULL])]


def costliest(setting: Setting, candidates: Sequence[str]) -> str:
    """The candidate whose training, with its teacher's, takes longest."""
    return max(
        candidates,
        key=lambda name: sum(setting.rates[one].step for one in setting.with_teachers([name])),
    )


def divide(
    setting: Setting, candidates: Sequence[str], seconds: float, done: Collection[str] = ()
) -> list[Round]:
    """Divide the time that is left among the rounds.

    Where it is too short for rounds of :data:`LEAST_TO_CHOOSE` steps, the second one is left out,
    then candidates from the last one on, then the choice: the first candidate is then compared with
    the baseline alone.

    Args:
        setting: of the schedule.
        candidates: that are left, the most promising first, without the baseline.
        seconds: that are left.
        done: names of the rounds that are over.

    Raises:
        UserError: the time is too short even for that; it tells the least.
    """
    for rounds in thinned(setting, candidates, done):
        if found := fitted(setting, rounds, seconds):
            return found
    shortest = LEAST_STEPS / min(LENGTHS[one.name] for one in rounds)
    least = sum(time_of(setting, scaled(setting, rounds, shortest)))
    raise UserError(
        f"the time left must do for the baseline and {candidates[0]} with {LEAST_STEPS} steps, "
        f"about {readable_time(least)}, got {readable_time(seconds)}",
        fix="more --hours",
    )


def thinned(
    setting: Setting, candidates: Sequence[str], done: Collection[str]
) -> list[list[Round]]:
    """The ways to go, the most thorough first."""
    found = []
    for count in range(len(candidates), 0, -1):
        rounds = rounds_ahead(setting, candidates[:count], done)
        found.append(rounds)
        shorter = [one for one in rounds if one.name != LONGER]
        if SHORT in (one.name for one in shorter) and len(shorter) < len(rounds):
            found.append(shorter)
    return found


def fitted(setting: Setting, rounds: Sequence[Round], seconds: float) -> list[Round] | None:
    """The rounds with as many steps as fit, in whole epochs; None: too few.

    Choosing takes at most its share of the time; it gets more only if the last trainings, which
    have the rest, could not use that.
    """
    *choosing, last = rounds
    found = list[Round]()
    if choosing:
        longest = replace(last, steps=setting.most_steps)
        most = seconds - sum(time_of(setting, [longest]))
        shortest = max(
            min(
                shortest_within(setting, choosing, seconds * SHARES[choosing[0].name]),
                shortest_within(setting, rounds, seconds),
            ),
            shortest_within(setting, choosing, most),
        )
        for one in choosing:
            steps = whole_epochs(setting, shortest * LENGTHS[one.name])
            if steps < min(LEAST_TO_CHOOSE * LENGTHS[one.name], setting.most_steps):
                return None
            found.append(replace(one, steps=steps))
    rest = seconds - sum(time_of(setting, found))
    steps = whole_epochs(setting, shortest_within(setting, [last], rest) * LENGTHS[last.name])
    least = min(LEAST_STEPS, setting.most_steps)
    return [*found, replace(last, steps=steps)] if steps >= least else None


def shortest_within(setting: Setting, rounds: Sequence[Round], seconds: float) -> float:
    """Steps of a training of the length 1, such that the rounds take so long; may be below 0."""
    fixed = sum(time_of(setting, scaled(setting, rounds, 0)))
    one = sum(time_of(setting, scaled(setting, rounds, 1))) - fixed
    return (seconds - fixed) / one


def scaled(setting: Setting, rounds: Sequence[Round], shortest: float) -> list[Round]:
    """The rounds, with this number of steps in the shortest."""
    return [replace(one, steps=int(shortest * LENGTHS[one.name])) for one in rounds]


def whole_epochs(setting: Setting, steps: float) -> int:
    """The largest number of steps below that is of whole epochs, at most the longest training."""
    epochs = int(min(steps, setting.most_steps) // setting.steps_per_epoch)
    return max(0, epochs) * setting.steps_per_epoch


def time_of(setting: Setting, rounds: Sequence[Round]) -> list[float]:
    """Seconds of each round."""
    return [
        one.seconds(setting.rates, setting.cases.test_cases, setting.at_a_time) for one in rounds
    ]


def better_half(ranked: Sequence[str]) -> list[str]:
    """The better half of candidates, best first; of three, two."""
    return list(ranked[: math.ceil(len(ranked) / 2)])
