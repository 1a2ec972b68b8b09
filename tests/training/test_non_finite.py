"""A term that is no number any more stops the training and is named."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.training.non_finite import NonFiniteWatch, Seen
from semi_nnunet.util.errors import UserError


def seen(value: float, step: int = 0, term: str = "supervised") -> Seen:
    return Seen(term, torch.tensor(value), step, ("case_1", "case_2"))


def test_numbers_pass() -> None:
    watch = NonFiniteWatch(at_once=False)
    for step, value in enumerate((0.0, -3.0, 1e30)):
        watch.add(seen(value, step))
        watch.look()
    watch.look(now=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_term_is_named_with_its_step_and_cases(value: float) -> None:
    watch = NonFiniteWatch(at_once=False)
    watch.add(seen(1.0, 6))
    watch.add(seen(value, 7, "consistency"))
    watch.add(seen(float("nan"), 8))
    watch.look()  # a GPU would be waited for
    with pytest.raises(UserError, match=r"step 7: the term 'consistency'.*case_1, case_2.*Fix:"):
        watch.look(now=True)


def test_it_looks_after_every_step_where_that_costs_nothing() -> None:
    watch = NonFiniteWatch(at_once=True)
    watch.add(seen(1.0))
    watch.look()
    watch.add(seen(float("nan")))
    with pytest.raises(UserError):
        watch.look()


def test_half_precision_is_looked_at_as_it_is() -> None:
    watch = NonFiniteWatch(at_once=True)
    watch.add(Seen("a", torch.tensor(6e4, dtype=torch.float16), 0, ()))
    watch.look()
    watch.add(Seen("a", torch.tensor(6e4, dtype=torch.float16) * 2, 1, ()))
    with pytest.raises(UserError, match="became inf"):
        watch.look()
