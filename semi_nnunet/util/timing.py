"""Time pieces of work in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

UNCOUNTED = 3  # rounds before those that count, in which memory and kernels are found


@dataclass(frozen=True)
class Seconds:
    """How long a repeated piece of work took: the median, and between which half of it lay."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Seconds:
        """The summary of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def in_turn(
    parts: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    uncounted: int = UNCOUNTED,
) -> dict[str, Seconds]:
    """How long each part takes, one after the other in every round.

    Args:
        parts: by name.
        rounds: that count, two or more.
        device: that is waited for after each part.
        uncounted: rounds before those.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(uncounted + rounds):
        for name, seconds in one_round(parts, device).items():
            if number >= uncounted:
                times[name].append(seconds)
    return {name: Seconds.of(values) for name, values in times.items()}


def one_round(parts: Mapping[str, Callable[[], Any]], device: torch.device) -> dict[str, float]:
    """Seconds of each part, one after the other; the device is waited for after each."""
    times = dict[str, float]()
    for name, part in parts.items():
        began = time.perf_counter()
        part()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times[name] = time.perf_counter() - began
    return times
