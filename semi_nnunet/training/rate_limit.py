"""A limit on how often something slow is done, such as drawing a picture of a training."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.01  # of the training's time, for each picture


class RateLimited:
    """A function of a folder that runs only if it takes a small share of the time.

    After a call that took one second, calls are skipped for a hundred seconds (share 0.01).
    :meth:`flush` makes up for the last skipped call.

    >>> one_second_later = iter(range(9)).__next__
    >>> draw = RateLimited(lambda folder: print(f"draws into {folder}"), clock=one_second_later)
    >>> draw("fold_0")
    draws into fold_0
    >>> draw("fold_0")  # skipped
    >>> draw.flush()
    draws into fold_0

    Args:
        work: function to call.
        share: largest share of the time that the calls may take.
        clock: returns seconds since any point in time.
    """

    def __init__(
        self,
        work: Callable[[str], object],
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.work, self.share, self.clock = work, share, clock
        self._not_before = float("-inf")
        self._skipped: str | None = None  # folder of the last skipped call

    def __call__(self, folder: str) -> None:
        """Do the work, unless the last call was too recent."""
        start = self.clock()
        if start < self._not_before:
            self._skipped = folder
            return
        self._skipped = None
        self.work(folder)
        seconds = self.clock() - start
        self._not_before = self.clock() + seconds / self.share

    def flush(self) -> None:
        """Do the work of the last call if that was skipped."""
        if self._skipped is not None:
            self.work(self._skipped)
            self._skipped = None
