"""Costs of trainings compared with the metric they reach, for each machine separately."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semi_nnunet.evaluation.comparison import average_classes, compute_patient_means
from semi_nnunet.evaluation.points import get_shown_factor
from semi_nnunet.evaluation.tables import average_defined
from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.curves import Dot, draw_scatter
from semi_nnunet.reporting.measured import SubsetResults
from semi_nnunet.reporting.run_pages import Panel
from semi_nnunet.reporting.wording import (
    DASH,
    count_decimals,
    format_metric,
    format_value,
    join_words,
    name_model,
)
from semi_nnunet.runs.job import Job
from semi_nnunet.training.cost import RecordedCost, read_cost
from semi_nnunet.util.names import format_count

UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
COLUMNS = ("training time", "memory, GiB", "GPU memory, GiB", "time per case, s")


@dataclass(frozen=True)
class CostRow:
    """Mean costs of the trainings of a method on one machine; NaN where unknown.

    Args:
        model: the method.
        trainings: number of its trainings on the machine.
        value: mean of the metric over these trainings.
        seconds: duration of a training.
        memory_gib, gpu_memory_gib: peak of all trainings.
        case_seconds: duration of nnU-Net's validation of a case.
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
        """Numbers in the order of :data:`COLUMNS`."""
        return self.seconds, self.memory_gib, self.gpu_memory_gib, self.case_seconds

    @property
    def texts(self) -> tuple[str, ...]:
        """The :attr:`numbers` as people read them."""
        return (format_training_time(self.seconds), *map(format_amount, self.numbers[1:]))


@dataclass(frozen=True)
class MachineCosts:
    """Costs of the methods that were trained on one machine, and charts of them."""

    machine: str
    rows: list[CostRow]
    panels: list[Panel]


@dataclass(frozen=True)
class TrainingCosts:
    """Costs of all trainings that recorded them, and a sentence on the other trainings."""

    machines: list[MachineCosts]
    not_recorded: str


def collect_costs(jobs: Sequence[Job], measured: SubsetResults) -> TrainingCosts:
    """Read the costs of the measured trainings.

    A training that continued on another machine gets an entry of its own, as its seconds are not
    comparable with others.
    """
    measured_runs = {(v.model, v.fold, v.seed) for v in measured.values}
    machines: dict[str, dict[Model, list[tuple[Job, RecordedCost]]]] = {}
    unrecorded: dict[Model, int] = {}
    for job in jobs:
        model, cost = Model(job.trainer, job.configuration), read_cost(job.folder)
        if (model, job.fold, job.seed) not in measured_runs:
            continue
        if not cost.training:
            unrecorded[model] = unrecorded.get(model, 0) + 1
            continue
        machine = ", then ".join(share.machine for share in cost.training)
        machines.setdefault(machine, {}).setdefault(model, []).append((job, cost))
    most_first = sorted(machines.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return TrainingCosts(
        [summarise_machine(name, trainings, measured) for name, trainings in most_first],
        describe_unrecorded(unrecorded, measured.models),
    )


def summarise_machine(
    machine: str,
    trainings: Mapping[Model, Sequence[tuple[Job, RecordedCost]]],
    measured: SubsetResults,
) -> MachineCosts:
    """Return the rows of a machine, in the order of the other tables, and the charts."""
    order = [model for model in measured.models if model in trainings]
    rows = [summarise_method_costs(machine, m, trainings[m], measured) for m in order]
    return MachineCosts(machine, rows, draw_cost_panels(machine, rows, measured))


def summarise_method_costs(
    machine: str,
    model: Model,
    trainings: Sequence[tuple[Job, RecordedCost]],
    measured: SubsetResults,
) -> CostRow:
    """Average the costs of one method on one machine."""
    runs = {(job.fold, job.seed) for job, _ in trainings}
    values = [v for v in measured.values if v.model == model and (v.fold, v.seed) in runs]
    costs = [cost for _, cost in trainings]
    return CostRow(
        model,
        len(trainings),
        average_classes(compute_patient_means(values)),
        average_defined([sum(share.seconds for share in cost.training) for cost in costs]),
        find_highest([share.memory_gib for cost in costs for share in cost.training]),
        find_highest([share.gpu_memory_gib for cost in costs for share in cost.training]),
        average_defined([
            cost.seconds_a_case
            for cost in costs
            if cost.seconds_a_case is not None and cost.validated_on == machine
        ]),
    )  # fmt: skip


def find_highest(amounts: Sequence[float | None]) -> float:
    """Return the largest known amount, or else NaN."""
    return max((amount for amount in amounts if amount is not None), default=math.nan)


def draw_cost_panels(machine: str, rows: Sequence[CostRow], measured: SubsetResults) -> list[Panel]:
    """Draw the metric against training time, memory and time per case, for at least two methods."""
    if len(rows) < 2:
        return []
    metric, models = format_metric(measured.metric), measured.models
    legend = [(models.index(row.model), name_model(row.model, models)) for row in rows]
    seconds = [row.seconds for row in rows]
    unit, size = choose_time_unit(seconds)
    on_gpu = any(not math.isnan(row.gpu_memory_gib) for row in rows)
    memory = [row.gpu_memory_gib if on_gpu else row.memory_gib for row in rows]
    costs = {
        f"{metric} against training time, {unit}": [number / size for number in seconds],
        f"{metric} against {'GPU ' if on_gpu else ''}memory, GiB": memory,
        f"{metric} against time per case, s": [row.case_seconds for row in rows],
    }
    panels: list[Panel] = []
    for title, xs in costs.items():
        dots = [
            Dot(index, name, x, get_shown_factor(measured.metric) * row.value)
            for (index, name), x, row in zip(legend, xs, rows, strict=True)
        ]
        if not all(math.isnan(x) for x in xs):
            chart = draw_scatter(dots, f"{title}; {machine}", count_decimals(measured.metric))
            panels.append(Panel(title, legend, chart))
    return panels


def choose_time_unit(seconds: Sequence[float]) -> tuple[str, float]:
    """Return the largest unit in which the largest number is at least one, and its seconds."""
    largest = max(seconds, default=0.0)
    return next((pair for pair in UNITS if largest >= pair[1]), UNITS[-1])


def format_training_time(seconds: float) -> str:
    """Return a duration with the precision in which methods are compared.

    >>> format_training_time(12.34), format_training_time(200), format_training_time(7499)
    ('12.3 s', '3 min 20 s', '2 h 04 min')
    """
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


def format_amount(amount: float) -> str:
    """Return a number with two decimals, or a dash for NaN."""
    return format_value(amount, "")


def describe_unrecorded(unrecorded: Mapping[Model, int], models: Sequence[Model]) -> str:
    """Name the methods with trainings that did not record their cost."""
    if not unrecorded:
        return ""
    methods = [
        f"{name_model(model, models)} ({format_count(unrecorded[model], 'training')})"
        for model in models
        if model in unrecorded
    ]
    return (
        f"Not recorded: {join_words(methods)}. nnU-Net's own trainers and trainings with old "
        "versions do not record their cost."
    )
