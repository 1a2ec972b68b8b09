"""Jobs of the tiny plans, and what a finished training leaves."""

from __future__ import annotations

from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.training.history import History
from semi_nnunet.util.files import write_json
from semi_nnunet.workflows.crossval import make_jobs

BASE, OURS = "SemiBaselineTrainer", "SemiMeanTeacherTrainer"
TRAINERS = [BASE, OURS]
STAGES = ["3d_lowres", "3d_cascade_fullres"]


def fake_job(folders: Folders, trainer: str) -> Job:
    return Job(folders, trainer, "2d", "0", 0, "tiny")


def jobs_of(folders, folds=("0",)):
    return make_jobs(folders, "tiny", ["2d"], [BASE, OURS], list(folds), 1)


def leave(job, cases=("a", "b"), unlabelled=(), **settings):
    """Write what a finished training leaves: its checkpoint and the record of its settings."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.checkpoint.write_bytes(b"weights")
    values = {"seed": 0, **settings}
    record = {"settings": {name: {"value": value} for name, value in values.items()}}
    used = {"labelled": list(cases), "unlabelled": list(unlabelled)}
    write_json(job.folder / "semi_settings.json", {**record, "cases": used})


def leave_history(job: Job, seconds: list[float]) -> None:
    """Write a history with these seconds of each epoch."""
    rows = [{"epoch": n, "seconds": s} for n, s in enumerate(seconds)]
    History(rows).write_csv(job.folder / "semi_history.csv")
