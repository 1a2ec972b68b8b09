"""Ranks of a training: shares, and what one process alone does not need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

from semi_nnunet.training.distributed import Ranks, device_of_process, without_wrapper
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
    alone.barrier()
    assert alone.summing is None
    assert alone.mean({"a": 1.5}) == {"a": 1.5} and alone.together({"case": 1}) == {"case": 1}
    assert alone.total([np.array([1, 2]), 3])[1] == 3 and alone.listed("a") == ["a"]
    said: list[str] = []
    alone.require_same({"the cases": ["a"]})
    alone.tell_change(1, said.append)
    alone.tell_change(None, said.append)  # of a checkpoint of before
    alone.take_weights_of_first([network])
    alone.on_first(lambda: said.append("done"))
    assert said == ["done"]


def of_two(monkeypatch: pytest.MonkeyPatch, number: int, other: Any) -> Ranks:
    """One of two processes; the other one, imitated here, has ``other`` to tell."""

    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, other] if number == 0 else [other, own]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    return Ranks(number, 2)


def test_numbers_of_all_processes_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, voxels = of_two(monkeypatch, 0, [np.array([1, 2]), 5]).total([np.array([3, 4]), 6])
    assert counts.tolist() == [4, 6] and voxels == 11


def test_processes_that_see_other_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = of_two(monkeypatch, 0, {"the checkpoint": 0, "the cases": ["a"]})
    ranks.require_same({"the checkpoint": 0, "the cases": ["a"]})
    with pytest.raises(UserError, match=r"differ in the checkpoint. Fix: let all machines share"):
        ranks.require_same({"the checkpoint": 8, "the cases": ["a"]})


def test_what_the_first_process_refuses_all_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def refuse() -> None:
        raise UserError("somebody trains here")

    for number, other in ((0, None), (1, UserError("somebody trains here"))):
        with pytest.raises(UserError, match="somebody trains here"):
            of_two(monkeypatch, number, other).on_first(refuse)
    of_two(monkeypatch, 1, None).on_first(lambda: done.append("by the second"))
    assert not done


def test_another_number_of_processes_is_told() -> None:
    said: list[str] = []
    Ranks(0, 3).tell_change(2, said.append)
    assert len(said) == 1 and "3 processes go on with what 2 began" in said[0]


def test_a_process_computes_on_the_gpu_that_its_launcher_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 5 is the second process of a second machine of four GPUs; nnU-Net would take GPU 5."""
    cpu, asked, taken = torch.device("cpu"), torch.device("cuda"), torch.device("cuda", 5)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    assert device_of_process(asked, taken) == taken  # nnUNetv2_train -num_gpus sets no variables
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "0")  # of another launch, around this one
    assert device_of_process(asked, taken) == taken
    monkeypatch.setenv("RANK", "5")
    assert device_of_process(asked, taken) == torch.device("cuda", 1)
    assert device_of_process(cpu, taken) == cpu


def test_nnunet_wraps_no_network_inside_the_block() -> None:
    before, network = stock.DDP, torch.nn.Linear(2, 1)
    with pytest.raises(KeyError), without_wrapper():
        assert stock.DDP(network, device_ids=[0]) is network
        raise KeyError
    assert stock.DDP is before
