"""Measure trainers, each in processes of its own, and tell the result as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.benchmarking.alone import Alone, measure_alone
from semi_nnunet.benchmarking.kept import Kept, StepRate, machine, today
from semi_nnunet.benchmarking.steps import FLOOR, Times, time_steps
from semi_nnunet.benchmarking.work import STOCK, TOO_LARGE, Work
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import require_place, write_json
from semi_nnunet.util.names import below_one, unknown
from semi_nnunet.util.parallel import process_pool
from semi_nnunet.util.timing import Seconds
from semi_nnunet.workflows.before_start import find_data_problems

R = TypeVar("R")
ROUNDS = 9
KILLED = "its process was killed, probably as memory ran out"


@dataclass(frozen=True)
class Cost:
    """What a step of a trainer costs.

    Args:
        trainer: its name.
        seconds: of its step.
        operations: floating-point operations of it, None where they cannot be counted.
        alone: its memory and its loading.
        start: seconds until its first step is done, imports not among them.
        patches: that a step loads, labelled and unlabelled ones together.
    """

    trainer: str
    seconds: Seconds
    operations: float | None
    alone: Alone
    start: float | None = None
    patches: int | None = None

    @property
    def rate(self) -> float | None:
        """Patches a second; None of what loads none."""
        return self.patches and self.patches / self.seconds.median


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Args:
        machine: device, processor or GPU, versions.
        floor: a cost of the baseline's labelled forward and backward pass alone.
        costs: of the trainers that could be measured.
        refused: trainer -> why it could not be.
        case: seconds to predict a case, with mirrored images and the file of its labels.
    """

    work: Work
    machine: dict[str, str]
    floor: Cost
    costs: list[Cost]
    refused: dict[str, str]
    case: float | None = None

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

    def rates(self) -> dict[str, StepRate]:
        """What is kept of each trainer."""
        workers, found = get_allowed_n_proc_DA(), dict[str, StepRate]()
        for cost in self.costs:
            step, loading, start = cost.seconds.median, cost.alone.loading, cost.start
            if loading is not None and start is not None and self.case is not None:
                rate = StepRate(today(), step, loading, workers, start, self.case)
                found[cost.trainer] = rate
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values, with the patches a second of each trainer."""
        found = asdict(self)
        for cost, plain in zip(self.costs, found["costs"], strict=True):
            plain["patches_per_second"] = cost.rate
        return found


def benchmark(
    dataset: str,
    configuration: str,
    *,
    plans: str = "nnUNetPlans",
    trainers: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    rounds: int = ROUNDS,
    quick: bool = False,
    out: str | Path | None = None,
    say: Callable[[str], object] = print,
) -> Measured:
    """Measure what a training step of some trainers costs on this machine.

    The seconds are kept in the data set's results, where :func:`semi_nnunet.auto` finds them.

    Args:
        dataset: number or name; it is preprocessed.
        configuration: such as "3d_fullres".
        plans: identifier.
        trainers: of ours, or nnU-Net's own; None: all of ours, and "nnUNetTrainer". The matched
            baseline is measured in any case.
        device: "cpu" or "cuda"; None: cuda if there is one, else the CPU.
        threads: of PyTorch on the CPU; None: this machine's cores.
        rounds: in which every trainer has a step, two or more.
        quick: measure seconds alone, in one process: no memory, no operations.
        out: new file, JSON, for all that is measured; None: none.
        say: tells what is measured next.

    Returns:
        The costs; and why some trainers could not be measured.

    Raises:
        UserError: naming all that is wrong: the data set, plans, configuration, device or a trainer
            are not there, a number is too small, or ``out`` cannot be written or would be lost; or
            not even the baseline can be measured.
    """
    named = [*(trainers or (STOCK, *our_trainers()))]
    file = None if out is None else Path(out)
    work = work_of(dataset, configuration, plans, named, device, threads, rounds, file)
    names = [BASELINE, *(name for name in dict.fromkeys(named) if name != BASELINE)]
    measured = measure(work, names, quick, say)
    if file is not None:
        write_json(file, measured.as_json())
    try:
        Kept.of(find_folders(work.dataset), work).keep(measured.rates())
    except (UserError, OSError) as error:  # what was measured is told all the same
        say(f"WARNING: the seconds are not kept for semi_nnunet auto: {error}")
    return measured


def work_of(
    dataset: str,
    configuration: str,
    plans: str,
    trainers: Sequence[str],
    device: str | None,
    threads: int | None,
    rounds: int,
    out: Path | None,
) -> Work:
    """What is measured, after a look at all that would stop it.

    Args:
        dataset, configuration, plans, trainers, device, threads, rounds, out: see
            :func:`benchmark`.

    Raises:
        UserError: naming all that is wrong.
    """
    wrong = [*below_one({"--threads": threads})]
    if rounds < 2:
        told = f"must be 2 or more, for a spread, got {rounds}"
        wrong.append(Problem("--rounds", told, f"leave it out: {ROUNDS}"))
    if out is not None:
        with collect_errors(wrong, "-o"):
            require_place(out)
        if out.is_file():
            wrong.append(Problem("-o", f"must name a new file, {out} is there", "rename that one"))
    with collect_errors(wrong, "--device"):
        resources = find_resources(device, jobs=1, threads=threads)
    wrong += unknown("trainer", trainers, [STOCK, *our_trainers()])
    with collect_errors(wrong, "-d"):
        folders = find_folders(dataset)
        with collect_errors(wrong, "-p"):
            content = read_plans(folders.preprocessed, plans)
            absent = [*unknown("configuration", [configuration], content["configurations"])]
            data = () if absent else find_data_problems(
                folders, content, plans, [configuration], [BASELINE]
            )  # fmt: skip
            wrong += [*absent, *data]
    raise_if_any("Nothing can be measured:", wrong)
    name = folders.preprocessed.name
    return Work(name, configuration, plans, resources.device, resources.threads, rounds)


def measure(
    work: Work, names: Sequence[str], quick: bool, say: Callable[[str], object]
) -> Measured:
    """Measure trainers, the matched baseline first.

    Args:
        work: what they train on.
        names: of the trainers.
        quick: seconds alone.
        say: tells what is measured next.

    Raises:
        UserError: not even the baseline can be measured.
    """
    say(f"the steps of {len(names)} trainers in turn, {work.rounds} rounds")
    times = time_beside_or_alone(work, names, quick, say)
    if BASELINE in times.refused:
        raise UserError(f"{BASELINE} cannot be measured: {times.refused[BASELINE]}")
    alone = {name: Alone(loading=seconds) for name, seconds in times.loading.items()}
    for name in [one for one in names if one in times.seconds and not quick]:
        say(f"memory and loading of {name}")
        alone[name] = in_own_process(partial(measure_alone, work, name)) or Alone(refused=KILLED)
    return put_together(work, names, times, alone)


def time_beside_or_alone(
    work: Work, names: Sequence[str], quick: bool, say: Callable[[str], object]
) -> Times:
    """Time steps in one process; those for which its memory was too little, each in its own."""
    times = in_own_process(partial(time_steps, work, names, quick))
    times = times or Times(refused=dict.fromkeys(names, TOO_LARGE))
    for name in [one for one, why in times.refused.items() if why == TOO_LARGE]:
        say(f"too little memory for all at once: {name} alone")
        again = in_own_process(partial(time_steps, work, [name], quick))
        times = times.with_those_of(again or Times(refused={name: KILLED}))
    return times


def put_together(
    work: Work, names: Sequence[str], times: Times, alone: dict[str, Alone]
) -> Measured:
    """The costs of the trainers that were timed."""

    def cost(name: str) -> Cost:
        found, start, patches = alone.get(name, Alone()), times.starts.get(name), times.patches
        seconds, operations = times.seconds[name], times.operations.get(name)
        return Cost(name, seconds, operations, found, start, patches.get(name))

    refused = times.refused | {name: one.refused for name, one in alone.items() if one.refused}
    measured = [cost(name) for name in names if name in times.seconds]
    return Measured(work, machine(work.device), cost(FLOOR), measured, refused, times.case)


def in_own_process(work: Callable[[], R]) -> R | None:
    """What it returns in a new process; None where that was killed."""
    with process_pool(1) as pool:
        try:
            return pool.submit(work).result()
        except BrokenProcessPool:
            return None
