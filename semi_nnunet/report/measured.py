"""What was measured on one set of cases, validation or test: means, differences, every case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.evaluation.comparison import (
    ModelComparison,
    average_class,
    average_classes,
    compare_with_baseline,
    compute_patient_means,
    describe_patients,
    describe_verdict,
    group_by_model,
)
from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.tables import average_defined
from semi_nnunet.evaluation.values import (
    Model,
    Table,
    Value,
    credit_absence,
    has_defined_value,
    read_values,
)
from semi_nnunet.raw.folds import PatientOf
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv

ALL_CLASSES = "all classes"
ASKED_FOR_FIRST = ("dice", "iou", "hd95_edge", "assd_edge", "nsd_surfel")


@dataclass(frozen=True)
class MetricCell:
    """A mean of a method, and how it differs from the baseline's on the same folds and seeds."""

    value: float
    difference: Difference | None = None
    p: float = 1.0
    said: str = ""


@dataclass(frozen=True)
class MethodRow:
    """A method: all classes together, then each."""

    model: Model
    trainings: int
    cells: tuple[MetricCell, ...]


@dataclass(frozen=True)
class MetricTable:
    """Methods x classes of one metric."""

    metric: str
    columns: tuple[str, ...]
    rows: tuple[MethodRow, ...]


@dataclass(frozen=True)
class SubsetResults:
    """The comparisons of one set of cases.

    Args:
        subset: "validation" or "test".
        metric: the one that the answer is about.
        values: of that metric.
        compared: the methods beside the baseline; [] if there is nothing in common.
        tables: of every metric that is shown, that one first.
        note: that cases of one patient were compared as one, if there are such.
    """

    subset: str
    metric: str
    values: tuple[Value, ...]
    compared: tuple[ModelComparison, ...]
    tables: tuple[MetricTable, ...]
    note: str = ""

    @property
    def unit(self) -> str:
        """The word for what was compared, cases or patients."""
        return "patient" if self.note else "case"

    @property
    def models(self) -> list[Model]:
        return [row.model for row in self.tables[0].rows]

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(value.name for value in self.values))

    @property
    def cases(self) -> list[str]:
        return sorted({value.case for value in self.values})

    def of_cases(self) -> dict[Model, dict[str, dict[str, float]]]:
        """Model -> case -> class, or "all classes" -> mean over folds and seeds."""
        tables = group_by_model(self.values)
        return {model: average_cases(table.values()) for model, table in tables.items()}


def read_metrics(
    tables: Sequence[Table], metric: str, patient_of: PatientOf
) -> dict[str, list[Value]]:
    """The metric, and the others that are shown beside it: name -> values.

    Raises:
        UserError: a table lacks the metric.
    """
    there = [table for table in tables if table[3].is_file()]
    found = {metric: read_values(there, metric, patient_of)[0]}
    for name in list_shown_metrics([table[3] for table in there]):
        if name != metric:
            found[name] = read_values(there, name, patient_of)[0]
    return found


def measure_subset(
    subset: str, metrics: Mapping[str, Sequence[Value]], baseline: str
) -> SubsetResults | None:
    """Compare; None if nothing of these cases was measured, or the metric is defined nowhere.

    Args:
        subset: "validation" or "test".
        metrics: name -> values; the first is the one that the answer is about.
        baseline: trainer to compare with.
    """
    metric = next(iter(metrics))
    found = {
        name: [v for v in credit_absence(values, name) if v.name]
        for name, values in metrics.items()
        if has_defined_value(values)
    }
    if metric not in found:
        return None
    values = found[metric]
    compared = {name: compare_if_possible(of, baseline, name) for name, of in found.items()}
    made = tuple(
        build_metric_table(of, compared[name], baseline, name) for name, of in found.items()
    )
    note = describe_patients(values)
    return SubsetResults(subset, metric, tuple(values), tuple(compared[metric]), made, note)


def compare_if_possible(
    values: Sequence[Value], baseline: str, metric: str
) -> list[ModelComparison]:
    """Nothing to compare is no mistake here."""
    try:
        return compare_with_baseline(values, baseline, metric)
    except UserError:
        return []


def list_shown_metrics(paths: Sequence[Path]) -> list[str]:
    """The columns that all tables have of those that people ask for first."""
    columns = [read_csv(path)[0] for path in paths]
    common = [name for name in (columns or [[]])[0] if all(name in other for other in columns)]
    return [name for first in ASKED_FOR_FIRST for name in common if name.startswith(first)]


def build_metric_table(
    values: Sequence[Value], compared: Sequence[ModelComparison], baseline: str, metric: str
) -> MetricTable:
    """The baseline first, then the others by their names."""
    tables = group_by_model(v for v in values if v.value == v.value)
    names = list(dict.fromkeys(value.name for value in values))
    beside = {item.model: item for item in compared}
    rows = []
    for model in sorted(tables, key=lambda m: (m.trainer != baseline, m.trainer, m.configuration)):
        own = compute_patient_means(tables[model].values())
        cells = [
            MetricCell(average_classes(own)),
            *(MetricCell(average_class(own, name)) for name in names),
        ]
        if model in beside:
            cells = add_differences(cells, beside[model], names, metric)
        rows.append(MethodRow(model, len({key[:2] for key in own}), tuple(cells)))
    return MetricTable(metric, (ALL_CLASSES, *names), tuple(rows))


def add_differences(
    cells: Sequence[MetricCell], item: ModelComparison, names: Sequence[str], metric: str
) -> list[MetricCell]:
    """The same values with their differences from the baseline."""
    found = [(item.overall, item.p_holm), *(item.classes.get(name) for name in names)]
    return [
        MetricCell(cell.value, *pair, describe_verdict(*pair, metric)) if pair else cell
        for cell, pair in zip(cells, found, strict=True)
    ]


def average_cases(values: Iterable[Value]) -> dict[str, dict[str, float]]:
    """Case -> class -> mean over folds and seeds; "all classes": the mean of those."""
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for v in values:
        parts[v.case][v.name].append(v.value)
    means = {
        case: {name: average_defined(numbers) for name, numbers in classes.items()}
        for case, classes in parts.items()
    }
    return {
        case: {ALL_CLASSES: average_defined(list(m.values())), **m} for case, m in means.items()
    }
