"""Sums over the processes of a training."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from semi_nnunet.core import processes
from semi_nnunet.core.processes import all_reduce_mean, all_reduce_sum


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """Return the address of a process group, which is destroyed after the test."""
    yield f"file://{tmp_path / 'store'}"
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_in_second_process(store: str, rank: int) -> None:
    """Sum as the second of two processes."""
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    values = (torch.tensor([1.0, 10.0]) * (rank + 1)).requires_grad_()
    (all_reduce_sum(values) * torch.tensor([5.0, 1.0])).sum().backward()
    dist.destroy_process_group()  # threads of gloo that are left abort a process that ends


def test_a_single_process_returns_its_value() -> None:
    x = torch.tensor([1.0, 2.0])
    assert all_reduce_sum(x) is x


def test_two_processes_sum_their_values_and_gradients(store: str) -> None:
    other = multiprocessing.get_context("spawn").Process(
        target=sum_in_second_process, args=(store, 1)
    )
    other.start()
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=2)
    values = torch.tensor([1.0, 10.0], requires_grad=True)
    total = all_reduce_sum(values)
    (total * torch.tensor([2.0, 1.0])).sum().backward()
    other.join(60)
    assert other.exitcode == 0
    assert total.tolist() == [3.0, 30.0] and values.tolist() == [1.0, 10.0]
    assert values.grad is not None and values.grad.tolist() == [7.0, 2.0]  # of both processes


def test_dividing_by_the_mean_count_gives_the_mean_over_all_voxels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sums, counts = torch.tensor([6.0, 4.0]), torch.tensor([2.0, 8.0])  # of two processes
    assert all_reduce_mean(counts) is counts  # of a single process

    def mean_count(number: int) -> torch.Tensor:
        other = torch.stack([counts[1 - number], torch.tensor(1.0)])
        monkeypatch.setattr(processes, "has_other_processes", lambda: True)
        monkeypatch.setattr(processes, "all_reduce_sum", lambda values: values + other)
        return all_reduce_mean(counts[number])

    shares = [sums[number] / mean_count(number) for number in range(2)]
    assert sum(shares) / 2 == sums.sum() / counts.sum()
