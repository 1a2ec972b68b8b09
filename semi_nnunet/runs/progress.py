"""How far a training is, and how long it has to go, as its history or its logs say."""

from __future__ import annotations

from contextlib import suppress

from semi_nnunet.runs.commands import EpochTimes
from semi_nnunet.runs.job import Job
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json


def epoch_times(job: Job) -> list[float]:
    """Seconds of each epoch so far, from the history; else from the logs.

    nnU-Net's own trainers leave no history, and that of another may be damaged.
    """
    with suppress(UserError):
        if rows := job.history().rows:
            return [row["seconds"] for row in rows if "seconds" in row]
    return list(logged_epochs(job).seconds.values())


def logged_epochs(job: Job) -> EpochTimes:
    """Read the epochs of all logs of a training, one after another."""
    found = EpochTimes()
    logs = job.folder.glob("training_log_*.txt")
    for log in sorted(logs, key=lambda path: (path.stat().st_mtime, path.name)):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            found.feed(line)
    return found


def seconds_left(job: Job) -> float | None:
    """Estimate a training's seconds left from its last epochs; None where its history is silent."""
    settings = job.folder / "semi_settings.json"
    if job.is_trained or not settings.is_file():
        return None
    seconds = epoch_times(job)
    if not seconds:
        return None
    epochs = read_json(settings)["settings"]["epochs"]["value"]
    recent = seconds[-10:]
    return float((epochs - len(seconds)) * sum(recent) / len(recent))
