"""Plans of trainings that take a second, and a look at what runs."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from semi_nnunet.runs.folders import Folders
from semi_nnunet.util.files import write_json

TINY = {
    "epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1, "save_every_epochs": 1,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip


def with_tiny_plans(dataset: Any, results: Path) -> Iterator[Folders]:
    """A prepared data set with plans "tiny", which train two steps; they are removed after."""
    preprocessed = Path(dataset.preprocessed)
    write_json(preprocessed / "tiny.json", {**dataset.plans, "plans_name": "tiny", "semi": TINY})
    raw = Path(os.environ["nnUNet_raw"]) / preprocessed.name
    yield Folders(raw, preprocessed, results / preprocessed.name)
    for path in preprocessed.glob("tiny*.json"):
        path.unlink()


def trainings_with(folder: str) -> list[int]:
    """Processes of nnUNetv2_train that have a folder of the test's own in their environment."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
            environment = (process / "environ").read_bytes().decode()
        except OSError:  # it has ended, or belongs to another user
            continue
        if "nnUNetv2_train" in command and folder in environment:
            pids.append(int(process.name))
    return pids


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Look five times a second."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)
