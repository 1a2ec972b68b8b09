"""Results on one set of cases, validation or test: means, differences, every case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semi_nnunet.evaluation.comparison import (
    ModelComparison,
    average_class,
    average_classes,
    compare_with_baseline,
    compute_patient_means,
    describe_patients,
    group_by_model,
)
from semi_nnunet.evaluation.domain_gains import DomainGain, compare_by_domain
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
from semi_nnunet.raw.domains import DomainOf
from semi_nnunet.raw.folds import PatientOf
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv

ALL_CLASSES = "all classes"
COMMON_METRICS = ("dice", "iou", "hd95_edge", "assd_edge", "nsd_surfel")


@dataclass(frozen=True)
class MetricCell:
    """A mean of a method, and its difference from the baseline on the same folds and seeds."""

    value: float
    difference: Difference | None = None
    p: float = 1.0
    verdict: str = ""


@dataclass(frozen=True)
class MethodRow:
    """The cells of a method: all classes together, then each class."""

    model: Model
    trainings: int
    seeds: int
    cells: tuple[MetricCell, ...]


@dataclass(frozen=True)
class MetricTable:
    """A table of one metric: methods x classes."""

    metric: str
    columns: tuple[str, ...]
    rows: tuple[MethodRow, ...]

    @property
    def has_folds(self) -> bool:
        """Whether a method was trained on several folds with the same seed."""
        return any(row.trainings > row.seeds for row in self.rows)


@dataclass(frozen=True)
class SubsetResults:
    """The results on one set of cases.

    Args:
        subset: "validation" or "test".
        metric: that the answer is about.
        values: of that metric.
        compared: comparisons of the methods with the baseline; empty if they have nothing in
            common.
        tables: of every shown metric, starting with ``metric``.
        note: that cases of one patient count as one, if there are such cases.
        steps: of the trainings, as far as they are recorded.
        domains: comparisons in each domain; empty if the data set names none.
    """

    subset: str
    metric: str
    values: tuple[Value, ...]
    compared: tuple[ModelComparison, ...]
    tables: tuple[MetricTable, ...]
    note: str = ""
    steps: Mapping[Model, int] = field(default_factory=dict)
    domains: tuple[DomainGain, ...] = ()

    @property
    def unit(self) -> str:
        """Noun for the observations, "case" or "patient"."""
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

    def case_means(self) -> dict[Model, dict[str, dict[str, float]]]:
        """Return model -> case -> class, or "all classes" -> mean over folds and seeds."""
        tables = group_by_model(self.values)
        return {model: average_cases(table.values()) for model, table in tables.items()}


def read_metrics(
    tables: Sequence[Table], metric: str, patient_of: PatientOf
) -> dict[str, list[Value]]:
    """Read the metric and the other shown metrics: name -> values.

    Raises:
        UserError: a table lacks the metric.
    """
    existing = [table for table in tables if table[3].is_file()]
    names = [metric, *list_shown_metrics([table[3] for table in existing])]
    return {name: read_values(existing, name, patient_of)[0] for name in dict.fromkeys(names)}


def measure_subset(
    subset: str,
    metrics: Mapping[str, Sequence[Value]],
    baseline: str,
    steps: Mapping[Model, int] | None = None,
    domain_of: DomainOf | None = None,
) -> SubsetResults | None:
    """Compare the methods on one set of cases; None if the first metric has no defined value.

    Args:
        subset: "validation" or "test".
        metrics: name -> values; the answer is about the first metric.
        baseline: trainer to compare with.
        steps: of the trainings, as far as they are recorded.
        domain_of: case -> its domain; None: the data set names none.
    """
    steps = steps or {}
    metric = next(iter(metrics))
    defined = {
        name: [v for v in credit_absence(values, name) if v.name]
        for name, values in metrics.items()
        if has_defined_value(values)
    }
    if metric not in defined:
        return None
    values = defined[metric]
    compared = {
        name: compare_if_possible(vs, baseline, name, steps) for name, vs in defined.items()
    }
    tables = tuple(
        build_metric_table(vs, compared[name], baseline, name) for name, vs in defined.items()
    )
    note = describe_patients(values)
    domains = tuple(compare_by_domain(values, baseline, metric, domain_of))
    return SubsetResults(
        subset, metric, tuple(values), tuple(compared[metric]), tables, note, steps, domains
    )


def compare_if_possible(
    values: Sequence[Value], baseline: str, metric: str, steps: Mapping[Model, int]
) -> list[ModelComparison]:
    """Return the comparisons, or [] if there is nothing to compare."""
    try:
        return compare_with_baseline(values, baseline, metric, steps)
    except UserError:
        return []


def list_shown_metrics(paths: Sequence[Path]) -> list[str]:
    """Return the common metrics that are columns of all tables."""
    columns = [read_csv(path)[0] for path in paths]
    common = [name for name in (columns or [[]])[0] if all(name in other for other in columns)]
    return [name for first in COMMON_METRICS for name in common if name.startswith(first)]


def build_metric_table(
    values: Sequence[Value], compared: Sequence[ModelComparison], baseline: str, metric: str
) -> MetricTable:
    """Return the table of a metric: the baseline first, then the others by name."""
    tables = group_by_model(v for v in values if v.value == v.value)
    names = list(dict.fromkeys(value.name for value in values))
    comparisons = {item.model: item for item in compared}
    rows = []
    for model in sorted(tables, key=lambda m: (m.trainer != baseline, m.trainer, m.configuration)):
        means = compute_patient_means(tables[model].values())
        cells = [
            MetricCell(average_classes(means)),
            *(MetricCell(average_class(means, name)) for name in names),
        ]
        if model in comparisons:
            cells = add_differences(cells, comparisons[model], names, metric)
        trainings, seeds = {key[:2] for key in means}, {key[1] for key in means}
        rows.append(MethodRow(model, len(trainings), len(seeds), tuple(cells)))
    return MetricTable(metric, (ALL_CLASSES, *names), tuple(rows))


def add_differences(
    cells: Sequence[MetricCell], item: ModelComparison, names: Sequence[str], metric: str
) -> list[MetricCell]:
    """Return the cells with their differences from the baseline."""
    overall, *of_classes = cells
    return [
        MetricCell(overall.value, item.overall, item.p_holm, item.verdict(metric)),
        *(
            MetricCell(cell.value, *item.classes[name], item.class_verdict(name, metric))
            if name in item.classes
            else cell
            for name, cell in zip(names, of_classes, strict=True)
        ),
    ]


def average_cases(values: Iterable[Value]) -> dict[str, dict[str, float]]:
    """Return case -> class -> mean over folds and seeds; "all classes" is the mean of these."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for v in values:
        groups[v.case][v.name].append(v.value)
    means = {
        case: {name: average_defined(numbers) for name, numbers in classes.items()}
        for case, classes in groups.items()
    }
    return {
        case: {ALL_CLASSES: average_defined(list(m.values())), **m} for case, m in means.items()
    }
