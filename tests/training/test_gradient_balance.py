"""The limit of the unlabelled gradient relative to the supervised one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from semi_nnunet.training.gradients import GradientBalance, GradientLimit
from semi_nnunet.training.step_records import StepRecords
from tests.trainers import UNLABELLED_TRAINERS, WITHOUT_RAMP, each_of, same_weights, weights_of


def copy_gradients(network: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("limit", [0.0, 0.25, 1.0, 1e6])
@pytest.mark.parametrize("batches", [1, 2])
def test_the_unlabelled_gradient_is_scaled_to_the_limit(limit: float, batches: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    extra = nn.Linear(3, 1)  # only unlabelled images teach it
    both = nn.ModuleList([network, extra])
    labelled, unlabelled = torch.randn(batches, 5, 3), 3 * torch.randn(batches, 5, 3)
    records = StepRecords()
    balance = GradientBalance([network, extra], GradientLimit(limit), records)

    def compute_terms(i: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = unlabelled[i]
        return (network(labelled[i]) ** 2).sum(), [(network(x) ** 2).sum(), extra(x).sum()]

    expected = []
    for is_unlabelled in (False, True):
        both.zero_grad()
        for i in range(batches):
            supervised, others = compute_terms(i)
            (sum(others) if is_unlabelled else supervised).backward()
        expected.append(copy_gradients(both))
    norms = [torch.cat([g.flatten() for g in gradients]).norm() for gradients in expected]
    factor = min(1.0, limit * norms[0] / norms[1]) if limit else 1.0
    both.zero_grad()
    for i in range(batches):
        supervised, others = compute_terms(i)
        supervised.backward()
        for term in others:
            balance.begin_unlabelled(i == batches - 1)
            term.backward()
        balance.end_batch()
    balance.combine(0)
    for gradient, first, second in zip(copy_gradients(both), *expected, strict=True):
        torch.testing.assert_close(gradient, first + factor * second)
    if limit:
        ratio = records.means()["gradient/unlabelled_over_supervised"]
        assert ratio == pytest.approx(float(norms[1] / norms[0]), rel=1e-5)


@pytest.mark.parametrize(("limit", "times"), [(0.0, 1), (0.5, 2)])
def test_with_a_limit_both_gradients_are_averaged(
    limit: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their norms are those of the whole batch. Without a limit their sum is sent once."""
    sent: list[int] = []

    class Arrived:
        def wait(self) -> None:
            pass

    def send(tensor: torch.Tensor, async_op: bool) -> Arrived:
        sent.append(tensor.numel())
        tensor *= 2  # the other process has the same gradient
        return Arrived()

    monkeypatch.setattr(torch.distributed, "all_reduce", send)
    network = nn.Linear(3, 4)
    balance = GradientBalance([network], GradientLimit(limit), StepRecords(), processes=2)
    network(torch.ones(2, 3)).sum().backward()
    supervised = copy_gradients(network)
    balance.begin_unlabelled(True)
    (4 * network(torch.ones(2, 3)).sum()).backward()
    balance.end_batch()
    balance.combine(0)
    assert sum(sent) == times * sum(parameter.numel() for parameter in network.parameters())
    factor = 1 + 4 * min(1.0, limit / 4 if limit else 1.0)
    for gradient, expected in zip(copy_gradients(network), supervised, strict=True):
        torch.testing.assert_close(gradient, factor * expected)


def test_a_limit_falls_evenly_on_a_logarithmic_scale() -> None:
    limit = GradientLimit(2.0, 0.5, 100)
    assert [limit.at(step) for step in (0, 50, 100, 200)] == pytest.approx([2.0, 1.0, 0.5, 0.5])
    assert GradientLimit(2.0).at(70) == 2.0
    assert GradientLimit(0.0, 0.5, 100).at(70) == 0.0  # no limit


def test_a_step_whose_gradient_overflows_has_no_ratio() -> None:
    """The scaler of float16 skips such a step, and the epoch's mean leaves it out."""
    network, records = nn.Linear(1, 1, bias=False), StepRecords()
    balance = GradientBalance([network], GradientLimit(1.0), records)
    for supervised, unlabelled in ((2.0, 1.0), (float("inf"), float("inf")), (2.0, float("inf"))):
        network.zero_grad()
        (network.weight * supervised).sum().backward()
        balance.begin_unlabelled(True)
        (network.weight * unlabelled).sum().backward()
        balance.end_batch()
        balance.combine(0)
        assert bool(network.weight.grad.isfinite().all()) == (unlabelled == 1.0)
    assert records.means()["gradient/unlabelled_over_supervised"] == pytest.approx(0.5)


@each_of(UNLABELLED_TRAINERS)
def test_a_limit_that_is_never_reached_changes_nothing_but_rounding(
    name: str, make_trainer: Any
) -> None:
    after = []
    for limit in (0.0, 1e9, 1e-9):
        settings = {**WITHOUT_RAMP, "follow_trust": False, "unlabelled_gradient_limit": limit}
        trainer = make_trainer(name, optimizer="sgd", momentum=0.0, **settings)
        trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    for key, value in after[0].items():
        torch.testing.assert_close(after[1][key], value, rtol=1e-4, atol=1e-6)
    assert not same_weights(after[0], after[2])
