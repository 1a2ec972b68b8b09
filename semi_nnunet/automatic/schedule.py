"""Divide a budget of hours into rounds of trainings: successive halving, then a test.

All candidates train briefly, the better half twice as long, the best one at least four times as
long (Jamieson & Talwalkar 2016, arXiv:1502.07943, with three rounds; theirs take the same time
each, ours leave at least half of it to the last one, whose model is exported). In a round, all
trainings take the same time, not the same steps: the user wants the best model for these hours, and
a method with cheap steps makes more of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from semi_nnunet.automatic.cases import CaseCounts
from semi_nnunet.runs.folders import ALL
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.progress import readable_time

SHORT, LONGER, FULL = "short", "longer", "full"
LENGTHS = {SHORT: 1, LONGER: 2, FULL: 4}  # relative steps of a training, at least
ROUNDING = 1e-12  # of the steps that fit: floating-point errors must not overdraw the time
LEAST_STEPS = 100  # of a training whose model is exported
LEAST_TO_CHOOSE = 500  # steps; after 150 on Hippocampus, no method differed from the baseline
SHARES = {SHORT: 1 / 2, LONGER: 1 / 3}  # of the time left before a round, for rounds that choose


@dataclass(frozen=True)
class TrainingRate:
    """The time that trainings of one trainer take on this device, in seconds.

    Args:
        step: of one step, loading included.
        besides: of a training's start and of its final validation.
        case: to predict a case.
    """

    step: float
    besides: float
    case: float


@dataclass(frozen=True)
class TrainingRound:
    """Trainings of one length.

    >>> short = TrainingRound("short", ("A", "B"), folds=("0", "1"), steps=100)
    >>> cases = CaseCounts(5, 20, 20, test_cases=9, test_patients=9, has_test_labels=True)
    >>> short.seconds({"A": TrainingRate(1, 20, 1), "B": TrainingRate(2, 20, 1)}, cases, 1)
    680.0

    Args:
        name: one of :data:`LENGTHS`.
        trainers: the baseline first; including the teachers of distilled trainers.
        folds: that each of them trains.
        steps: of the trainer with the slowest steps, its teacher's included.
        baseline_ratio: steps of the baseline for each of these.
        ratios: trainer -> its steps for each of these, unless it is 1; without the baseline.
    """

    name: str
    trainers: tuple[str, ...]
    folds: tuple[str, ...]
    steps: int
    baseline_ratio: float = 1.0
    ratios: Mapping[str, float] = field(default_factory=dict)

    def steps_of(self, trainer: str) -> int:
        """Return the steps of a trainer.

        >>> full = TrainingRound("full", ("Base", "A"), ("all",), 100, baseline_ratio=3.3)
        >>> full.steps_of("A"), full.steps_of("Base")
        (100, 330)
        """
        return int(self._exact_steps()[self.trainers.index(trainer)])

    def _exact_steps(self) -> list[float]:
        ratios = [self.baseline_ratio, *(self.ratios.get(name, 1.0) for name in self.trainers[1:])]
        return [self.steps * ratio for ratio in ratios]

    def describe_steps(self) -> str:
        """Return the steps, from the fewest to the most, and those of the baseline."""
        baseline_steps, *others = map(self.steps_of, self.trainers)
        most = max(others, default=baseline_steps)
        steps = f"{self.steps}" if most <= self.steps else f"{self.steps} to {most}"
        other = "" if baseline_steps == self.steps else f" (baseline {baseline_steps})"
        return f"{steps}{other}"

    def seconds(
        self,
        rates: Mapping[str, TrainingRate],
        cases: CaseCounts,
        at_a_time: int,
        teachers: Mapping[str, str] = MappingProxyType({}),
    ) -> float:
        """Estimate the duration of the round, with ``at_a_time`` trainings side by side.

        A student waits for its teacher (trainer -> the trainer that must be trained before it).

        Only the last round predicts test cases. Fold "all" validates all labelled cases, others
        the cases of one fold, which the rates include.
        """
        tests = cases.test_cases if self.name == FULL else 0
        more = cases.labelled - cases.validated
        durations: dict[tuple[str, str], float] = {}
        for fold in self.folds:
            for name, steps in zip(self.trainers, self._exact_steps(), strict=True):
                rate, predicted = rates[name], tests + (more if fold == ALL else 0)
                job = fold, teachers.get(name, name)
                seconds = rate.besides + rate.case * predicted + rate.step * steps
                durations[job] = durations.get(job, 0.0) + seconds
        return estimate_duration([*durations.values()], at_a_time)


def estimate_duration(durations: Sequence[float], at_a_time: int) -> float:
    """Return when the last of several jobs ends; the next one begins when one of them ends.

    >>> estimate_duration([4, 4, 1], at_a_time=8), estimate_duration([4, 4, 1], at_a_time=2)
    (4.0, 5.0)
    """
    ends = [0.0] * min(at_a_time, len(durations))
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends, default=0.0)


@dataclass(frozen=True)
class ScheduleInputs:
    """The inputs of a schedule besides the budget.

    Args:
        rates: trainer -> its rate; of all candidates and their teachers.
        teachers: trainer -> the trainer that must be trained before it.
        baseline: the trainer that all are compared with.
        cases: that can choose a method and test the choice.
        steps_per_epoch: trainings have whole epochs.
        most_steps: of any training.
        at_a_time: trainings that run side by side.
    """

    rates: Mapping[str, TrainingRate]
    teachers: Mapping[str, str]
    baseline: str
    cases: CaseCounts
    steps_per_epoch: int
    most_steps: int
    at_a_time: int = 1

    def with_teachers(self, trainers: Sequence[str]) -> tuple[str, ...]:
        """Return the trainers, each after its teacher."""
        names: dict[str, None] = {}
        for name in trainers:
            if name in self.teachers:
                names[self.teachers[name]] = None
            names[name] = None
        return tuple(names)

    def step_seconds(self, trainers: Sequence[str]) -> float:
        """Return the seconds of a step of each trainer and its teacher together."""
        return sum(self.rates[name].step for name in self.with_teachers(trainers))


def list_remaining_rounds(
    inputs: ScheduleInputs, candidates: Sequence[str], finished: Collection[str] = ()
) -> list[TrainingRound]:
    """Return the rounds to come, with their :data:`LENGTHS` as steps.

    The later rounds are estimates: the first candidates stand for the better half, and the
    costliest of them for the best one. If no round is left to choose, the first candidate is best.

    Args:
        inputs: of the schedule.
        candidates: without the baseline; the best first, as far as it is known.
        finished: names of the rounds that are over.
    """
    remaining, rounds = list(candidates), list[TrainingRound]()
    for name in (SHORT, LONGER):
        if name not in finished and inputs.cases.choosing_folds and len(remaining) > 1:
            trainers = inputs.with_teachers([inputs.baseline, *remaining])
            folds = inputs.cases.choosing_folds
            current = TrainingRound(name, trainers, folds, LENGTHS[name])
            rounds.append(with_equal_time(inputs, current, remaining))
            remaining = keep_better_half(remaining)
    best = find_costliest(inputs, remaining) if rounds else remaining[0]
    trainers = inputs.with_teachers([inputs.baseline, best])
    folds = (ALL, *inputs.cases.checking_folds)
    full = TrainingRound(FULL, trainers, folds, LENGTHS[FULL])
    return [*rounds, with_equal_time(inputs, full, [best])]


def with_equal_time(
    inputs: ScheduleInputs, current: TrainingRound, candidates: Sequence[str]
) -> TrainingRound:
    """Return a round in which all trainings take about the same time.

    A candidate's time includes that of its teacher. A teacher that is no candidate itself has as
    many steps as its student.

    Args:
        inputs: of the schedule.
        current: the round.
        candidates: those of its trainers that are neither the baseline nor only teachers.
    """
    slowest = inputs.step_seconds([find_costliest(inputs, candidates)])
    ratios = {name: max(1.0, slowest / inputs.step_seconds([name])) for name in candidates}
    for name in candidates:
        if (teacher := inputs.teachers.get(name)) is not None:
            ratios.setdefault(teacher, ratios[name])
    baseline_ratio = max(1.0, slowest / inputs.rates[inputs.baseline].step)
    different = {name: ratio for name, ratio in ratios.items() if ratio != 1.0}
    return replace(current, baseline_ratio=baseline_ratio, ratios=different)


def find_costliest(inputs: ScheduleInputs, candidates: Sequence[str]) -> str:
    """Return the candidate whose training, with its teacher's, takes longest."""
    return max(candidates, key=lambda name: inputs.step_seconds([name]))


