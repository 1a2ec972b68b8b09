"""Progress of long work: estimated, logged, and read back from a log.

The line ``3 of 10 epochs done, about 5 min left`` means the same everywhere: :class:`Progress`
writes and parses it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
RECENT = 10  # epochs or cases on which an estimate is based

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The progress of a piece of work.

    >>> print(Progress(3, 10, "epoch", "5 min"))
    3 of 10 epochs done, about 5 min left

    Args:
        done, total: epochs of a training, or cases.
        unit: "epoch" or "case".
        left: remaining time for people, as the worker estimates it.
    """

    done: int
    total: int
    unit: str
    left: str

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.unit}s done, about {self.left} left"

    @classmethod
    def parse(cls, line: str) -> Progress | None:
        """Return the progress in a line of output, or ``None`` for any other line."""
        match = LINE.search(line)
        return match and cls(int(match[1]), int(match[2]), match[3], match[4])


LINE = re.compile(r"\b(\d+) of (\d+) (epoch|case)s done, about (.+) left")


class TimeLeft:
    """An estimate of the remaining time, from the last ten units of work."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def after(self, seconds: float, units_left: int) -> str:
        """Return the estimate after a unit that took ``seconds``, as "45 s", "12 min", "3.5 h"."""
        self._seconds = [*self._seconds[1 - RECENT :], seconds]
        return readable_time(units_left * sum(self._seconds) / len(self._seconds))


def readable_time(seconds: float) -> str:
    """Format a duration for people.

    >>> readable_time(45), readable_time(720), readable_time(12_600)
    ('45 s', '12 min', '3.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class CaseLines:
    """Log a line for each finished case with the remaining time; none into a file or a pipe."""

    def __init__(self, total: int):
        self._total, self._done, self._time_left = total, 0, TimeLeft()
        self._previous = time.monotonic()
        self._shows = sys.stdout is not None and sys.stdout.isatty()

    def finish(self, case: str) -> None:
        """Count a case, and log it."""
        now, self._done = time.monotonic(), self._done + 1
        left = self._time_left.after(now - self._previous, self._total - self._done)
        self._previous = now
        if self._shows:
            logger.info(f"{case}: {Progress(self._done, self._total, 'case', left)}")


def with_progress(cases: Iterable[T], total: int) -> Iterator[T]:
    """Yield finished cases, and log after each how many are done and the remaining time."""
    time_left, previous = TimeLeft(), time.monotonic()
    for number, case in enumerate(cases, start=1):
        now = time.monotonic()
        left, previous = time_left.after(now - previous, total - number), now
        logger.info(str(Progress(number, total, "case", left)))
        yield case
