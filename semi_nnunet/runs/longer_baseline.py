"""The baseline that trains as long as a method: the plans with more epochs, and their trainings.

A step of a method takes longer than one of the baseline, so that trainings of equal steps do not
show whether the time was well spent. The longer baseline has as many steps as fit into the method's
time. Its plans are named after the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.raw.layout import SETTINGS_JSON
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.progress import read_epoch_seconds
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.files import optional_json

MARK = "_as_long_as_"  # between the plans and the method


def name_longer_plans(plans: str, trainer: str) -> str:
    """Return the name of the plans with which the baseline trains as long as a method.

    >>> name_longer_plans("nnUNetPlans", "SemiUnifiedTrainer")
    'nnUNetPlans_as_long_as_SemiUnifiedTrainer'
    """
    return f"{plans}{MARK}{trainer}"


def find_longer_baselines(
    folders: Folders, plans: str, trainers: Sequence[str]
) -> dict[str, list[Job]]:
    """Find the longer baselines of methods: method -> their trainings, with any seed."""
    jobs = {
        trainer: [
            job
            for job in find_jobs(folders, name_longer_plans(plans, trainer))
            if job.trainer == BASELINE
        ]
        for trainer in trainers
    }
    return {trainer: found for trainer, found in jobs.items() if found}


@dataclass(frozen=True)
class TrainingLength:
    """The length of trainings, as recorded in their folders.

    >>> TrainingLength(steps=2000, seconds=360.0)
    TrainingLength(steps=2000, seconds=360.0)

    Args:
        steps: optimizer steps of a training.
        seconds: of all epochs of a training, mean over folds and seeds.
    """

    steps: int
    seconds: float


def read_training_length(jobs: Sequence[Job]) -> TrainingLength | None:
    """Return the length of trainings that differ in fold and seed; None if none has a record."""
    records = [read_epochs(job) for job in jobs if job.is_trained]
    lengths = [(len(times) * steps, sum(times)) for steps, times in records if times]
    if not lengths:
        return None
    steps, seconds = zip(*lengths, strict=True)
    return TrainingLength(round(mean(steps)), mean(seconds))


def read_step_seconds(jobs: Sequence[Job]) -> float | None:
    """Return the recorded seconds of a step, with its share of validation; None without a record.

    The median epoch counts, so that a pause of the machine does not.
    """
    rates = [median(times) / steps for steps, times in map(read_epochs, jobs) if times]
    return mean(rates) if rates else None


def read_epochs(job: Job) -> tuple[int, list[float]]:
    """Return the steps of an epoch, and the seconds of every recorded epoch; none without both."""
    settings = optional_json(job.folder / SETTINGS_JSON).get("settings", {})
    steps = settings.get("steps_per_epoch", {}).get("value", 0)
    times = read_epoch_seconds(job) if steps else []
    return (steps, times) if times else (0, [])