def divide_budget(
    inputs: ScheduleInputs,
    candidates: Sequence[str],
    seconds: float,
    finished: Collection[str] = (),
) -> list[TrainingRound]:
    """Divide the remaining time among the rounds.

    If candidates would get fewer than :data:`LEAST_TO_CHOOSE` steps, the second round is dropped,
    then candidates from the last one on, and finally the comparison: only the first candidate and
    the baseline are trained.

    Args:
        inputs: of the schedule.
        candidates: the most promising first, without the baseline.
        seconds: remaining time.
        finished: names of the rounds that are over.

    Raises:
        UserError: the time is too short even for that; the message has the least time.
    """
    for rounds in list_round_plans(inputs, candidates, finished):
        if fitting := fit_rounds(inputs, rounds, seconds):
            return fitting
    shortest = LEAST_STEPS / min(LENGTHS[current.name] for current in rounds)
    least = sum(estimate_round_seconds(inputs, scale_rounds(rounds, shortest)))
    raise UserError(
        f"the time left must do for the baseline and {candidates[0]} with {LEAST_STEPS} steps, "
        f"about {readable_time(least)}, got {readable_time(seconds)}",
        fix="more --hours",
    )


def list_round_plans(
    inputs: ScheduleInputs, candidates: Sequence[str], finished: Collection[str]
) -> list[list[TrainingRound]]:
    """Return the possible sequences of rounds, the most thorough first."""
    plans = []
    for count in range(len(candidates), 0, -1):
        rounds = list_remaining_rounds(inputs, candidates[:count], finished)
        plans.append(rounds)
        shorter = [current for current in rounds if current.name != LONGER]
        if SHORT in (current.name for current in shorter) and len(shorter) < len(rounds):
            plans.append(shorter)
    return plans


