"""Train the baseline as long as a method: how many epochs that is, its plans and its jobs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semi_nnunet.benchmarking.kept import Kept
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.core.devices import choose_device
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.checks import list_preprocessed_configurations
from semi_nnunet.planning.properties import build_settings_resolver
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import Folders, find_folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.longer_baseline import name_longer_plans, read_step_seconds
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import unknown
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.workflows.crossval import run_crossval
from semi_nnunet.workflows.plan import plan_dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepCosts:
    """The seconds of a step of a method and of the baseline.

    >>> StepCosts("SemiUnifiedTrainer", "2d", 0.6, 0.3, "benchmark").find_epochs(1000)
    2000

    Args:
        trainer: the method.
        configuration: such as "2d".
        method: seconds of a step of the method.
        baseline: seconds of a step of the baseline.
        source: where the seconds come from.
    """

    trainer: str
    configuration: str
    method: float
    baseline: float
    source: str

    def find_epochs(self, epochs: int) -> int:
        """Return the epochs of the baseline that take as long as ``epochs`` of the method."""
        return max(1, round(epochs * self.method / self.baseline))

    def __str__(self) -> str:
        return (
            f"{self.configuration}: a step takes {self.method:.3g} s with {self.trainer}, "
            f"{self.baseline:.3g} s with {BASELINE} ({self.source})"
        )


def find_step_costs(
    folders: Folders, plans: str, configurations: Sequence[str], trainer: str
) -> list[StepCosts]:
    """Return the costs of a step, from trainings with these plans, else from a benchmark.

    Raises:
        UserError: one of both is neither measured nor trained.
    """
    costs, problems, jobs = list[StepCosts](), list[Problem](), find_jobs(folders, plans)
    for configuration in configurations:
        rates = read_recorded_rates(
            [job for job in jobs if job.configuration == configuration], trainer
        )
        source = "their trainings"
        if not {trainer, BASELINE} <= rates.keys():
            rates, source = read_kept_rates(folders, plans, configuration), "semi_nnunet benchmark"
        if {trainer, BASELINE} <= rates.keys():
            pair = rates[trainer], rates[BASELINE]
            costs.append(StepCosts(trainer, configuration, *pair, source))
        else:
            name = folders.preprocessed.name
            message = f"the time of a step of {trainer} and of {BASELINE} is not known"
            fix = suggest_command(
                "benchmark", dataset=name, configuration=configuration, plans=plans,
                trainers=[trainer],
            )  # fmt: skip
            problems.append(Problem(f"{configuration} with {plans}", message, fix))
    raise_if_any("The length of the baseline cannot be planned:", problems)
    return costs


def read_kept_rates(folders: Folders, plans: str, configuration: str) -> dict[str, float]:
    """Return trainer -> seconds of a step, as benchmarked on this machine, with all its cores."""
    name, device = folders.preprocessed.name, choose_device()
    work = Work(name, configuration, plans, device, usable_cores(), rounds=0)
    return {name: rate.step for name, rate in Kept.of(folders, work).rates.items()}


def read_recorded_rates(jobs: Sequence[Job], trainer: str) -> dict[str, float]:
    """Return the recorded seconds of a step of a trainer and of the baseline, where known."""
    recorded = {
        name: read_step_seconds([job for job in jobs if job.trainer == name])
        for name in (trainer, BASELINE)
    }
    return {name: seconds for name, seconds in recorded.items() if seconds}


def plan_longer_baseline(
    dataset: str, plans: str, configurations: Sequence[str] | None, trainer: str
) -> dict[str, int]:
    """Return the settings with which the baseline trains as long as a method.

    Settings that the longer plans already have stay, as long as the method trains for as many
    epochs as when they were written: recorded seconds differ a little each time.

    Args:
        configurations: None for all that are preprocessed.

    Returns:
        ``TRAINER.CONFIG.epochs`` -> epochs, of the baseline and of the method, for
        :func:`semi_nnunet.plan`.

    Raises:
        UserError: the trainer or a configuration does not exist, or its time is not known.
    """
    folders, classes = find_folders(dataset), settings_classes()
    if trainer not in classes or trainer == BASELINE:
        raise UserError(
            f"no baseline can train as long as {trainer}",
            fix=f"choose from {', '.join(sorted({*classes} - {BASELINE}))}",
        )
    folder = folders.preprocessed
    content, description = read_plans(folder, plans), read_json(folder / DATASET_JSON)
    configurations = configurations or list_preprocessed_configurations(content, folder)
    raise_if_any(
        "The length of the baseline cannot be planned:",
        unknown("configuration", configurations, content["configurations"]),
    )
    earlier = optional_json(folder / f"{name_longer_plans(plans, trainer)}.json")
    settings, unknown_lengths = dict[str, int](), dict[str, int]()
    resolve, resolve_earlier = (
        build_settings_resolver(planned, description, folder, classes)
        for planned in (content, earlier)
    )
    for configuration in configurations:
        method = resolve(trainer, configuration).settings
        settings[f"{trainer}.{configuration}.epochs"] = method.epochs
        kept = earlier.get("semi", {}).get(BASELINE, {}).get(configuration, {}).get("epochs")
        # a method of other settings may take another time
        if kept and resolve_earlier(trainer, configuration).settings == method:
            settings[f"{BASELINE}.{configuration}.epochs"] = kept
        else:
            unknown_lengths[configuration] = method.epochs
    for cost in find_step_costs(folders, plans, [*unknown_lengths], trainer):
        epochs = unknown_lengths[cost.configuration]
        longer = cost.find_epochs(epochs)
        logger.info(f"{cost}: {longer} epochs of {BASELINE} take as long as {epochs} epochs")
        settings[f"{BASELINE}.{cost.configuration}.epochs"] = longer
    return settings


def train_longer_baselines(
    dataset: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
    *,
    plans: str,
    **options: Any,
) -> bool:
    """Train, predict and measure a baseline for each method that trains as long as the method.

    Args:
        dataset, configurations, trainers, plans: of the methods, which are trained.
        options: see :func:`semi_nnunet.workflows.crossval.run_crossval`.

    Returns:
        Whether all jobs are done; see there.
    """
    facts, is_done = our_trainers(), True
    for trainer in trainers:
        if trainer == BASELINE or trainer not in facts or not facts[trainer].segments:
            continue
        settings = plan_longer_baseline(dataset, plans, configurations, trainer)
        longer = plan_dataset(
            dataset, plans=plans, name=name_longer_plans(plans, trainer), settings=settings
        )
        done = run_crossval(dataset, configurations, [BASELINE], plans=longer.name, **options)
        is_done = is_done and done
    return is_done
