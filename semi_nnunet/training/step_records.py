"""Values of the steps of an epoch, kept on the device until all are copied at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from semi_nnunet.util.errors import UserError


class StepRecords:
    """A list of values for each name, kept on the device until :meth:`means` copies all at once.

    >>> records = StepRecords()
    >>> for value in (1.0, torch.tensor(3.0), math.nan):
    ...     records.add("loss/supervised", value)
    >>> records.means()
    {'loss/supervised': 2.0}
    """

    def __init__(self) -> None:
        self._values: dict[str, list[torch.Tensor | float]] = {}

    def add(self, name: str, value: torch.Tensor | float) -> None:
        """Record a scalar; NaN stands for a step without a value."""
        self._values.setdefault(name, []).append(
            value.detach() if isinstance(value, torch.Tensor) else value
        )

    def state(self) -> dict[str, list[float]]:
        """Return the values since the last :meth:`means`, for a checkpoint within an epoch."""
        return {name: [float(v) for v in values] for name, values in self._values.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore the values that :meth:`state` returned."""
        self._values = {name: list(values) for name, values in state.items()}

    def means(self) -> dict[str, float]:
        """Return the mean of each value since the last call, and reset.

        Steps without a value (NaN) are left out; NaN if no step has one.
        """
        means: dict[str, float] = {}
        for name, values in self._values.items():
            tensors = [
                value.float().reshape(()) for value in values if isinstance(value, torch.Tensor)
            ]
            numbers = [float(value) for value in values if not isinstance(value, torch.Tensor)]
            if tensors:
                numbers += torch.stack(tensors).cpu().tolist()
            numbers = [number for number in numbers if not math.isnan(number)]
            means[name] = sum(numbers) / len(numbers) if numbers else math.nan
        self._values.clear()
        return means


def total_loss(means: Mapping[str, float]) -> float:
    """Return the weighted sum of all loss terms in the means of an epoch.

    >>> total_loss({"loss/supervised": 0.5, "weight/supervised": 1.0,
    ...             "loss/consistency": 0.1, "weight/consistency": 10.0, "mask_ratio": 0.9})
    1.5
    """
    names = [key.removeprefix("loss/") for key in means if key.startswith("loss/")]
    return sum(means[f"loss/{name}"] * means[f"weight/{name}"] for name in names)


@dataclass(frozen=True)
class StepValue:
    """A value of one step to be checked.

    Args:
        name: such as "the term 'consistency'".
        value: scalar on the device.
        cases: cases that the value was computed on.
    """

    name: str
    value: torch.Tensor
    step: int
    cases: tuple[str, ...]


class NonFiniteWatch:
    """Stops the training if a loss term is NaN or infinite.

    Args:
        at_once: check at the end of every step. Otherwise values are collected and checked at the
            end of the epoch, because reading a value makes the program wait for its GPU.
    """

    def __init__(self, at_once: bool):
        self.at_once = at_once
        self._values: list[StepValue] = []

    def add(self, value: StepValue) -> None:
        """Collect a value."""
        self._values.append(value)

    def check(self, now: bool = False) -> None:
        """Check the values collected since the last check.

        Args:
            now: check even if the watch does not check at once.

        Raises:
            UserError: a value is NaN or infinite; names the first one, its step and its cases.
        """
        if not self._values or not (now or self.at_once):
            return
        values = torch.stack([item.value.float() for item in self._values]).cpu().tolist()
        collected, self._values = self._values, []
        for item, value in zip(collected, values, strict=True):
            if not math.isfinite(value):
                raise UserError(
                    f"training stopped at step {item.step}: {item.name} became {value} "
                    f"on the cases {', '.join(item.cases)}. Earlier checkpoints are intact",
                    fix="look at these images (semi_nnunet preprocess verifies them) and at the "
                    "learning rate, then continue with --c",
                )
