"""Measure trainers, each in processes of its own, and tell the result as a table and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import torch

from semi_nnunet.benchmark.alone import Alone, measure_alone
from semi_nnunet.benchmark.steps import FLOOR, Seconds, Times, time_steps
from semi_nnunet.benchmark.work import BASELINE, STOCK, Work
from semi_nnunet.data.layout import read_plans
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.runs.before_start import data_problems
from semi_nnunet.runs.folders import folders_of
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.machine import processor_name
from semi_nnunet.util.names import unknown
from semi_nnunet.util.parallel import process_pool

R = TypeVar("R")
KILLED = "its process was killed, probably as memory ran out"


@dataclass(frozen=True)
class Cost:
    """What a step of a trainer costs.

    Args:
        trainer: its name.
        seconds: of its step.
        operations: floating-point operations of it, None where they cannot be counted.
        alone: its memory and its loading.
    """

    trainer: str
    seconds: Seconds
    operations: float | None
    alone: Alone


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Args:
        machine: device, processor or GPU, versions.
        floor: a cost of the baseline's labelled forward and backward pass alone.
        costs: of the trainers that could be measured.
        refused: trainer -> why it could not be.
    """

    work: Work
    machine: dict[str, str]
    floor: Cost
    costs: list[Cost]
    refused: dict[str, str]

    @property
    def baseline(self) -> Cost:
        """The matched baseline's."""
        return next(cost for cost in self.costs if cost.trainer == BASELINE)

    def of_passes(self, cost: Cost) -> float | None:
        """A step's time over that of its operations at the speed of the floor's."""
        if not (cost.operations and self.floor.operations):
            return None
        floor = self.floor.seconds.median / self.floor.operations
        return cost.seconds.median / (cost.operations * floor)

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self)


def benchmark(
    work: Work, trainers: Sequence[str], say: Callable[[str], object] = lambda line: None
) -> Measured:
    """Measure what a training step of some trainers costs with a data set's plans.

    Nothing is written but into a temporary folder.

    Args:
        work: what they train on.
        trainers: of ours, or nnU-Net's own; the matched baseline is measured in any case.
        say: tells what is measured next.

    Returns:
        The costs; and why some trainers could not be measured.

    Raises:
        UserError: the data set, plans, configuration or a trainer are not there, or not even the
            baseline can be measured.
    """
    require_measurable(work, trainers)
    work = replace(work, dataset=folders_of(work.dataset).preprocessed.name)
    names = [BASELINE, *(name for name in dict.fromkeys(trainers) if name != BASELINE)]
    say(f"the steps of {len(names)} trainers in turn, {work.rounds} rounds")
    times = in_own_process(partial(time_steps, work, names))
    if times is None:
        raise UserError(f"The process that timed the steps failed: {KILLED}. Fix: name fewer (-tr)")
    if BASELINE in times.refused:
        raise UserError(f"{BASELINE} cannot be measured: {times.refused[BASELINE]}")
    alone = {}
    for name in [one for one in names if one in times.seconds]:
        say(f"memory and loading of {name}")
        alone[name] = in_own_process(partial(measure_alone, work, name)) or Alone(refused=KILLED)
    return put_together(work, names, times, alone)


def require_measurable(work: Work, trainers: Sequence[str]) -> None:
    """Look at what would stop it before anything is measured.

    Raises:
        UserError: what there is, in one message.
    """
    folders = folders_of(work.dataset)
    plans = read_plans(folders.preprocessed, work.plans)
    configuration, there = work.configuration, [STOCK, *our_trainers()]
    problems = [
        *unknown("configuration", [configuration], plans["configurations"]),
        *unknown("trainer", trainers, there),
    ]
    if work.rounds < 2:
        told = f"must be 2 or more, for a spread, got {work.rounds}"
        problems.append(Problem("--rounds", told, "leave it out: 9"))
    if not problems:
        problems = [*data_problems(folders, plans, work.plans, [configuration], [BASELINE])]
    if problems:
        raise UserError("Nothing can be measured:", problems)


def put_together(
    work: Work, names: Sequence[str], times: Times, alone: dict[str, Alone]
) -> Measured:
    """The costs of the trainers that were timed."""

    def cost(name: str) -> Cost:
        found = alone.get(name, Alone())
        return Cost(name, times.seconds[name], times.operations.get(name), found)

    refused = times.refused | {name: one.refused for name, one in alone.items() if one.refused}
    measured = [cost(name) for name in names if name in times.seconds]
    return Measured(work, machine(work.device), cost(FLOOR), measured, refused)


def machine(device: str) -> dict[str, str]:
    """What the seconds are of."""
    gpu = {"GPU": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    versions = {name: version(name) for name in ("torch", "nnunetv2", "semi_nnunet")}
    return {**gpu, "processor": processor_name(), **versions, "python": platform.python_version()}


def in_own_process(work: Callable[[], R]) -> R | None:
    """What it returns in a new process; None where that was killed."""
    with process_pool(1) as pool:
        try:
            return pool.submit(work).result()
        except BrokenProcessPool:
            return None
