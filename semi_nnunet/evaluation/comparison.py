"""Compare trainers with their matched baseline, case by case, over folds and seeds."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from semi_nnunet.errors import UserError
from semi_nnunet.evaluation.statistics import Difference, holm, paired_difference, verdict

SIGNED = ("volume", "relative")  # too much is as bad as too little
LOWER_IS_BETTER = ("hd95", "asd", "assd", *SIGNED)


@dataclass(frozen=True)
class Model:
    """What is compared: a trainer with a configuration."""

    trainer: str
    configuration: str


Table = tuple[Model, str, int, Path]  # model, fold, seed, metrics.csv


@dataclass(frozen=True)
class Value:
    """A metric of one class of one case, as one training predicted it."""

    model: Model
    fold: str
    seed: int
    case: str
    name: str
    value: float


@dataclass(frozen=True)
class Compared:
    """A model beside the baseline of the same configuration.

    Args:
        model: the model.
        mean: of the metric: mean over classes of the mean over cases, folds and seeds.
        baseline_mean: the baseline's, on the same cases, folds and seeds.
        overall: difference of the cases, each the mean over seeds of those over classes and folds.
        p_holm: corrected for all models of the table.
        classes: class -> difference of the cases in it, and its corrected p.
        seeds: seed -> mean difference of that seed's trainings.
    """

    model: Model
    mean: float
    baseline_mean: float
    overall: Difference
    p_holm: float
    classes: dict[str, tuple[Difference, float]]
    seeds: dict[int, float]

    def verdict(self, metric: str) -> str:
        """What the table says, in words."""
        return in_words(verdict(self.overall, self.p_holm), higher_is_better(metric))


def higher_is_better(metric: str) -> bool:
    """Overlaps grow, distances and volume differences shrink."""
    return not metric.startswith(LOWER_IS_BETTER)


def in_words(found: str, higher_better: bool) -> str:
    """ "higher" or "lower" as better or worse."""
    if found not in ("higher", "lower"):
        return "no evidence of a gain"
    return "better" if (found == "higher") == higher_better else "WORSE"


def read_values(tables: Iterable[Table], metric: str) -> tuple[list[Value], list[str]]:
    """Collect a metric from tables of :mod:`semi_nnunet.evaluation.tables`.

    Args:
        tables: model, fold, seed and metrics.csv of each training.
        metric: a column.

    Returns:
        The values, see :func:`crediting_absence`, and the tables that are not there.

    Raises:
        UserError: a table lacks the column, or it is none of a metric.
    """
    values: list[Value] = []
    missing: list[str] = []
    for model, fold, seed, path in tables:
        if not path.is_file():
            missing.append(str(path))
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and metric not in numbers_of(rows[0]):
            columns = ", ".join(numbers_of(rows[0]))
            raise UserError(f"{path} has no column {metric!r}. Fix: choose from {columns}")
        for row in rows:
            value = float(row[metric]) if row[metric] else math.nan
            value = abs(value) if metric.startswith(SIGNED) else value
            values.append(Value(model, fold, seed, row["case"], row["class"], value))
    return crediting_absence(values, metric), missing


def numbers_of(columns: Iterable[str]) -> list[str]:
    """The columns that hold metrics."""
    return [column for column in columns if column not in ("case", "class")]


def crediting_absence(values: Sequence[Value], metric: str) -> list[Value]:
    """Finding nothing where nothing is counts as perfect, if another training found something.

    The metric of a class that neither reference nor prediction shows is not defined, and no mean
    counts it; but one who invents the class there gets the worst value, which must not be dropped
    for want of a partner. Where nobody found anything, all stay undefined.
    """
    found = {(v.case, v.name) for v in values if not math.isnan(v.value)}
    perfect = 1.0 if higher_is_better(metric) else 0.0
    return [
        replace(v, value=perfect) if math.isnan(v.value) and (v.case, v.name) in found else v
        for v in values
    ]


def compare(values: Sequence[Value], baseline: str, metric: str) -> list[Compared]:
    """Compare every model with the baseline of its configuration, on what both have.

    Raises:
        UserError: no model has a fold and seed in common with the baseline.
    """
    tables = by_model(values)
    found = []
    for model, table in tables.items():
        base = tables.get(Model(baseline, model.configuration), {})
        pairs = {key: (value, base[key]) for key, value in table.items() if key in base}
        if model.trainer != baseline and any(not_nan(pair) for pair in pairs.values()):
            found.append(pair_up(model, pairs, higher_is_better(metric)))
    if not found:
        raise UserError(
            f"no trainer has a fold and seed in common with the baseline {baseline}. Fix: train "
            f"both (semi_nnunet crossval), or name another with --baseline"
        )
    corrected = holm([item.overall.p for item in found])
    return [
        Compared(**{**item.__dict__, "p_holm": p}) for item, p in zip(found, corrected, strict=True)
    ]


def by_model(values: Iterable[Value]) -> dict[Model, dict[Key, float]]:
    """The values of each model, by fold, seed, case and class."""
    tables: dict[Model, dict[Key, float]] = defaultdict(dict)
    for v in values:
        tables[v.model][v.fold, v.seed, v.case, v.name] = v.value
    return tables


def not_nan(pair: tuple[float, float]) -> bool:
    return not math.isnan(pair[0]) and not math.isnan(pair[1])


Key = tuple[str, int, str, str]  # fold, seed, case, class
Pairs = Mapping[Key, tuple[float, float]]
G = TypeVar("G")


def pair_up(model: Model, pairs: Pairs, higher_better: bool) -> Compared:
    """The differences of one model, not corrected for the others."""
    both = {key: pair for key, pair in pairs.items() if not_nan(pair)}
    names = list(dict.fromkeys(key[3] for key in both))
    of_classes = {
        name: paired_difference(
            by_case_and_seed({key: pair for key, pair in both.items() if key[3] == name}),
            higher_better,
        )
        for name in names
    }
    corrected = holm([difference.p for difference in of_classes.values()])
    return Compared(
        model,
        mean_of_classes(both, names, 0),
        mean_of_classes(both, names, 1),
        paired_difference(by_case_and_seed(both), higher_better),
        1.0,
        {name: (of_classes[name], p) for name, p in zip(names, corrected, strict=True)},
        mean_difference_by(both, lambda key: key[1]),
    )


def by_case_and_seed(pairs: Pairs) -> np.ndarray:
    """(cases, seeds) mean differences, NaN where a seed lacks a case."""
    found = mean_difference_by(pairs, lambda key: (key[2], key[1]))
    cases, seeds = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    return np.array([[found.get((case, seed), math.nan) for seed in seeds] for case in cases])


def mean_difference_by(pairs: Pairs, group: Callable[[Key], G]) -> dict[G, float]:
    """Group -> mean over its classes of the mean difference in that class."""
    parts: dict[G, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, (value, base) in pairs.items():
        parts[group(key)][key[3]].append(value - base)
    return {
        name: float(np.mean([np.mean(differences) for differences in classes.values()]))
        for name, classes in parts.items()
    }


def mean_of_classes(pairs: Pairs, names: Sequence[str], which: int) -> float:
    """Mean over classes of the mean over all else; ``which``: 0 the model's, 1 the baseline's."""
    of_class = [[pair[which] for key, pair in pairs.items() if key[3] == name] for name in names]
    return float(np.mean([np.mean(numbers) for numbers in of_class]))


def best_model(values: Sequence[Value], metric: str) -> tuple[Model, float] | None:
    """The model with the best mean over what all models predicted; None if that is nothing."""
    tables = by_model(v for v in values if not math.isnan(v.value))
    common = set.intersection(*(set(table) for table in tables.values())) if tables else set()
    if not common:
        return None
    names = sorted({key[3] for key in common})
    means = {
        model: mean_of_classes({key: (table[key], 0.0) for key in common}, names, 0)
        for model, table in tables.items()
    }
    best = (max if higher_is_better(metric) else min)(means, key=means.__getitem__)
    return best, means[best]


# ---- tables for people ----


def overall_table(found: Sequence[Compared], metric: str) -> str:
    """A line for each model."""
    rows = [
        ["trainer", "configuration", metric, "baseline", "difference", "95 % interval", "p (Holm)",
         "better in", "seeds", ""],
    ]  # fmt: skip
    for item in found:
        d = item.overall
        seeds = ", ".join(f"{difference:+.4f}" for _, difference in sorted(item.seeds.items()))
        rows.append(
            [item.model.trainer, item.model.configuration, f"{item.mean:.4f}",
             f"{item.baseline_mean:.4f}", f"{d.mean:+.4f}", interval(d), readable_p(item.p_holm),
             f"{d.better} of {d.cases}", seeds, item.verdict(metric)]
        )  # fmt: skip
    return markdown(rows)


def seeds_note(values: Sequence[Value], baseline: str) -> str:
    """How far chance in training alone moved the baseline, a line for each configuration.

    Of one seed, the interval knows nothing of it.
    """
    lines = []
    for model, table in by_model(v for v in values if not math.isnan(v.value)).items():
        if model.trainer != baseline:
            continue
        seeds: dict[int, dict[Key, tuple[float, float]]] = defaultdict(dict)
        for key, value in table.items():
            seeds[key[1]][key] = (value, 0.0)
        means = [
            mean_of_classes(pairs, sorted({key[3] for key in pairs}), 0)
            for _, pairs in sorted(seeds.items())
        ]
        name = f"{baseline} {model.configuration}"
        lines.append(
            f"{name} by seed: {', '.join(f'{mean:.4f}' for mean in means)}."
            if len(means) > 1
            else f"{name} has one seed: how much chance in training matters is not known, the "
            f"intervals are of the cases alone. Fix: semi_nnunet crossval --seeds 3"
        )
    return "\n".join(lines)


def class_table(found: Sequence[Compared], metric: str) -> str:
    """A line for each model and class."""
    rows = [["trainer", "configuration", "class", "difference", "95 % interval", "p (Holm)", ""]]
    for item in found:
        for name, (d, p) in item.classes.items():
            said = in_words(verdict(d, p), higher_is_better(metric))
            rows.append(
                [item.model.trainer, item.model.configuration, name, f"{d.mean:+.4f}", interval(d),
                 readable_p(p), said]
            )  # fmt: skip
    return markdown(rows)


def readable_p(p: float) -> str:
    """ "< 0.001" or "0.034"; never 0.000."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(difference: Difference) -> str:
    if math.isnan(difference.low):
        return "one case"
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table that is readable on a terminal, too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
