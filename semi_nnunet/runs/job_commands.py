"""The commands that a job has left: nnU-Net's own, and what measures their predictions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from semi_nnunet.runs.folders import TEST_FOLDER
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError

if TYPE_CHECKING:
    from semi_nnunet.runs.job import Job


def commands(job: Job, device: str, processes: int) -> Iterator[Command]:
    """See :meth:`semi_nnunet.runs.job.Job.commands`."""
    folders = job.folders
    if "train" in job.steps:
        yield from training(job, device)
    if "predict" in job.steps and not job.is_tested:
        require(job, "train", job.is_trained)
        yield from prediction(job, device, processes)
    if "evaluate" not in job.steps:
        return
    unmeasured = job.unmeasured()
    if "validation" in unmeasured:
        require(job, "train", job.is_validated)
        yield folders.evaluation(job.validation, folders.references, processes)
    if folders.test_labels and "test" in unmeasured:
        require(job, "predict", job.is_tested)
        yield folders.evaluation(job.test, folders.test_labels, processes)


def require(job: Job, step: str, done: bool) -> None:
    """Check a step that another needs.

    Raises:
        UserError: it is not done.
    """
    if not done:
        raise UserError(f"{job} needs its step {step!r} first. Fix: crossval --steps {step}")


def model_options(job: Job) -> Command:
    """Which model, as nnU-Net's commands are told."""
    return ("-tr", job.trainer, "-p", job.plans)


def training(job: Job, device: str) -> Iterator[Command]:
    """What is left of training and validation."""
    if job.is_trained and job.is_validated:
        return
    if job.is_trained:
        again: Command = ("--val",)
    else:
        again = ("--c",) if job.continues else ()
    keep = ("--npz",) if job.npz else ()
    fold = (job.folders.results.name, job.configuration, job.fold)
    yield ("nnUNetv2_train", *fold, *model_options(job), "-device", device, *keep, *again)


def prediction(job: Job, device: str, processes: int) -> Iterator[Command]:
    """Predict imagesTs aside, then put the folder in place of the one before."""
    aside = job.test.with_name(f".{TEST_FOLDER}.tmp")
    dataset, images = job.folders.results.name, job.folders.raw / "imagesTs"
    where = ("-d", dataset, "-c", job.configuration, "-f", job.fold, *model_options(job))
    files = ("-i", images, "-o", aside, "-device", device)
    workers = ("-npp", str(processes), "-nps", str(processes))
    keep = ("--save_probabilities",) if job.npz else ()
    previous = job.previous
    stage = () if previous is None else ("-prev_stage_predictions", previous.test)
    yield ("nnUNetv2_predict", *where, *files, *workers, *keep, *stage)
    # was predicted before: fewer cases, or without probabilities
    shutil.rmtree(job.test, ignore_errors=True)
    aside.replace(job.test)
