"""Measure the cost of a training step of each trainer in its own process, and tabulate it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.benchmarking.kept import Kept, StepRate, describe_benchmark_machine, format_today
from semi_nnunet.benchmarking.steps import (
    FLOOR,
    MemoryAndLoading,
    StepTimes,
    measure_memory_and_loading,
    time_steps,
)
from semi_nnunet.benchmarking.work import STOCK, TOO_LARGE, Work
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import require_place, write_json
from semi_nnunet.util.markdown import table
from semi_nnunet.util.names import below_one, unique, unknown
from semi_nnunet.util.parallel import process_pool
from semi_nnunet.util.timing import Seconds
from semi_nnunet.workflows.before_start import find_data_problems

logger = logging.getLogger(__name__)

R = TypeVar("R")
ROUNDS = 9
HEADER = (
    "trainer", "step, ms", "half of them", "/ baseline's", "operations", "/ its passes",
    "patches/s", "loading, ms", "memory, MiB", "/ baseline's",
)  # fmt: skip
KILLED = "its process was killed, probably because memory ran out"


@dataclass(frozen=True)
class StepCost:
    """The cost of a training step.

    Args:
        trainer: its name.
        seconds: of the step.
        operations: floating-point operations, where they can be counted.
        alone: memory and loading, measured in a process of its own.
        start: seconds until the end of the first step, without imports.
        patches: loaded for a step, labelled and unlabelled.
    """

    trainer: str
    seconds: Seconds
    operations: float | None
    alone: MemoryAndLoading
    start: float | None = None
    patches: int | None = None

    @property
    def rate(self) -> float | None:
        """Patches per second, if patches were loaded."""
        return self.patches and self.patches / self.seconds.median


@dataclass(frozen=True)
class Measured:
    """The measurements of a benchmark.

    Args:
        machine: device, processor or GPU, versions.
        floor: cost of the baseline's labelled forward and backward pass.
        costs: of the trainers that could be measured.
        refused: trainer -> why it could not be measured.
        case: seconds to predict a case, with mirrored images and the file of its labels.
    """

    work: Work
    machine: dict[str, str]
    floor: StepCost
    costs: list[StepCost]
    refused: dict[str, str]
    case: float | None = None

    @property
    def baseline(self) -> StepCost:
        """The cost of the matched baseline."""
        return next(cost for cost in self.costs if cost.trainer == BASELINE)

    def divide_by_passes(self, cost: StepCost) -> float | None:
        """Divide a step's time by the time of its operations at the speed of the floor."""
        if not (cost.operations and self.floor.operations):
            return None
        floor = self.floor.seconds.median / self.floor.operations
        return cost.seconds.median / (cost.operations * floor)

    def rates(self) -> dict[str, StepRate]:
        """Return the rates of the trainers that were measured completely."""
        workers, rates = get_allowed_n_proc_DA(), dict[str, StepRate]()
        for cost in self.costs:
            step, loading, start = cost.seconds.median, cost.alone.loading, cost.start
            if loading is not None and start is not None and self.case is not None:
                rate = StepRate(format_today(), step, loading, workers, start, self.case)
                rates[cost.trainer] = rate
        return rates

    def as_json(self) -> dict[str, Any]:
        """Return all measurements as plain values, with the patches per second."""
        content = asdict(self)
        for cost, plain in zip(self.costs, content["costs"], strict=True):
            plain["patches_per_second"] = cost.rate
        return content


def measure_steps(
    dataset: str,
    configuration: str,
    *,
    plans: str = DEFAULT_PLANS,
    trainers: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    rounds: int = ROUNDS,
    quick: bool = False,
    out: str | Path | None = None,
) -> Measured:
    """Measure the cost of a training step of each trainer on this machine.

    :func:`semi_nnunet.benchmark` documents the arguments. The rates are stored in the data set's
    results, where :func:`semi_nnunet.auto` finds them.
    """
    named = [*(trainers or (STOCK, *our_trainers()))]
    file = None if out is None else Path(out)
    work = check_work(dataset, configuration, plans, named, device, threads, rounds, file)
    names = unique([BASELINE, *named])
    measured = measure_trainers(work, names, quick)
    if file is not None:
        write_json(file, measured.as_json())
    try:
        Kept.of(find_folders(work.dataset), work).keep(measured.rates())
    except (UserError, OSError) as error:  # the measurements are returned all the same
        logger.warning(f"WARNING: the rates are not stored for semi_nnunet auto: {error}")
    return measured


def check_work(
    dataset: str,
    configuration: str,
    plans: str,
    trainers: Sequence[str],
    device: str | None,
    threads: int | None,
    rounds: int,
    out: Path | None,
) -> Work:
    """Return the work of a benchmark, with the arguments of :func:`benchmark`.

    Raises:
        UserError: naming all wrong arguments.
    """
    problems = [*below_one({"--threads": threads})]
    if rounds < 2:
        message = f"must be 2 or more, for a spread, got {rounds}"
        problems.append(Problem("--steps", message, f"leave it out: {ROUNDS}"))
    if out is not None:
        with collect_errors(problems, "-o"):
            require_place(out)
        if out.is_file():
            problems.append(Problem("-o", f"must name a new file, {out} exists", "choose another"))
    with collect_errors(problems, "--device"):
        resources = find_resources(device, jobs=1, threads=threads)
    problems += unknown_trainers(trainers)
    with collect_errors(problems, "-d"):
        folders = find_folders(dataset)
        with collect_errors(problems, "-p"):
            content = read_plans(folders.preprocessed, plans)
            absent = [*unknown("configuration", [configuration], content["configurations"])]
            problems += absent or find_data_problems(
                folders, content, plans, [configuration], [BASELINE]
            )
    raise_if_any("The benchmark cannot start:", problems)
    name = folders.preprocessed.name
    return Work(name, configuration, plans, resources.device, resources.threads, rounds)


