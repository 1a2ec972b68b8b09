"""Ranks of a training: shares, and what one process alone does not need."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.training.distributed import Ranks
from semi_nnunet.util.errors import UserError


@given(st.integers(0, 64), st.integers(1, 9))
def test_shares_of_all_ranks_are_the_whole_batch(batch_size: int, count: int) -> None:
    shares = [Ranks(number, count).share_of(batch_size) for number in range(count)]
    assert sum(shares) == batch_size and max(shares) - min(shares) <= 1


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    Ranks(0, 2).require_shareable(4, equal_parts=True)
    Ranks(0, 2).require_shareable(3, equal_parts=False)
    with pytest.raises(UserError, match="a multiple of the number of GPUs, 2, got 3"):
        Ranks(0, 2).require_shareable(3, equal_parts=True)
    with pytest.raises(UserError, match="at least the number of GPUs, 4, got 3"):
        Ranks(0, 4).require_shareable(3, equal_parts=False)


def test_one_process_changes_nothing() -> None:
    alone, network = Ranks(), torch.nn.Linear(2, 1)
    network(torch.ones(1, 2)).backward()
    before = network.weight.grad.clone()
    alone.average_gradients([network])
    alone.barrier()
    assert torch.equal(before, network.weight.grad) and alone.summing is None
    assert alone.mean({"a": 1.5}) == {"a": 1.5} and alone.together({"case": 1}) == {"case": 1}
