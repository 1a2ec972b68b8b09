"""Gradients are averaged over processes, each sent once a step, whenever it is sent."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

from semi_nnunet.training.gradient_average import GradientAverage, buckets_of
from tests.forking import forked
from tests.ranks import free_port, told_by_launcher

SIZES, RANKS, STEPS = (7, 11, 5, 3), 2, 4


def two_networks() -> list[nn.Module]:
    """Networks of several layers, one of which nothing uses."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
    return [nn.Sequential(*layers), nn.ModuleList([nn.Linear(7, 2), nn.Linear(7, 2)])]


def terms_of(networks: list[nn.Module], step: int, rank: int) -> list[torch.Tensor]:
    """Losses of a step; the number of them changes, and the last one is not of all layers."""
    torch.manual_seed(10 * step + rank)
    first, second = networks
    x = torch.randn(4, 7)
    terms = [first(x).square().mean(), second[0](x).square().mean(), first(2 * x).abs().mean()]
    return terms[: 2 + (step != 1)]


@pytest.mark.parametrize("most", [1, 200, 10**9], ids=["each", "some", "all"])
def test_buckets_hold_every_parameter_once_the_last_first(most: int) -> None:
    parameters = [p for network in two_networks() for p in network.parameters()]
    parameters[1].requires_grad_(False)
    buckets = buckets_of(parameters, most)
    assert [i for bucket in buckets for i in bucket] == [
        i for i in reversed(range(len(parameters))) if i != 1
    ]
    sizes = [sum(4 * parameters[i].numel() for i in bucket) for bucket in buckets]
    assert all(size <= most or len(bucket) == 1
               for size, bucket in zip(sizes, buckets, strict=True))  # fmt: skip
    halves = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.float16))]
    assert buckets_of(halves, 10**9) == [[1], [0]]


def test_one_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **options: pytest.fail("it sends"))
    network = nn.Linear(2, 1)
    average = GradientAverage([network], 1)
    average.pass_begins(is_last=True)
    network(torch.ones(1, 2)).backward()
    before = network.weight.grad.clone()
    average.finish()
    average.begin([p.grad for p in network.parameters()]).average()
    assert torch.equal(before, network.weight.grad)


def on_a_rank(told: dict[str, str], bucket_bytes: int, expected: str, out: Path) -> None:
    """Average the gradients of some steps, and note them and what was sent during a pass."""
    os.environ.update(told)
    dist.init_process_group("gloo")
    rank, send = dist.get_rank(), dist.all_reduce
    sent: list[tuple[int, bool]] = []
    in_a_pass = [False]

    def counted(tensor: torch.Tensor, **options: Any) -> Any:
        sent.append((tensor.numel(), in_a_pass[0]))
        return send(tensor, **options)

    dist.all_reduce = counted
    networks, steps, before = two_networks(), [], 0
    average = GradientAverage(networks, RANKS, bucket_bytes)
    for step in range(STEPS):
        sent.clear()
        for network in networks:
            network.zero_grad(set_to_none=True)
        terms = terms_of(networks, step, rank)
        last = {"known": len(terms), "before": before, "never": 0, "first": 1}[expected]
        for number, term in enumerate(terms, 1):
            average.pass_begins(is_last=number == last)
            in_a_pass[0] = True
            term.backward()
            in_a_pass[0] = False
        before = len(terms)
        gradients = [p.grad for network in networks for p in network.parameters()]
        average.finish()
        steps.append({"gradients": gradients, "sent": list(sent)})
    torch.save(steps, out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def averaged(bucket_bytes: int, expected: str, out: Path) -> list[Any]:
    """What both processes have noted."""
    out.mkdir()
    port = free_port()
    told = [told_by_launcher(rank, RANKS, port, out) for rank in range(RANKS)]
    processes = [forked(on_a_rank, each, bucket_bytes, expected, out) for each in told]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [torch.load(out / f"{rank}.pt") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Which pass is taken for the last one -> what both processes have noted."""
    out = tmp_path_factory.mktemp("ranks")
    return {kind: averaged(200, kind, out / kind) for kind in ("known", "before", "never", "first")}


def test_gradients_are_the_mean_of_the_processes(every: dict[str, list[Any]]) -> None:
    networks = two_networks()
    parameters = [p for network in networks for p in network.parameters()]
    for step in range(STEPS):
        for network in networks:
            network.zero_grad(set_to_none=True)
        for rank in range(RANKS):
            (torch.stack(terms_of(networks, step, rank)).sum() / RANKS).backward()
        for noted in every.values():
            for of_rank in noted:
                for found, parameter in zip(of_rank[step]["gradients"], parameters, strict=True):
                    assert (found is None) == (parameter.grad is None)
                    if found is not None:
                        torch.testing.assert_close(found, parameter.grad)


def test_not_a_bit_depends_on_the_process_or_on_when_gradients_are_sent(
    every: dict[str, list[Any]],
) -> None:
    first, *others = [of_rank for noted in every.values() for of_rank in noted]
    for other in others:
        for one, same in zip(first, other, strict=True):
            pairs = zip(one["gradients"], same["gradients"], strict=True)
            assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_gradients_are_sent_once_and_during_the_last_pass(every: dict[str, list[Any]]) -> None:
    for kind in ("known", "before", "never"):
        for step, noted in enumerate(every[kind][0]):
            used = sum(one.numel() for one in noted["gradients"] if one is not None)
            during = sum(size for size, inside in noted["sent"] if inside)
            if (kind, step) == ("before", 2):
                continue  # it took the second of three passes for the last one, and sent again
            assert sum(size for size, _ in noted["sent"]) == used, (kind, step)
            # in a step whose last pass is as that of the step before
            assert (during > used / 2) == ((kind, step) in {("known", 3), ("before", 3)})
