"""The time that trainings take: from a benchmark on this machine, or from short trainings."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace

from semi_nnunet.automatic.cases import CaseCounts
from semi_nnunet.automatic.commands import PLANS, ROUNDS, AutoCommands
from semi_nnunet.automatic.schedule import TrainingRate
from semi_nnunet.benchmarking.kept import Kept, StepRate
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.raw.layout import SETTINGS_JSON, SUMMARY_JSON
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.runs.local import Resources, build_child_environment
from semi_nnunet.runs.progress import read_epoch_seconds
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.methods import SharedBatchSettings
from semi_nnunet.settings.rules import LEAST_SHARED
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.util.machine import usable_cores

logger = logging.getLogger(__name__)

LOG_TIME = re.compile(r"training_log_(\d+(?:_\d+){5})")  # nnU-Net's name of a log
START_S = 10.0  # until nnU-Net opens its log: imports
LOADING = "nnUNet_n_proc_DA"  # number of processes that load batches
FORWARD = 1 / 3  # of a step: validation has no backward pass, which takes twice as long


ASSUMED_STEP = {"cpu": 0.25, "cuda": 0.05}  # seconds of the baseline's, docs/cost.md
ASSUMED_RATIOS = {  # of a step to the baseline's, docs/choosing_a_method.md
    "SemiBaselineTrainer": 1.0,
    "SemiUnifiedTrainer": 1.8,
    "SemiUniMatchTrainer": 4.3,
    "SemiCPSTrainer": 4.6,
    "SemiMixMatchTrainer": 4.6,
    "SemiDiffusionTrainer": 4.7,
    "SemiUncertaintyAwareTrainer": 4.8,
}
USUAL_RATIO = 2.3  # of the other methods
SHARED_RATIO = 1.2  # of methods whose unlabelled patches are part of nnU-Net's batch
ASSUMED_BESIDES, ASSUMED_CASE = 60.0, 1.0  # seconds


def assume_rates(
    trainers: Sequence[str], device: str, batch_size: int, baseline: TrainingRate | None = None
) -> dict[str, TrainingRate]:
    """Return rates that were not measured, from the ratios of steps in the documentation.

    >>> assume_rates(["SemiMeanTeacherTrainer"], "cpu", 12)["SemiMeanTeacherTrainer"].step
    0.575

    Args:
        trainers: whose rates are needed.
        device: "cpu", "cuda" or "mps".
        batch_size: of the nnU-Net plan.
        baseline: the measured rate of the baseline, if any.
    """
    step = ASSUMED_STEP.get(device, ASSUMED_STEP["cuda"])
    base = baseline or TrainingRate(step, ASSUMED_BESIDES, ASSUMED_CASE)
    return {
        trainer: replace(base, step=base.step * assume_ratio(trainer, batch_size))
        for trainer in trainers
    }


def assume_ratio(trainer: str, batch_size: int) -> float:
    """Return the time of a trainer's step, relative to the baseline's.

    >>> [assume_ratio("SemiFixMatchTrainer", patches) for patches in (2, 12)]
    [2.3, 1.2]
    """
    shares = issubclass(settings_classes().get(trainer, SemiSettings), SharedBatchSettings)
    if shares and batch_size >= LEAST_SHARED:
        return SHARED_RATIO
    return ASSUMED_RATIOS.get(trainer, USUAL_RATIO)


def load_kept(commands: AutoCommands, resources: Resources) -> Kept:
    """Load what earlier benchmarks with the same plans measured on this machine."""
    name, threads = commands.folders.preprocessed.name, resources.threads
    work = Work(name, commands.configuration, PLANS, resources.device, threads, ROUNDS)
    return Kept.of(commands.folders, work)


def find_kept_rates(
    commands: AutoCommands, trainers: Sequence[str], resources: Resources, cases: CaseCounts
) -> dict[str, TrainingRate]:
    """Return the rates of those trainers that an earlier benchmark measured on this machine."""
    stored = load_kept(commands, resources)
    workers = int(build_child_environment(resources)[LOADING])
    planned = commands.read_planned
    share = planned("validation_steps_per_epoch") / planned("steps_per_epoch")
    return {
        trainer: estimate_rate(
            stored.rates[trainer], workers, usable_cores(), cases.validated, share
        )
        for trainer in trainers
        if trainer in stored.rates
    }


def measure_rates_locally(
    commands: AutoCommands, trainers: Sequence[str], resources: Resources, cases: CaseCounts
) -> dict[str, TrainingRate]:
    """Return the rates on this machine, from an earlier or a new benchmark.

    Raises:
        UserError: a trainer cannot be measured.
    """
    stored = load_kept(commands, resources)
    if measured := [trainer for trainer in trainers if trainer in stored.rates]:
        dates = stored.dates(measured)
        logger.info(f"rates of semi_nnunet benchmark of {dates}: {', '.join(measured)}")
    workers = build_child_environment(resources)[LOADING]
    if missing := [trainer for trainer in trainers if trainer not in stored.rates]:
        with variable(LOADING, workers):
            run_stages(commands.build_benchmark(missing, resources.threads))
        stored = load_kept(commands, resources)
        if absent := [trainer for trainer in missing if trainer not in stored.rates]:
            raise UserError(
                f"the benchmark of {', '.join(absent)} was not stored in {stored.path}",
                fix="make its folder writable, and run this again",
            )
    return find_kept_rates(commands, trainers, resources, cases)


def estimate_training_hours(
    folders: Folders,
    plans: str,
    configuration: str,
    trainer: str,
    steps: int,
    validation_share: float,
) -> float | None:
    """Return the hours of a training on this machine's default device, without its validation.

    Args:
        folders: of the data set.
        plans, configuration, trainer: of the training.
        steps: of the training.
        validation_share: validation steps for each step.

    Returns:
        None if no benchmark with these plans was made here.
    """
    resources = find_resources(None, jobs=1)
    name, threads = folders.preprocessed.name, resources.threads
    work = Work(name, configuration, plans, resources.device, threads, ROUNDS)
    measured = Kept.of(folders, work).rates.get(trainer)
    if measured is None:
        return None
    workers = int(build_child_environment(resources)[LOADING])
    rate = estimate_rate(measured, workers, usable_cores(), 0, validation_share)
    return (rate.step * steps + rate.besides) / 3600


def measure_rates_on_cluster(
    commands: AutoCommands, trainers: Sequence[str], cases: CaseCounts
) -> dict[str, TrainingRate] | None:
    """Return the rates from trainings of a few epochs, or None if they have not ended.

    Raises:
        UserError: a training has left no history.
    """
    fold = "0" if cases.folds else ALL
    run_stages(commands.build_timing(trainers, fold))
    jobs = {name: commands.make_timing_job(name, fold) for name in trainers}
    if not all(job.is_done for job in jobs.values()):
        return None
    return {name: read_rate(job) for name, job in jobs.items()}


def read_rate(job: Job) -> TrainingRate:
    """Return the rate of a finished training, from its last epoch and the time outside epochs.

    Raises:
        UserError: it left no history.
    """
    seconds = read_epoch_seconds(job)
    if not seconds:
        raise UserError(f"{job} left no history in {job.folder}", fix="train it again")
    steps = read_json(job.folder / SETTINGS_JSON)["settings"]["steps_per_epoch"]["value"]
    ended = (job.validation / SUMMARY_JSON).stat().st_mtime
    besides = max(0.0, ended - read_start_time(job) - sum(seconds)) + START_S
    cases = max(1, len(job.predicted_cases("validation")))
    return TrainingRate(step=seconds[-1] / steps, besides=besides, case=besides / cases)


def read_training_seconds(job: Job) -> float:
    """Return the seconds of a finished training, from its start to the end of its validation.

    Raises:
        UserError: it left no history.
    """
    return sum(read_epoch_seconds(job)) + read_rate(job).besides


def read_start_time(job: Job) -> float:
    """Return when the training's last log was opened, in seconds since 1970.

    Raises:
        UserError: it left no log.
    """
    names = (LOG_TIME.match(path.name) for path in job.folder.glob("training_log_*.txt"))
    times = [time.strptime(name[1], "%Y_%m_%d_%H_%M_%S") for name in names if name]
    if not times:
        raise UserError(f"{job} left no log in {job.folder}", fix="train it again")
    return time.mktime(max(times))  # the names have no leading zeros: 10 comes before 9


def estimate_rate(
    measured: StepRate, workers: int, cores: int, validated: int, validation_share: float
) -> TrainingRate:
    """Estimate the rate of a training from the steps of a benchmark.

    Args:
        measured: of the trainer, by a benchmark.
        workers: processes that load batches of the training; 0: batches are loaded between steps.
        cores: of this machine.
        validated: cases of the final validation.
        validation_share: validation steps for each step.
    """
    work = measured.loading * count_loading_cores(measured.workers, cores)  # seconds of one core
    loading = work / count_loading_cores(workers, cores)
    step = max(measured.step, loading) if workers else measured.step + loading
    step += FORWARD * validation_share * measured.step
    besides = 2 * START_S + measured.start + validated * measured.case  # its processes import, too
    return TrainingRate(step=step, besides=besides, case=measured.case)


def count_loading_cores(workers: int, cores: int) -> int:
    """Return how many cores load batches."""
    return max(1, min(workers, cores))
