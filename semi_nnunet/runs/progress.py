"""Progress and remaining time of a training, from its history or its logs."""

from __future__ import annotations

from contextlib import suppress

from semi_nnunet.raw.layout import SETTINGS_JSON
from semi_nnunet.runs.display import EpochTimes
from semi_nnunet.runs.job import Job
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json


def read_epoch_seconds(job: Job) -> list[float]:
    """Return the seconds of each epoch so far, from the history, else from the logs.

    nnU-Net's own trainers leave no history, and a history may be damaged.
    """
    with suppress(UserError):
        if rows := job.history().rows:
            return [row["seconds"] for row in rows if "seconds" in row]
    return list(parse_logged_epochs(job).seconds.values())


def parse_logged_epochs(job: Job) -> EpochTimes:
    """Parse the epochs in all logs of a training, in their order."""
    epochs = EpochTimes()
    logs = job.folder.glob("training_log_*.txt")
    for log in sorted(logs, key=lambda path: (path.stat().st_mtime, path.name)):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            epochs.feed(line)
    return epochs


def estimate_seconds_left(job: Job) -> float | None:
    """Estimate the remaining seconds from the last ten epochs; None if nothing is recorded."""
    settings = job.folder / SETTINGS_JSON
    if job.is_trained or not settings.is_file():
        return None
    seconds = read_epoch_seconds(job)
    if not seconds:
        return None
    epochs = read_json(settings)["settings"]["epochs"]["value"]
    recent = seconds[-10:]
    return float((epochs - len(seconds)) * sum(recent) / len(recent))
