"""Time pieces of work in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

UNCOUNTED = 3  # first rounds, in which memory is allocated and kernels are chosen


@dataclass(frozen=True)
class Seconds:
    """The median duration of repeated work, and its quartiles.

    >>> Seconds.of([1.0, 2.0, 3.0, 4.0, 5.0])
    Seconds(median=3.0, low=2.0, high=4.0)
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Seconds:
        """Summarise two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def divided_by(self, count: int) -> Seconds:
        """Return the duration of one of ``count`` pieces of the work."""
        return Seconds(self.median / count, self.low / count, self.high / count)


def in_turn(
    tasks: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    uncounted: int = UNCOUNTED,
) -> dict[str, Seconds]:
    """Time tasks, one after the other in every round, so that drift affects all equally.

    Args:
        tasks: by name.
        rounds: counted rounds, two or more.
        device: synchronised after each task.
        uncounted: rounds before the counted ones.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(uncounted + rounds):
        for name, seconds in one_round(tasks, device).items():
            if number >= uncounted:
                times[name].append(seconds)
    return {name: Seconds.of(values) for name, values in times.items()}


def one_round(tasks: Mapping[str, Callable[[], Any]], device: torch.device) -> dict[str, float]:
    """Return the seconds of each task, one after the other; the device is synchronised."""
    times = dict[str, float]()
    for name, task in tasks.items():
        began = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times[name] = time.perf_counter() - began
    return times
