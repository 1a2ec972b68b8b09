"""Optimizer, schedule and deep supervision of the settings."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import resolve
from semi_nnunet.training import checkpoints
from semi_nnunet.training.optimisation import (
    PlateauSchedule,
    WarmUpSchedule,
    build_optimizer,
    wrap_deep_supervision,
)

FACTS = DatasetProperties(4, 4, 2, (32, 32), (32.0, 32.0))


def settings(**changes: Any) -> SemiSettings:
    return dataclasses.replace(resolve(SemiSettings, FACTS, {}).settings, **changes)


def build(**changes: Any) -> tuple[torch.optim.Optimizer, Any]:
    return build_optimizer([nn.Parameter(torch.ones(2))], settings(**changes))


def get_rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def test_the_default_is_nnunets_optimizer_and_schedule():
    optimizer, schedule = build()
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.SGD and type(schedule) is PolyLRScheduler
    assert group["lr"] == 1e-2 and group["momentum"] == 0.99 and group["nesterov"] is True
    assert group["weight_decay"] == 3e-5


def test_sgd_and_adam_take_their_settings():
    optimizer, _ = build(initial_lr=0.5, momentum=0.7, weight_decay=0.1)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.7, 0.1)
    optimizer, _ = build(optimizer="adam", initial_lr=1e-4, weight_decay=0.2)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 1e-4
    assert optimizer.param_groups[0]["weight_decay"] == 0.2


def test_sgd_without_momentum_is_not_nesterov():
    optimizer, _ = build(momentum=0.0)
    assert optimizer.param_groups[0]["nesterov"] is False


def test_poly_equals_its_formula_and_nnunets_schedule():
    optimizer, schedule = build(initial_lr=0.02, epochs=50)
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.02)
    theirs = PolyLRScheduler(other, 0.02, 50)
    for epoch in range(50):
        schedule.step(epoch)
        theirs.step(epoch)
        assert get_rate(optimizer) == pytest.approx(0.02 * (1 - epoch / 50) ** 0.9)
        assert get_rate(optimizer) == get_rate(other)


def test_a_warm_up_rises_linearly_into_the_schedule():
    optimizer, schedule = build(initial_lr=0.02, epochs=50, warm_up_epochs=4)
    assert type(schedule) is WarmUpSchedule
    first = get_rate(optimizer)
    for epoch in range(50):
        schedule.step(epoch)
        share = min(1, (epoch + 1) / 5)
        assert get_rate(optimizer) == pytest.approx(0.02 * (1 - epoch / 50) ** 0.9 * share)
        assert epoch or get_rate(optimizer) == first == pytest.approx(0.004)


def test_plateau_lowers_the_rate_after_its_patience():
    optimizer, schedule = build(
        lr_schedule="plateau", initial_lr=1.0, plateau_factor=0.1, plateau_patience_epochs=3
    )
    rates = []
    for epoch, loss in enumerate([5, 4, 4, 4, 4, 4, 4, 4, 4, 4]):
        schedule.step(epoch)
        schedule.observe(loss)
        rates.append(get_rate(optimizer))
    assert rates == pytest.approx([1] * 5 + [0.1] * 4 + [0.01])


def test_plateau_keeps_the_rate_while_the_loss_falls_even_below_zero():
    optimizer, schedule = build(lr_schedule="plateau", initial_lr=1.0, plateau_patience_epochs=1)
    for epoch in range(20):
        schedule.step(epoch)
        schedule.observe(1 - 0.1 * epoch)
    assert get_rate(optimizer) == 1.0


def test_plateau_continues_from_a_checkpoint(tmp_path):
    optimizer, schedule = build(lr_schedule="plateau", initial_lr=1.0, plateau_patience_epochs=3)
    for loss in (5, 4, 4, 4):
        schedule.observe(loss)
    state = {"network_weights": {}, "schedule": schedule.state_dict()}
    checkpoints.save(state, tmp_path / "x.pth")
    resumed_optimizer, resumed = build(
        lr_schedule="plateau", initial_lr=1.0, plateau_patience_epochs=3
    )
    assert isinstance(resumed, PlateauSchedule)
    resumed.load_state_dict(checkpoints.read_checkpoint(tmp_path / "x.pth")["schedule"])
    for _ in range(4):
        schedule.observe(4)
        resumed.observe(4)
        assert get_rate(resumed_optimizer) == get_rate(optimizer)
    assert get_rate(optimizer) == pytest.approx(0.1)


class MeanOutput(nn.Module):
    """The mean of the output, whatever the target."""

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.mean()


@pytest.mark.parametrize("scales", [2, 3, 5])
def test_deep_supervision_weighs_as_nnunet_does(scales):
    weights = np.array([1 / 2**i for i in range(scales)])
    weights[-1] = 0.0
    weights /= weights.sum()
    values = torch.arange(1.0, scales + 1)
    loss = wrap_deep_supervision(MeanOutput(), [1.0] * scales)(list(values), list(values))
    assert loss.item() == pytest.approx(float((weights * values.numpy()).sum()))


def test_a_single_output_has_the_whole_weight():
    output = [torch.tensor(3.0)]
    assert wrap_deep_supervision(MeanOutput(), [1.0])(output, output).item() == 3.0
