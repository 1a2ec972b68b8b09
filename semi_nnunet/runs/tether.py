"""End a process together with its parent, however the parent ended."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(patience_s: float) -> None:
    """End our process group when our stdin closes, a pipe whose other end only our parent holds.

    A killed parent cannot clean up, but the system closes its pipes, which this process watches.

    Args:
        patience_s: between asking the group to end and killing it.
    """

    if not hasattr(os, "killpg"):
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(0, signal.SIGTERM)
        time.sleep(patience_s)
        os.kill(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
