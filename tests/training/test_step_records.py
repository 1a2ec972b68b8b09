"""Values of steps: their means, and the check that they are finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semi_nnunet.training.step_records import NonFiniteWatch, StepRecords, StepValue
from semi_nnunet.util.errors import UserError


def test_means_of_tensors_and_numbers_equal_numpy():
    records = StepRecords()
    values = np.random.default_rng(0).normal(size=50)
    for step, value in enumerate(values):
        records.add("mixed", torch.tensor(value) if step % 3 else float(value))
        records.add("tensors", torch.tensor([[value]], dtype=torch.float16))
        records.add("numbers", int(step))
    means = records.means()
    assert means["mixed"] == pytest.approx(values.mean(), abs=1e-6)
    assert means["tensors"] == pytest.approx(values.astype(np.float16).astype(float).mean())
    assert means["numbers"] == 24.5
    assert all(type(value) is float for value in means.values())


def test_means_reset_the_records():
    records = StepRecords()
    records.add("loss", 1.0)
    assert records.means() == {"loss": 1.0}
    assert records.means() == {}
    records.add("loss", 3.0)
    assert records.means() == {"loss": 3.0}


def test_steps_without_a_value_do_not_count():
    records = StepRecords()
    for value in (1.0, torch.tensor(torch.nan), torch.tensor(2.0)):
        records.add("present", value)
        records.add("absent", torch.nan)
    means = records.means()
    assert means["present"] == 1.5 and np.isnan(means["absent"])


def test_records_keep_no_graph():
    records = StepRecords()
    weight = torch.ones((), requires_grad=True)
    records.add("loss", weight * 2)
    assert not records._values["loss"][0].requires_grad
    assert records.means() == {"loss": 2.0}


def make_value(value: float, step: int = 0, name: str = "supervised") -> StepValue:
    return StepValue(name, torch.tensor(value), step, ("case_1", "case_2"))


def test_finite_values_do_not_raise() -> None:
    watch = NonFiniteWatch(at_once=False)
    for step, value in enumerate((0.0, -3.0, 1e30)):
        watch.add(make_value(value, step))
        watch.check()
    watch.check(now=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_non_finite_term_is_named_with_its_step_and_cases(value: float) -> None:
    watch = NonFiniteWatch(at_once=False)
    watch.add(make_value(1.0, 6))
    watch.add(make_value(value, 7, "the term 'consistency'"))
    watch.add(make_value(float("nan"), 8))
    watch.check()  # only checks at the end of an epoch
    with pytest.raises(UserError, match=r"step 7.*'consistency'.*case_1, case_2"):
        watch.check(now=True)


def test_values_are_checked_in_every_step_if_set() -> None:
    watch = NonFiniteWatch(at_once=True)
    watch.add(make_value(1.0))
    watch.check()
    watch.add(make_value(float("nan")))
    with pytest.raises(UserError):
        watch.check()


def test_half_precision_is_checked_before_it_overflows() -> None:
    watch = NonFiniteWatch(at_once=True)
    watch.add(StepValue("a", torch.tensor(6e4, dtype=torch.float16), 0, ()))
    watch.check()
    watch.add(StepValue("a", torch.tensor(6e4, dtype=torch.float16) * 2, 1, ()))
    with pytest.raises(UserError, match="inf"):
        watch.check()
