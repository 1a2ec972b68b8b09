"""What happened in the steps of an epoch: collected on the device, copied from it at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch


class StepRecords:
    """Values of the steps of one epoch, on the device until :meth:`means` copies them at once."""

    def __init__(self) -> None:
        self._values: dict[str, list[torch.Tensor | float]] = {}

    def add(self, name: str, value: torch.Tensor | float) -> None:
        """Note a scalar; NaN where a step has none."""
        self._values.setdefault(name, []).append(
            value.detach() if isinstance(value, torch.Tensor) else value
        )

    def state(self) -> dict[str, list[float]]:
        """The values since the last :meth:`means`, for a checkpoint within an epoch."""
        return {name: [float(one) for one in values] for name, values in self._values.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over :meth:`state`."""
        self._values = {name: list(values) for name, values in state.items()}

    def means(self) -> dict[str, float]:
        """The mean of each name since the last call, over the steps that have one; forgets them.

        Of no step: NaN.
        """
        means: dict[str, float] = {}
        for name, values in self._values.items():
            tensors = [
                value.float().reshape(()) for value in values if isinstance(value, torch.Tensor)
            ]
            numbers = [float(value) for value in values if not isinstance(value, torch.Tensor)]
            if tensors:
                numbers += torch.stack(tensors).cpu().tolist()
            there = [number for number in numbers if not math.isnan(number)]
            means[name] = sum(there) / len(there) if there else math.nan
        self._values.clear()
        return means


def total_loss(means: Mapping[str, float]) -> float:
    """The sum of the terms of the loss, each with its weight, of what :meth:`StepRecords.means`
    returns.
    """
    names = [key.removeprefix("loss/") for key in means if key.startswith("loss/")]
    return sum(means[f"loss/{name}"] * means[f"weight/{name}"] for name in names)
