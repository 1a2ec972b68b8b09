"""A budget is spent, never overdrawn, and other cases prove than those that choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semi_nnunet.automatic.cases import CaseCounts
from semi_nnunet.automatic.schedule import (
    FULL,
    LEAST_STEPS,
    LEAST_TO_CHOOSE,
    LENGTHS,
    LONGER,
    SHORT,
    ScheduleInputs,
    TrainingRate,
    TrainingRound,
    divide_budget,
    estimate_round_seconds,
    keep_better_half,
)
from semi_nnunet.util.errors import UserError
from tests.automatic.test_cases import cases_of

BASE, TAUGHT, TEACHER = "Base", "Taught", "Teacher"
CANDIDATES = (TEACHER, "B", "C", TAUGHT)
NAMES = (BASE, *CANDIDATES)


def setting(*, cases: CaseCounts | None = None, **changes: object) -> ScheduleInputs:
    plain = ScheduleInputs(
        rates={name: TrainingRate(0.1 * number, 20, 1) for number, name in enumerate(NAMES, 1)},
        teachers={TAUGHT: TEACHER},
        baseline=BASE,
        cases=cases or cases_of(),
        steps_per_epoch=50,
        most_steps=250_000,
    )
    return replace(plain, **changes)


def test_rounds_grow_and_the_last_one_has_half_of_the_time() -> None:
    rounds = divide_budget(setting(), CANDIDATES, 8 * 3600)
    assert [inputs.name for inputs in rounds] == [SHORT, LONGER, FULL]
    assert rounds[0].trainers == (BASE, TEACHER, "B", "C", TAUGHT)
    assert rounds[1].trainers == (BASE, TEACHER, "B")
    assert rounds[2].folds == ("all",)
    assert all(inputs.steps % 50 == 0 for inputs in rounds)
    assert rounds[1].steps == pytest.approx(rounds[0].steps * LENGTHS[LONGER], abs=100)
    assert rounds[2].steps >= rounds[0].steps * LENGTHS[FULL]
    *choosing, last = estimate_round_seconds(setting(), rounds)
    assert 0.47 * 8 * 3600 < sum(choosing) <= 4 * 3600
    assert 0.97 * 8 * 3600 < sum(choosing) + last <= 8 * 3600


def test_in_the_last_round_the_baseline_trains_as_long_as_the_method() -> None:
    inputs = setting()
    for candidates in (["B"], [TAUGHT]):
        (last,) = divide_budget(inputs, candidates, 3600, finished=[SHORT, LONGER])
        method = sum(
            last.steps_of(name) * inputs.rates[name].step for name in last.trainers if name != BASE
        )
        baseline = last.steps_of(BASE) * inputs.rates[BASE].step
        assert baseline == pytest.approx(method, rel=0.01) and last.steps_of(BASE) > last.steps


def test_in_every_round_all_candidates_train_equally_long() -> None:
    inputs = setting()
    rates = {name: rate.step for name, rate in inputs.rates.items()}
    for current in divide_budget(inputs, CANDIDATES, 8 * 3600)[:2]:
        times = {name: rates[name] * current.steps_of(name) for name in current.trainers}
        if TAUGHT in times:  # its teacher's part of the time, for as many steps as its own
            times[TAUGHT] += rates[TEACHER] * current.steps_of(TAUGHT)
        assert [*times.values()] == pytest.approx([times[BASE]] * len(times), rel=0.01)
        slowest = max(rates[name] + rates[TEACHER] * (name == TAUGHT) for name in times)
        assert times[BASE] == pytest.approx(slowest * current.steps, rel=0.01)


def test_a_teacher_that_is_no_candidate_has_the_steps_of_its_student() -> None:
    (short, *_) = divide_budget(setting(), [TAUGHT, "B"], 8 * 3600)
    assert short.steps_of(TEACHER) == short.steps_of(TAUGHT) < short.steps_of(BASE)


def test_choosing_gets_the_time_that_the_longest_trainings_cannot_use() -> None:
    inputs = setting(most_steps=1500)
    rounds = divide_budget(inputs, CANDIDATES, 8000)
    *choosing, last = estimate_round_seconds(inputs, rounds)
    assert rounds[-1].steps == 1500 and sum(choosing) > 4000 > last
    assert 0.9 * 8000 < sum(choosing) + last <= 8000


def test_test_cases_are_predicted_only_by_the_last_round() -> None:
    few, hundred = (setting(cases=cases_of(test_cases=count)) for count in (0, 100))
    rounds = divide_budget(hundred, CANDIDATES, 8 * 3600)
    *choosing, last = (
        with_them - without
        for with_them, without in zip(
            estimate_round_seconds(hundred, rounds),
            estimate_round_seconds(few, rounds),
            strict=True,
        )
    )
    assert choosing == [0, 0] and last == pytest.approx(2 * 100 * 1)


@given(
    st.floats(60, 1e6), st.integers(0, 5), st.booleans(), st.integers(0, 50), st.integers(1, 4),
    st.lists(st.floats(0.01, 5), min_size=5, max_size=5),
)  # fmt: skip
@example(60.0, 0, False, 0, 2, [0.010000000000000002] * 2 + [1.0] * 3)  # by a rounding error
def test_no_budget_is_overdrawn_and_no_fold_both_chooses_and_proves(
    seconds: float, folds: int, labelled: bool, tests: int, at_a_time: int, steps: list[float]
) -> None:
    rates = {name: TrainingRate(step, 20, 1) for name, step in zip(NAMES, steps, strict=True)}
    cases = cases_of(folds=folds, has_test_labels=labelled, test_cases=tests)
    inputs = setting(cases=cases, at_a_time=at_a_time, rates=rates)
    try:
        rounds = divide_budget(inputs, CANDIDATES, seconds)
    except UserError as error:
        assert "more --hours" in str(error)
        return
    assert sum(estimate_round_seconds(inputs, rounds)) <= seconds
    assert min(current.steps for current in rounds) >= LEAST_STEPS
    *choosing, last = estimate_round_seconds(inputs, rounds)
    a_step = sum(
        estimate_round_seconds(inputs, [replace(rounds[-1], steps=inputs.steps_per_epoch)])
    )
    a_step -= sum(estimate_round_seconds(inputs, [replace(rounds[-1], steps=0)]))
    at_most = rounds[-1].steps == inputs.most_steps
    assert all(current.steps >= LEAST_TO_CHOOSE * LENGTHS[current.name] for current in rounds[:-1])
    assert at_most or not choosing or sum(choosing) <= last + a_step
    assert rounds[-1].name == FULL and BASE in rounds[-1].trainers
    for current in rounds:
        assert TAUGHT not in current.trainers or TEACHER in current.trainers
        assert set(current.folds) <= {*cases.choosing_folds} or current.name == FULL


def test_more_devices_than_trainings_do_not_shorten_a_training() -> None:
    inputs = setting(at_a_time=8)
    (last,) = divide_budget(inputs, ["B"], 4 * 3600, finished=[SHORT, LONGER])
    (on_one,) = divide_budget(setting(), ["B"], 4 * 3600, finished=[SHORT, LONGER])
    longest = max(
        inputs.rates[name].step * last.steps_of(name) + inputs.rates[name].besides
        for name in last.trainers
    )
    assert 0.9 * 4 * 3600 < longest <= 4 * 3600
    assert on_one.steps < last.steps


def test_a_student_waits_for_its_teacher() -> None:
    rates = {name: TrainingRate(step=1, besides=0, case=0) for name in (TEACHER, TAUGHT)}
    pair = TrainingRound(SHORT, (TEACHER, TAUGHT), ("0",), 100)
    assert pair.seconds(rates, cases_of(), 4) == 100
    assert pair.seconds(rates, cases_of(), 4, {TAUGHT: TEACHER}) == 200


def test_fold_all_validates_all_labelled_cases() -> None:
    cases = cases_of(folds=5, labelled=100, test_cases=7)
    rates = {"A": TrainingRate(step=1, besides=20, case=3)}
    short, full = (
        TrainingRound(name, ("A",), (fold,), 10).seconds(rates, cases, 1)
        for name, fold in ((SHORT, "0"), (FULL, "all"))
    )
    assert short == 10 + 20
    assert full == 10 + 20 + 3 * (7 + 80)


def test_a_short_time_leaves_out_rounds_then_candidates_then_the_choice() -> None:
    inputs, seen = setting(), []
    for seconds in (24_000, 9000, 4000, 2500, 1500, 150):
        rounds = divide_budget(inputs, CANDIDATES, seconds)
        seen.append((len(rounds), len(rounds[0].trainers)))
    assert seen == sorted(seen, reverse=True)
    assert seen[0][0] == 3 and seen[-1] == (1, 2)
    with pytest.raises(UserError, match="100 steps"):
        divide_budget(inputs, CANDIDATES, 30)


def test_finished_rounds_are_not_planned_again() -> None:
    rounds = divide_budget(setting(), ["C", "B"], 4 * 3600, finished=[SHORT])
    assert [inputs.name for inputs in rounds] == [LONGER, FULL]
    assert rounds[0].trainers == (BASE, "C", "B")
    (last,) = divide_budget(setting(), ["C"], 3600, finished=[SHORT, LONGER])
    assert last.trainers == (BASE, "C")
    (last,) = divide_budget(setting(), ["B", "C"], 3600, finished=[SHORT, LONGER])
    assert last.trainers == (BASE, "B")


def test_where_test_cases_have_no_labels_other_folds_prove() -> None:
    inputs = setting(cases=cases_of(has_test_labels=False))
    assert divide_budget(inputs, CANDIDATES, 1e5)[-1].folds == ("all", "2", "3", "4")
    alone = setting(cases=cases_of(has_test_labels=False, folds=0, patients=1))
    assert [current.name for current in divide_budget(alone, CANDIDATES, 1e5)] == [FULL]


def test_the_better_half_of_three_is_two() -> None:
    assert keep_better_half(["a", "b", "c"]) == ["a", "b"]
    assert keep_better_half(["a"]) == ["a"]


def test_where_few_are_labelled_the_first_candidate_is_trained_not_the_costliest() -> None:
    (last,) = divide_budget(setting(cases=cases_of(patients=9)), ("B", "C", TAUGHT), 1e5)
    assert last.name == FULL and last.trainers == (BASE, "B")
