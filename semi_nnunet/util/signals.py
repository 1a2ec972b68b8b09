"""Handlers of signals for a while."""

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
    """Let signals call ``handler`` inside the block; restore their handlers afterwards.

    Does nothing outside the main thread, where Python receives no signals.

    Args:
        names: such as "SIGTERM"; signals that the system does not have are skipped.
        handler: gets the number of the signal and the frame.
        only_by_default: skip signals that already have a handler or are ignored.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number and not (only_by_default and signal.getsignal(number) != signal.SIG_DFL):
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
