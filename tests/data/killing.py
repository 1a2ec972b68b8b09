"""Ways to kill the preprocessing of two cases, and how many cases are then left to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading import nnunet_dataset

from semi_nnunet.preprocessing import cases as preprocessing
from semi_nnunet.preprocessing.manifest import Manifest


def killing_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose call number ``calls`` is the last thing that the process does."""
    count = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        result = function(*args, **kwargs)
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def kill_while_writing_aside() -> None:
    nnunet_dataset.write_pickle = killing_after(2, nnunet_dataset.write_pickle)  # type: ignore


def kill_after_writing_aside() -> None:
    preprocessing._read_facts = killing_after(2, preprocessing._read_facts)


def kill_between_renames() -> None:
    Path.replace = killing_after(4, Path.replace)  # type: ignore[method-assign]


def kill_before_the_manifest_line() -> None:
    Manifest.add = killing_after(2, lambda *_: None)  # type: ignore[method-assign]


def kill_during_the_manifest_line() -> None:
    add, line = Manifest.add, []

    def half(self: Manifest, entry: Any) -> None:
        add(self, entry)
        line.append(entry)
        if len(line) == 2:
            whole = self.path.read_bytes()
            self.path.write_bytes(whole[: -len(whole) // 4])
            os.kill(os.getpid(), signal.SIGKILL)

    Manifest.add = half  # type: ignore[method-assign]


KILLERS = {
    kill_while_writing_aside: 2,
    kill_after_writing_aside: 2,
    kill_between_renames: 2,
    kill_before_the_manifest_line: 3,  # of the first case, nothing was noted either
    kill_during_the_manifest_line: 2,
}
