"""Other handlers of signals for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(
    names: Sequence[str], handler: Handler, only_by_default: bool = False
) -> Iterator[None]:
    """Inside the block, signals call ``handler``; afterwards what they did before.

    Outside the main thread, where Python receives no signals, nothing changes.

    Args:
        names: of the signals, such as "SIGTERM"; those that the system has not are left out.
        handler: gets the number and the frame.
        only_by_default: leave out signals that do something else already, or are ignored.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number and not (only_by_default and signal.getsignal(number) != signal.SIG_DFL):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