def measure_trainers(work: Work, names: Sequence[str], quick: bool) -> Measured:
    """Measure trainers, the matched baseline first.

    Args:
        work: of the benchmark.
        names: of the trainers.
        quick: measure only seconds.

    Raises:
        UserError: not even the baseline can be measured.
    """
    # the progress is logged as warnings, which go to stderr: stdout is for the table
    logger.warning(f"the steps of {len(names)} trainers in turn, {work.rounds} rounds")
    times = time_together_or_separately(work, names, quick)
    if BASELINE in times.refused:
        raise UserError(f"{BASELINE} cannot be measured: {times.refused[BASELINE]}")
    separate = {name: MemoryAndLoading(loading=value) for name, value in times.loading.items()}
    for name in [] if quick else [name for name in names if name in times.seconds]:
        logger.warning(f"memory and loading of {name}")
        result = run_in_new_process(partial(measure_memory_and_loading, work, name))
        separate[name] = result or MemoryAndLoading(refused=KILLED)
    return combine_costs(work, names, times, separate)


def time_together_or_separately(work: Work, names: Sequence[str], quick: bool) -> StepTimes:
    """Time all trainers in one process, and those that do not fit into its memory separately."""
    times = run_in_new_process(partial(time_steps, work, names, quick))
    times = times or StepTimes(refused=dict.fromkeys(names, TOO_LARGE))
    for name in [name for name, reason in times.refused.items() if reason == TOO_LARGE]:
        logger.warning(f"too little memory for all at once: {name} separately")
        later = run_in_new_process(partial(time_steps, work, [name], quick))
        times = times.updated(later or StepTimes(refused={name: KILLED}))
    return times


def combine_costs(
    work: Work, names: Sequence[str], times: StepTimes, separate: dict[str, MemoryAndLoading]
) -> Measured:
    """Combine the measurements of the trainers that were timed."""

    def make_cost(name: str) -> StepCost:
        seconds, operations = times.seconds[name], times.operations.get(name)
        alone, start = separate.get(name, MemoryAndLoading()), times.starts.get(name)
        return StepCost(name, seconds, operations, alone, start, times.patches.get(name))

    refused = {name: item.refused for name, item in separate.items() if item.refused}
    return Measured(
        work,
        describe_benchmark_machine(work.device),
        make_cost(FLOOR),
        [make_cost(name) for name in names if name in times.seconds],
        times.refused | refused,
        times.case,
    )


def run_in_new_process(task: Callable[[], R]) -> R | None:
    """Return the result of a task in a new process, or ``None`` if the process was killed."""
    with process_pool(1) as pool:
        try:
            return pool.submit(task).result()
        except BrokenProcessPool:
            pool.require_begun()
            return None


# ---- the table ----


def describe_costs(measured: Measured) -> Iterator[str]:
    """Yield a heading, a Markdown table, and why some trainers are missing in it."""
    work, floor = measured.work, 1000 * measured.floor.seconds.median
    yield f"{work.dataset} {work.configuration} {work.plans} on {work.device}"
    yield ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    yield f"labelled forward and backward pass: {floor:.1f} ms"
    if measured.case is not None:
        yield f"prediction of a case of median size, mirrored: {measured.case:.1f} s"
    yield ""
    rows = [HEADER, *(format_cost_row(measured, cost) for cost in measured.costs)]
    yield from table(rows, numbers=True).splitlines()
    for trainer, reason in measured.refused.items():
        yield f"{trainer}: {reason}"


def format_cost_row(measured: Measured, cost: StepCost) -> tuple[str, ...]:
    """Return the cells of a trainer."""
    base, seconds, separate = measured.baseline, cost.seconds, cost.alone
    operations = base.operations and cost.operations and cost.operations / base.operations
    memory = base.alone.mib and separate.mib and separate.mib / base.alone.mib
    return (
        cost.trainer,
        f"{1000 * seconds.median:.1f}",
        f"{1000 * seconds.low:.1f} to {1000 * seconds.high:.1f}",
        f"{seconds.median / base.seconds.median:.2f}",
        format_number(operations, 2),
        format_number(measured.divide_by_passes(cost), 2),
        format_number(cost.rate, 1),
        format_number(separate.loading and 1000 * separate.loading, 1),
        format_number(separate.mib, 0),
        format_number(memory, 2),
    )


def format_number(value: float | None, digits: int) -> str:
    """Round a number; ``None`` gives a dash.

    >>> format_number(1.234, 1), format_number(None, 1)
    ('1.2', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"