def fit_rounds(
    inputs: ScheduleInputs, rounds: Sequence[TrainingRound], seconds: float
) -> list[TrainingRound] | None:
    """Return the rounds with as many whole epochs as fit, or None if they are too short.

    Choosing takes at most its share of the time; it gets more only if the trainings of the last
    round, which have the rest, could not use it.
    """
    *choosing, last = rounds
    fitting = list[TrainingRound]()
    if choosing:
        longest = replace(last, steps=inputs.most_steps)
        unused = seconds - sum(estimate_round_seconds(inputs, [longest]))
        shortest = max(
            min(
                solve_shortest_steps(inputs, choosing, seconds * SHARES[choosing[0].name]),
                solve_shortest_steps(inputs, rounds, seconds),
            ),
            solve_shortest_steps(inputs, choosing, unused),
        )
        for current in choosing:
            steps = round_to_epochs(inputs, shortest * LENGTHS[current.name])
            if steps < min(LEAST_TO_CHOOSE * LENGTHS[current.name], inputs.most_steps):
                return None
            fitting.append(replace(current, steps=steps))
    rest = seconds - sum(estimate_round_seconds(inputs, fitting))
    steps = round_to_epochs(inputs, solve_shortest_steps(inputs, [last], rest) * LENGTHS[last.name])
    least = min(LEAST_STEPS, inputs.most_steps)
    return [*fitting, replace(last, steps=steps)] if steps >= least else None


def solve_shortest_steps(
    inputs: ScheduleInputs, rounds: Sequence[TrainingRound], seconds: float
) -> float:
    """Return the steps of a training of length 1 with which the rounds take ``seconds``.

    The result is below 0 if the time is too short.
    """

    def duration(shortest: int) -> float:
        return sum(estimate_round_seconds(inputs, scale_rounds(rounds, shortest)))

    if seconds < duration(0):
        return -1.0
    below, above = 0, 1
    while duration(above) <= seconds and above < inputs.most_steps:
        below, above = above, 2 * above
    while above - below > 1:  # trainings side by side do not take times that are linear in steps
        middle = (below + above) // 2
        below, above = (middle, above) if duration(middle) <= seconds else (below, middle)
    return below + (seconds - duration(below)) / (duration(above) - duration(below))


def scale_rounds(rounds: Sequence[TrainingRound], shortest: float) -> list[TrainingRound]:
    """Return the rounds with ``shortest`` steps in a training of length 1."""
    return [replace(current, steps=int(shortest * LENGTHS[current.name])) for current in rounds]


def round_to_epochs(inputs: ScheduleInputs, steps: float) -> int:
    """Round steps down to whole epochs, and to the longest training."""
    fitting = min(steps * (1 - ROUNDING), inputs.most_steps)
    epochs = int(fitting // inputs.steps_per_epoch)
    return max(0, epochs) * inputs.steps_per_epoch


def estimate_round_seconds(inputs: ScheduleInputs, rounds: Sequence[TrainingRound]) -> list[float]:
    """Estimate the seconds of each round."""
    conditions = (inputs.rates, inputs.cases, inputs.at_a_time, inputs.teachers)
    return [current.seconds(*conditions) for current in rounds]


def keep_better_half(ranking: Sequence[str]) -> list[str]:
    """Return the better half of ranked candidates; two of three.

    >>> keep_better_half(["first", "second", "third"])
    ['first', 'second']
    """
    return list(ranking[: math.ceil(len(ranking) / 2)])
