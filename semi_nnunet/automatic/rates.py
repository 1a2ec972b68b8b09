"""What trainings take: of a benchmark on this machine, else read from short trainings."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence

from semi_nnunet.automatic.cases import Cases
from semi_nnunet.automatic.commands import PLANS, ROUNDS, Commands
from semi_nnunet.automatic.schedule import Rate
from semi_nnunet.benchmarking.kept import Kept, StepRate
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import ALL
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.local import Resources, child_environment
from semi_nnunet.runs.progress import epoch_times
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.util.machine import usable_cores

LOG_TIME = re.compile(r"training_log_(\d+(?:_\d+){5})")  # nnU-Net's name of a log
START_S = 10.0  # until nnU-Net opens its log: imports
LOADING = "nnUNet_n_proc_DA"  # how many processes load batches
FORWARD = 1 / 3  # of a step: validation has no backward pass, which takes twice the forward one


def rates_here(
    commands: Commands, trainers: Sequence[str], resources: Resources, cases: Cases
) -> dict[str, Rate]:
    """What trainings take on this machine: as a benchmark found, now or before.

    Raises:
        UserError: a trainer cannot be measured.
    """
    name, threads = commands.folders.preprocessed.name, resources.threads
    work = Work(name, commands.configuration, PLANS, resources.device, threads, ROUNDS)
    kept = Kept.of(commands.folders, work)
    if known := [one for one in trainers if one in kept.rates]:
        print(f"rates of semi_nnunet benchmark of {kept.dates(known)}: {', '.join(known)}")
    workers = child_environment(resources)[LOADING]
    if missing := [one for one in trainers if one not in kept.rates]:
        with variable(LOADING, workers):
            run_stages(commands.timing(missing, threads))
        kept = Kept.of(commands.folders, work)
        if unknown := [one for one in missing if one not in kept.rates]:
            what = f"nothing was kept in {kept.path} of {', '.join(unknown)}"
            raise UserError(f"{what}", fix="make its folder writable, and run this again")
    share = commands.planned("validation_steps_per_epoch") / commands.planned("steps_per_epoch")
    validated = math.ceil(cases.labelled / max(1, cases.folds))
    return {
        one: rate_from(kept.rates[one], int(workers), usable_cores(), validated, share)
        for one in trainers
    }


def rates_elsewhere(
    commands: Commands, trainers: Sequence[str], cases: Cases
) -> dict[str, Rate] | None:
    """What trainings take where they will run, of a few epochs; None: they are not over.

    Raises:
        UserError: one of them has left no history.
    """
    fold = "0" if cases.folds else ALL
    run_stages(commands.measuring(trainers, fold))
    jobs = {name: commands.rate_job(name, fold) for name in trainers}
    if not all(job.is_done for job in jobs.values()):
        return None
    return {name: rate_of(job) for name, job in jobs.items()}


def rate_of(job: Job) -> Rate:
    """Measure a training that is done: its last epoch, and all that is no epoch.

    Raises:
        UserError: it left no history.
    """
    seconds = epoch_times(job)
    if not seconds:
        raise UserError(f"{job} left no history in {job.folder}", fix="train it anew")
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
        raise UserError(f"{job} left no log in {job.folder}", fix="train it anew")
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
