"""Pictures of a training are drawn as often as that costs little of its time."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.01  # of a training's time, for each picture


class Paced:
    """Calls ``draw(folder)`` as often as that takes a small share of the time.

    After a drawing that took a second, the next one is a hundred seconds away. A call that comes
    earlier draws nothing; :meth:`finish` makes up for the last of those.

    Args:
        draw: writes a picture into a folder.
        share: of the time that may go into drawing.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        draw: Callable[[str], object],
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.draw, self.share, self.clock = draw, share, clock
        self._not_before = float("-inf")
        self._waiting: str | None = None  # folder of a picture that is older than its training

    def __call__(self, folder: str) -> None:
        """Draw, if it is time."""
        began = self.clock()
        if began < self._not_before:
            self._waiting = folder
            return
        self._waiting = None
        self.draw(folder)
        took = self.clock() - began
        self._not_before = self.clock() + took / self.share

    def finish(self) -> None:
        """Draw what was last left out."""
        if self._waiting is not None:
            self.draw(self._waiting)
            self._waiting = None
