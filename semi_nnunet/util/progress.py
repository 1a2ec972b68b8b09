"""How far long work is and how long it will take: estimated, printed, and read back from a log.

One line means the same everywhere, ``3 of 10 epochs done, about 5 min left``: :class:`Progress`
writes and parses it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
RECENT = 10  # epochs or cases that an estimate looks at


@dataclass(frozen=True)
class Progress:
    """Where a piece of work is.

    Args:
        done, total: epochs of a training, or cases.
        unit: "epoch" or "case".
        left: readable time, as the worker estimates it.
    """

    done: int
    total: int
    unit: str
    left: str

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.unit}s done, about {self.left} left"

    @classmethod
    def parse(cls, line: str) -> Progress | None:
        """The progress that a line of output tells, None for any other line."""
        found = LINE.search(line)
        return found and cls(int(found[1]), int(found[2]), found[3], found[4])


LINE = re.compile(r"\b(\d+) of (\d+) (epoch|case)s done, about (.+) left")


class TimeLeft:
    """Estimate the rest of the work from its last ten units."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def after(self, seconds: float, units_left: int) -> str:
        """The estimate after a unit that took ``seconds``, as "45 s", "12 min" or "3.5 h"."""
        self._seconds = [*self._seconds[1 - RECENT :], seconds]
        return readable_time(units_left * sum(self._seconds) / len(self._seconds))


def readable_time(seconds: float) -> str:
    """Such as "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def with_progress(done: Iterable[T], total: int) -> Iterator[T]:
    """Print, as each case is done, how many are and how long the others will take."""
    time_left, before = TimeLeft(), time.monotonic()
    for number, one in enumerate(done, start=1):
        now = time.monotonic()
        left, before = time_left.after(now - before, total - number), now
        print(Progress(number, total, "case", left), flush=True)
        yield one
