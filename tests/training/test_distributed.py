"""The processes of a training: shards, and collectives that a single process does not need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

from semi_nnunet.training.distributed import Ranks, select_device, without_ddp_wrapper
from semi_nnunet.util.errors import UserError


@given(st.integers(0, 64), st.integers(1, 9))
def test_the_shards_of_all_ranks_are_the_whole_batch(batch_size: int, count: int) -> None:
    sizes = [Ranks(rank, count).shard_size(batch_size) for rank in range(count)]
    assert sum(sizes) == batch_size and max(sizes) - min(sizes) <= 1


def test_a_batch_that_cannot_be_divided_is_rejected() -> None:
    Ranks(0, 2).require_divisible(4, equal_shards=True)
    Ranks(0, 2).require_divisible(3, equal_shards=False)
    with pytest.raises(UserError, match=r"multiple of .* 2, got 3"):
        Ranks(0, 2).require_divisible(3, equal_shards=True)
    with pytest.raises(UserError, match=r"at least .* 4, got 3"):
        Ranks(0, 4).require_divisible(3, equal_shards=False)


def test_one_process_changes_nothing() -> None:
    ranks, network = Ranks(), torch.nn.Linear(2, 1)
    ranks.barrier()
    assert ranks.mean({"a": 1.5}) == {"a": 1.5} and ranks.merge({"case": 1}) == {"case": 1}
    assert ranks.all_reduce([np.array([1, 2]), 3])[1] == 3 and ranks.all_gather("a") == ["a"]
    log: list[str] = []
    ranks.require_equal({"the cases": ["a"]})
    ranks.log_change(1, log.append)
    ranks.log_change(None, log.append)  # checkpoint of an earlier version
    ranks.broadcast_weights([network])
    ranks.run_on_rank_zero(lambda: log.append("done"))
    assert log == ["done"]


def pretend_two_ranks(monkeypatch: pytest.MonkeyPatch, rank: int, other: Any) -> Ranks:
    """Return one of two ranks; the other one always contributes ``other``."""

    def gather(gathered: list[Any], own: Any) -> None:
        gathered[:] = [own, other] if rank == 0 else [other, own]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    return Ranks(rank, 2)


def test_numbers_of_all_processes_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, voxels = pretend_two_ranks(monkeypatch, 0, [np.array([1, 2]), 5]).all_reduce(
        [np.array([3, 4]), 6]
    )
    assert counts.tolist() == [4, 6] and voxels == 11


def test_processes_that_see_different_files_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = pretend_two_ranks(monkeypatch, 0, {"the checkpoint": 0, "the cases": ["a"]})
    ranks.require_equal({"the checkpoint": 0, "the cases": ["a"]})
    with pytest.raises(UserError, match="the checkpoint") as error:
        ranks.require_equal({"the checkpoint": 8, "the cases": ["a"]})
    assert "the cases" not in error.value.what and "share" in error.value.fix


def test_an_error_of_rank_0_is_raised_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fail() -> None:
        raise UserError("locked")

    for rank, other in ((0, None), (1, UserError("locked"))):
        with pytest.raises(UserError, match="locked"):
            pretend_two_ranks(monkeypatch, rank, other).run_on_rank_zero(fail)
    pretend_two_ranks(monkeypatch, 1, None).run_on_rank_zero(lambda: done.append("by the second"))
    assert not done


def test_another_number_of_processes_is_logged() -> None:
    log: list[str] = []
    Ranks(0, 3).log_change(2, log.append)
    assert len(log) == 1 and "3 processes" in log[0]


def test_a_process_computes_on_the_gpu_that_its_launcher_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 5 is the second process of a second machine of four GPUs; nnU-Net would take GPU 5."""
    cpu, requested, nnunet = torch.device("cpu"), torch.device("cuda"), torch.device("cuda", 5)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    assert select_device(requested, nnunet) == nnunet  # nnUNetv2_train -num_gpus sets no variables
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "0")  # of another launch, around this one
    assert select_device(requested, nnunet) == nnunet
    monkeypatch.setenv("RANK", "5")
    assert select_device(requested, nnunet) == torch.device("cuda", 1)
    assert select_device(cpu, nnunet) == cpu


def test_nnunet_wraps_no_network_inside_the_block() -> None:
    wrapper, network = stock.DDP, torch.nn.Linear(2, 1)
    with pytest.raises(KeyError), without_ddp_wrapper():
        assert stock.DDP(network, device_ids=[0]) is network
        raise KeyError
    assert stock.DDP is wrapper
