"""Plans of trainings that take a second, and a look at what runs."""

import time
from collections.abc import Callable
from pathlib import Path

TINY = {
    "epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1, "save_every_epochs": 1,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip


def trainings_with(folder: str) -> list[int]:
    """Processes of nnUNetv2_train that have a folder of the test's own in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
            environment = (process / "environ").read_bytes().decode()
        except OSError:  # it has ended, or is somebody else's
            continue
        if "nnUNetv2_train" in command and folder in environment:
            found.append(int(process.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Look five times a second."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)
