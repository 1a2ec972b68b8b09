"""What trainings take: of a benchmark on this machine, else read from short trainings."""

from __future__ import annotations

import re
import time

from semi_nnunet.automatic.schedule import Rate
from semi_nnunet.benchmarking.kept import StepRate
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.progress import epoch_times
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

LOG_TIME = re.compile(r"training_log_(\d+(?:_\d+){5})")  # nnU-Net's name of a log
START_S = 10.0  # until nnU-Net opens its log: imports
FORWARD = 1 / 3  # of a step: validation has no backward pass, which takes twice the forward one


def rate_of(job: Job) -> Rate:
    """Measure a training that is done: its last epoch, and all that is no epoch.

    Raises:
        UserError: it left no history.
    """
    seconds = epoch_times(job)
    if not seconds:
        raise UserError(f"{job} left no history in {job.folder}. Fix: train it anew")
    steps = read_json(job.folder / "semi_settings.json")["settings"]["steps_per_epoch"]["value"]
    ended = (job.validation / "summary.json").stat().st_mtime
    besides = max(0.0, ended - begin_of(job) - sum(seconds)) + START_S
    cases = max(1, len(job.predicted_cases("validation")))
    return Rate(step=seconds[-1] / steps, besides=besides, case=besides / cases)


def begin_of(job: Job) -> float:
    """When the training's last log was opened, in seconds since 1970."""
    logs = sorted(path.name for path in job.folder.glob("training_log_*.txt"))
    found = LOG_TIME.match(logs[-1]) if logs else None
    if found is None:
        raise UserError(f"{job} left no log in {job.folder}. Fix: train it anew")
    return time.mktime(time.strptime(found[1], "%Y_%m_%d_%H_%M_%S"))


def rate_from(
    measured: StepRate, workers: int, cores: int, validated: int, validation_share: float
) -> Rate:
    """What a training takes, from what was measured of its steps.

    Args:
        measured: of the trainer, by a benchmark.
        workers: processes that load batches of the training; 0: they are loaded between steps.
        cores: of this machine.
        validated: cases that its final validation predicts.
        validation_share: validation steps for each step.
    """
    work = measured.loading * within(measured.workers, cores)  # seconds of one core
    loading = work / within(workers, cores)
    step = max(measured.step, loading) if workers else measured.step + loading
    step += FORWARD * validation_share * measured.step
    besides = 2 * START_S + measured.start + validated * measured.case  # its processes import, too
    return Rate(step=step, besides=besides, case=measured.case)


def within(workers: int, cores: int) -> int:
    """How many cores load."""
    return max(1, min(workers, cores))
