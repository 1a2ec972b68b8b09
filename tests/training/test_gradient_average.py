"""Gradients are averaged over processes, and each is sent once a step."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

from semi_nnunet.training.gradients import GradientAverage, group_into_buckets
from tests.forking import forked
from tests.ranks import free_port, told_by_launcher

SIZES, RANKS, STEPS = (7, 11, 5, 3), 2, 4


def build_networks() -> list[nn.Module]:
    """Two networks of several layers; one layer is unused."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
    return [nn.Sequential(*layers), nn.ModuleList([nn.Linear(7, 2), nn.Linear(7, 2)])]


def compute_terms(networks: list[nn.Module], step: int, rank: int) -> list[torch.Tensor]:
    """Losses of a step; their number changes, and the last one does not use all layers."""
    torch.manual_seed(10 * step + rank)
    first, second = networks
    x = torch.randn(4, 7)
    terms = [first(x).square().mean(), second[0](x).square().mean(), first(2 * x).abs().mean()]
    return terms[: 2 + (step != 1)]


@pytest.mark.parametrize("bucket_bytes", [1, 200, 10**9], ids=["each", "some", "all"])
def test_buckets_hold_every_parameter_once_the_last_first(bucket_bytes: int) -> None:
    parameters = [p for network in build_networks() for p in network.parameters()]
    parameters[1].requires_grad_(False)
    buckets = group_into_buckets(parameters, bucket_bytes)
    assert [i for bucket in buckets for i in bucket] == [
        i for i in reversed(range(len(parameters))) if i != 1
    ]
    sizes = [sum(4 * parameters[i].numel() for i in bucket) for bucket in buckets]
    assert all(size <= bucket_bytes or len(bucket) == 1
               for size, bucket in zip(sizes, buckets, strict=True))  # fmt: skip
    halves = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.float16))]
    assert group_into_buckets(halves, 10**9) == [[1], [0]]


def test_one_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **options: pytest.fail("it sends"))
    network = nn.Linear(2, 1)
    average = GradientAverage([network], 1)
    average.begin_pass(is_last=True)
    network(torch.ones(1, 2)).backward()
    gradient = network.weight.grad.clone()
    average.finish()
    average.begin([p.grad for p in network.parameters()]).average()
    assert torch.equal(gradient, network.weight.grad)


def run_rank(variables: dict[str, str], bucket_bytes: int, expected: str, out: Path) -> None:
    """Average the gradients of some steps; save them and the sizes of all messages."""
    os.environ.update(variables)
    dist.init_process_group("gloo")
    rank, send = dist.get_rank(), dist.all_reduce
    sent: list[tuple[int, bool]] = []
    in_a_pass = [False]

    def counted(tensor: torch.Tensor, **options: Any) -> Any:
        sent.append((tensor.numel(), in_a_pass[0]))
        return send(tensor, **options)

    dist.all_reduce = counted
    networks, steps, passes = build_networks(), [], 0
    average = GradientAverage(networks, RANKS, bucket_bytes)
    for step in range(STEPS):
        sent.clear()
        for network in networks:
            network.zero_grad(set_to_none=True)
        terms = compute_terms(networks, step, rank)
        last = {"known": len(terms), "before": passes, "never": 0, "first": 1}[expected]
        for number, term in enumerate(terms, 1):
            average.begin_pass(is_last=number == last)
            in_a_pass[0] = True
            term.backward()
            in_a_pass[0] = False
        passes = len(terms)
        gradients = [p.grad for network in networks for p in network.parameters()]
        average.finish()
        steps.append({"gradients": gradients, "sent": list(sent)})
    torch.save(steps, out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(bucket_bytes: int, expected: str, out: Path) -> list[Any]:
    """Return the results of both processes."""
    out.mkdir()
    port = free_port()
    variables = [told_by_launcher(rank, RANKS, port, out) for rank in range(RANKS)]
    processes = [forked(run_rank, v, bucket_bytes, expected, out) for v in variables]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [torch.load(out / f"{rank}.pt") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Expected last pass -> results of both processes."""
    out = tmp_path_factory.mktemp("ranks")
    return {
        expected: run_ranks(200, expected, out / expected)
        for expected in ("known", "before", "never", "first")
    }


def test_gradients_are_the_mean_of_the_processes(results: dict[str, list[Any]]) -> None:
    networks = build_networks()
    parameters = [p for network in networks for p in network.parameters()]
    for step in range(STEPS):
        for network in networks:
            network.zero_grad(set_to_none=True)
        for rank in range(RANKS):
            (torch.stack(compute_terms(networks, step, rank)).sum() / RANKS).backward()
        for steps in itertools.chain(*results.values()):
            for gradient, parameter in zip(steps[step]["gradients"], parameters, strict=True):
                assert (gradient is None) == (parameter.grad is None)
                if gradient is not None:
                    torch.testing.assert_close(gradient, parameter.grad)


def test_gradients_are_bit_identical_on_all_processes_whenever_they_are_sent(
    results: dict[str, list[Any]],
) -> None:
    first, *others = itertools.chain(*results.values())
    for other in others:
        for step, other_step in zip(first, other, strict=True):
            pairs = zip(step["gradients"], other_step["gradients"], strict=True)
            assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_gradients_are_sent_once_and_during_the_last_pass(results: dict[str, list[Any]]) -> None:
    for expected in ("known", "before", "never"):
        for step, result in enumerate(results[expected][0]):
            used = sum(g.numel() for g in result["gradients"] if g is not None)
            during_pass = sum(size for size, inside in result["sent"] if inside)
            if (expected, step) == ("before", 2):
                continue  # the second of three passes was taken for the last: sent again
            assert sum(size for size, _ in result["sent"]) == used, (expected, step)
            # if the last pass is like that of the step before
            is_predicted = (expected, step) in {("known", 3), ("before", 3)}
            assert (during_pass > used / 2) == is_predicted
