"""Sums over the processes of a training."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from semi_nnunet.core.processes import all_reduce_mean, all_reduce_sum


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """Where processes meet; afterwards this one is alone again."""
    yield f"file://{tmp_path / 'store'}"
    if dist.is_initialized():
        dist.destroy_process_group()


def take_part(store: str, rank: int) -> None:
    """Add up as the second of two processes."""
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    all_reduce_sum(torch.tensor([1.0, 10.0]) * (rank + 1))
    dist.destroy_process_group()  # threads of gloo that are left abort a process that ends


def test_a_process_that_is_alone_has_the_sum() -> None:
    x = torch.tensor([1.0, 2.0])
    assert all_reduce_sum(x) is x


def test_two_processes_add_up_what_each_has_and_keep_their_own(store: str) -> None:
    other = multiprocessing.get_context("spawn").Process(target=take_part, args=(store, 1))
    other.start()
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=2)
    own = torch.tensor([1.0, 10.0])
    total = all_reduce_sum(own)
    other.join(60)
    assert other.exitcode == 0
    assert total.tolist() == [3.0, 30.0] and own.tolist() == [1.0, 10.0]


def test_divided_by_the_mean_of_the_counts_the_mean_is_that_of_all_voxels() -> None:
    sums, counts = torch.tensor([6.0, 4.0]), torch.tensor([2.0, 8.0])  # of two processes

    def with_the_others(number: int) -> torch.Tensor:
        other = torch.stack([counts[1 - number], torch.tensor(1.0)])
        return all_reduce_mean(counts[number], lambda own: own + other)

    shares = [sums[number] / with_the_others(number) for number in range(2)]
    assert sum(shares) / 2 == sums.sum() / counts.sum()
    assert all_reduce_mean(counts, None) is counts
