"""What methods cost beside what they reach, told for each machine on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semi_nnunet.evaluation.comparison import alone, mean_of_classes
from semi_nnunet.evaluation.tables import mean_of
from semi_nnunet.evaluation.values import Model
from semi_nnunet.report.measured import Measured
from semi_nnunet.report.run_pages import Panel
from semi_nnunet.report.scatter import Dot, scatter
from semi_nnunet.report.wording import (
    DASH,
    count,
    digits,
    listed,
    metric_title,
    model_name,
    number,
)
from semi_nnunet.runs.job import Job
from semi_nnunet.training.cost import Recorded, read_cost

UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
COLUMNS = ("training", "memory, GiB", "GPU memory, GiB", "a case, s")


@dataclass(frozen=True)
class CostRow:
    """A method on one machine: means over its trainings; NaN where nothing is known.

    Args:
        model: the method.
        trainings: how many of it ran on the machine.
        value: of the metric, of these trainings.
        seconds: of a training.
        memory_gib, gpu_memory_gib: the most that a training had.
        case_seconds: of nnU-Net's validation of a case.
    """

    model: Model
    trainings: int
    value: float
    seconds: float
    memory_gib: float
    gpu_memory_gib: float
    case_seconds: float

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """Those of :data:`COLUMNS`."""
        return self.seconds, self.memory_gib, self.gpu_memory_gib, self.case_seconds

    @property
    def texts(self) -> tuple[str, ...]:
        """The :attr:`numbers` as people read them."""
        return (clock(self.seconds), *(written(one) for one in self.numbers[1:]))


@dataclass(frozen=True)
class MachineCosts:
    """The methods that were trained on one machine, and charts of them."""

    machine: str
    rows: list[CostRow]
    panels: list[Panel]


@dataclass(frozen=True)
class Costs:
    """The costs of all trainings that tell them, and a sentence on those that do not."""

    machines: list[MachineCosts]
    not_recorded: str


def costs_of(jobs: Sequence[Job], measured: Measured) -> Costs:
    """Read the costs of those trainings that were measured.

    A training that was continued on another machine has a place of its own: its seconds are
    comparable with nothing else.

    Args:
        jobs: all trainings.
        measured: the cases that the answer is about.
    """
    known = {(v.model, v.fold, v.seed) for v in measured.values}
    machines: dict[str, dict[Model, list[tuple[Job, Recorded]]]] = {}
    unknown: dict[Model, int] = {}
    for job in jobs:
        model, cost = Model(job.trainer, job.configuration), read_cost(job.folder)
        if (model, job.fold, job.seed) not in known:
            continue
        if not cost.training:
            unknown[model] = unknown.get(model, 0) + 1
            continue
        machine = ", then ".join(share.machine for share in cost.training)
        machines.setdefault(machine, {}).setdefault(model, []).append((job, cost))
    most_first = sorted(machines.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return Costs(
        [on_machine(name, of_models, measured) for name, of_models in most_first],
        not_recorded(unknown, measured.models),
    )


def on_machine(
    machine: str, found: Mapping[Model, Sequence[tuple[Job, Recorded]]], measured: Measured
) -> MachineCosts:
    """The rows in the order of the other tables, and the charts."""
    order = [model for model in measured.models if model in found]
    rows = [row_of(machine, model, found[model], measured) for model in order]
    return MachineCosts(machine, rows, panels_of(machine, rows, measured))


def row_of(
    machine: str, model: Model, trainings: Sequence[tuple[Job, Recorded]], measured: Measured
) -> CostRow:
    """The means of one method on one machine."""
    own = {(job.fold, job.seed) for job, _ in trainings}
    values = [v for v in measured.values if v.model == model and (v.fold, v.seed) in own]
    costs = [cost for _, cost in trainings]
    return CostRow(
        model,
        len(trainings),
        mean_of_classes(alone(values)),
        mean_of([sum(share.seconds for share in cost.training) for cost in costs]),
        highest([share.memory_gib for cost in costs for share in cost.training]),
        highest([share.gpu_memory_gib for cost in costs for share in cost.training]),
        mean_of([
            cost.seconds_a_case
            for cost in costs
            if cost.seconds_a_case is not None and cost.validated_on == machine
        ]),
    )  # fmt: skip


def highest(amounts: Sequence[float | None]) -> float:
    return max((one for one in amounts if one is not None), default=math.nan)


def panels_of(machine: str, rows: Sequence[CostRow], measured: Measured) -> list[Panel]:
    """Draw the metric against training time, memory and time of a case; one method is no chart."""
    title, models = metric_title(measured.metric), measured.models
    legend = [(models.index(row.model), model_name(row.model, models)) for row in rows]
    seconds = [row.seconds for row in rows]
    unit, size = unit_of(seconds)
    on_gpu = any(not math.isnan(row.gpu_memory_gib) for row in rows)
    memory = [row.gpu_memory_gib if on_gpu else row.memory_gib for row in rows]
    asked = {
        f"{title} against the time of a training, {unit}": [one / size for one in seconds],
        f"{title} against {'GPU ' if on_gpu else ''}memory, GiB": memory,
        f"{title} against the time of a case, s": [row.case_seconds for row in rows],
    }
    found: list[Panel] = []
    if len(rows) < 2:
        return found
    for what, xs in asked.items():
        dots = [
            Dot(place, name, x, row.value)
            for (place, name), x, row in zip(legend, xs, rows, strict=True)
        ]
        if not all(math.isnan(x) for x in xs):
            chart = scatter(dots, f"{what}; {machine}", digits(measured.metric))
            found.append(Panel(what, legend, chart))
    return found


def unit_of(seconds: Sequence[float]) -> tuple[str, float]:
    """The unit in which the largest number is at least one, and its seconds."""
    largest = max(seconds, default=0.0)
    return next((pair for pair in UNITS if largest >= pair[1]), UNITS[-1])


def clock(seconds: float) -> str:
    """ "12 s", "3 min 20 s", "2 h 05 min": as exactly as methods are compared."""
    if math.isnan(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def written(amount: float) -> str:
    """A number with two digits behind the point, or a dash."""
    return number(amount, "")


def not_recorded(unknown: Mapping[Model, int], models: Sequence[Model]) -> str:
    """Name the methods with trainings that do not tell what they cost."""
    if not unknown:
        return ""
    said = [
        f"{model_name(model, models)} ({count(unknown[model], 'training')})"
        for model in models
        if model in unknown
    ]
    return (
        f"Not recorded: {listed(said)}. nnU-Net's own trainers, and trainings that began before "
        f"costs were written down, do not tell them."
    )
