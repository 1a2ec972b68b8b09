"""Compare trainers with their matched baseline, patient by patient, over folds and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from semi_nnunet.evaluation.statistics import Difference, doubts, holm, paired_difference, verdict
from semi_nnunet.evaluation.values import (
    SIGNED,
    Model,
    Value,
    defined_nowhere,
    higher_is_better,
    is_defined,
)
from semi_nnunet.util import markdown
from semi_nnunet.util.errors import UserError


@dataclass(frozen=True)
class Compared:
    """A model beside the baseline of the same configuration.

    Args:
        model: the model.
        mean: of the metric: mean over classes of the mean over patients, folds and seeds.
        baseline_mean: the baseline's, on the same cases, folds and seeds.
        overall: difference of the patients, each the mean over seeds of those over classes, folds
            and cases.
        p_holm: corrected for all models of the table.
        classes: class -> difference of the patients in it, and its p, corrected for all models and
            classes of the table.
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

    def reasoned_verdict(self, metric: str) -> str:
        """The verdict, and why it is not another one."""
        reasons = doubts(self.overall, self.p_holm)
        if reasons and min(self.seeds.values()) < 0 < max(self.seeds.values()):
            reasons.append("the seeds disagree")
        said = self.verdict(metric)
        return f"{said}: {' and '.join(reasons)}" if reasons else said


def in_words(found: str, higher_better: bool) -> str:
    """ "higher" or "lower" as better or worse."""
    if found not in ("higher", "lower"):
        return "no evidence of a gain"
    return "better" if (found == "higher") == higher_better else "WORSE"


def compare(values: Sequence[Value], baseline: str, metric: str) -> list[Compared]:
    """Compare every model with the baseline of its configuration, on what both have.

    Args:
        values: of the metric; cases of one patient are one observation.
        baseline: the trainer.
        metric: which it is.

    Raises:
        UserError: no model has a fold and seed in common with the baseline, or the metric is
            defined nowhere.
    """
    tables = by_model(values)
    found = []
    for model, table in tables.items():
        base = tables.get(Model(baseline, model.configuration), {})
        both = ((v, (v.value, base[key].value)) for key, v in table.items() if key in base)
        pairs = of_patients(both)
        if model.trainer != baseline and pairs:
            found.append(pair_up(model, pairs, higher_is_better(metric)))
    if not found:
        measured = sorted({model.trainer for model in tables})
        if measured and baseline not in measured:
            raise UserError(
                f"the baseline {baseline} is none of what was measured: {', '.join(measured)}. ",
                fix="train it (semi_nnunet crossval), or name another with --baseline",
            )
        if tables and not is_defined(values):
            raise defined_nowhere(metric)
        if measured == [baseline]:
            means = ", ".join(
                f"{model.configuration} {mean_of_classes(alone(table.values())):.4f}"
                for model, table in tables.items()
            )
            raise UserError(
                f"nothing but the baseline {baseline} was measured ({metric}: {means}). ",
                fix="train a method beside it (semi_nnunet crossval -tr TRAINER)",
            )
        raise UserError(
            f"no trainer has a case of the same fold and seed in common with the baseline "
            f"{baseline}",
            fix="train both (semi_nnunet crossval), or name another with --baseline",
        )
    overall = holm([item.overall.p for item in found])
    of_classes = iter(holm([d.p for item in found for d, _ in item.classes.values()]))
    return [
        replace(
            item,
            p_holm=p,
            classes={name: (d, next(of_classes)) for name, (d, _) in item.classes.items()},
        )
        for item, p in zip(found, overall, strict=True)
    ]


def by_model(values: Iterable[Value]) -> dict[Model, dict[CaseKey, Value]]:
    """The values of each model, by fold, seed, case and class."""
    tables: dict[Model, dict[CaseKey, Value]] = defaultdict(dict)
    for v in values:
        tables[v.model][v.fold, v.seed, v.case, v.name] = v
    return tables


CaseKey = tuple[str, int, str, str]  # fold, seed, case, class
Key = tuple[str, int, str, str]  # fold, seed, patient, class
Numbers = Mapping[Key, tuple[float, ...]]
G = TypeVar("G")


def of_patients(cases: Iterable[tuple[Value, tuple[float, ...]]]) -> dict[Key, tuple[float, ...]]:
    """Mean over the cases of each patient, as one with many must not count for many.

    Args:
        cases: values, and numbers of each, to average; those of NaN are left out.
    """
    groups = defaultdict[Key, list[tuple[float, ...]]](list)
    for v, numbers in cases:
        if not any(map(math.isnan, numbers)):
            groups[v.fold, v.seed, v.whose, v.name].append(numbers)
    return {key: tuple(map(float, np.mean(group, axis=0))) for key, group in groups.items()}


def alone(values: Iterable[Value]) -> dict[Key, tuple[float, ...]]:
    """:func:`of_patients` of one model's values."""
    return of_patients((v, (v.value,)) for v in values)


def classes_of(numbers: Numbers) -> list[str]:
    """In the order in which they come."""
    return list(dict.fromkeys(key[3] for key in numbers))


def pair_up(model: Model, pairs: Numbers, higher_better: bool) -> Compared:
    """The differences of one model, no p corrected yet."""
    of_classes = {
        name: paired_difference(
            by_patient_and_seed({key: pair for key, pair in pairs.items() if key[3] == name}),
            higher_better,
        )
        for name in classes_of(pairs)
    }
    return Compared(
        model,
        mean_of_classes(pairs, 0),
        mean_of_classes(pairs, 1),
        paired_difference(by_patient_and_seed(pairs), higher_better),
        1.0,
        {name: (difference, 1.0) for name, difference in of_classes.items()},
        mean_difference_by(pairs, lambda key: key[1]),
    )


def by_patient_and_seed(pairs: Numbers) -> np.ndarray:
    """(patients, seeds) mean differences, NaN where a seed lacks a patient."""
    found = mean_difference_by(pairs, lambda key: (key[2], key[1]))
    patients, seeds = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    return np.array([[found.get((one, seed), math.nan) for seed in seeds] for one in patients])


def mean_difference_by(pairs: Numbers, group: Callable[[Key], G]) -> dict[G, float]:
    """Group -> mean over its classes of the mean difference in that class."""
    parts: dict[G, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, (value, base) in pairs.items():
        parts[group(key)][key[3]].append(value - base)
    return {
        name: float(np.mean([np.mean(differences) for differences in classes.values()]))
        for name, classes in parts.items()
    }


def mean_of_classes(numbers: Numbers, which: int = 0) -> float:
    """Mean over classes of the mean over all else; ``which``: 0 the model's, 1 the baseline's."""
    return float(np.mean([mean_of_class(numbers, name, which) for name in classes_of(numbers)]))


def mean_of_class(numbers: Numbers, name: str, which: int = 0) -> float:
    """Mean over patients, folds and seeds; NaN where there are none."""
    own = [number[which] for key, number in numbers.items() if key[3] == name]
    return float(np.mean(own)) if own else math.nan


def ranking(values: Sequence[Value], metric: str) -> list[tuple[Model, float]]:
    """Every model with its mean over what all of them predicted, best first.

    Those with the fewest trainings, which may be running still, are :func:`left_out` where all have
    nothing in common; [] if that leaves fewer than two of several. The best is chosen on validation
    cases.
    """
    measured = tables = by_model(v for v in values if not math.isnan(v.value))
    while tables and not (common := set.intersection(*map(set, tables.values()))):
        fewest = min(map(len, tables.values()))
        tables = {model: table for model, table in tables.items() if len(table) > fewest}
    if len(tables) < min(2, len(measured)):
        return []
    means = [
        (model, mean_of_classes(alone(table[key] for key in sorted(common))))
        for model, table in tables.items()
    ]
    return sorted(means, key=lambda item: item[1], reverse=higher_is_better(metric))


def left_out(values: Iterable[Value], ranked: Sequence[tuple[Model, float]]) -> list[Model]:
    """Those that a :func:`ranking` has no place for, as they have nothing in common with it."""
    placed = {model for model, _ in ranked}
    return [
        model for model in by_model(v for v in values if v.value == v.value) if model not in placed
    ]


# ---- tables for people ----


def overall_table(found: Sequence[Compared], metric: str) -> str:
    """A line for each model."""
    rows = [
        ["trainer", "configuration", column_title(metric), "baseline", "difference",
         "95 % interval", "p (Holm)", "better in", "seeds", ""],
    ]  # fmt: skip
    for item in found:
        d = item.overall
        seeds = ", ".join(f"{difference:+.4f}" for _, difference in sorted(item.seeds.items()))
        rows.append(
            [item.model.trainer, item.model.configuration, f"{item.mean:.4f}",
             f"{item.baseline_mean:.4f}", f"{d.mean:+.4f}", interval(d), readable_p(item.p_holm),
             f"{d.better} of {d.cases}", seeds, item.reasoned_verdict(metric)]
        )  # fmt: skip
    return markdown.table(rows)


def means_table(ranked: Sequence[tuple[Model, float]], metric: str) -> str:
    """A line for each model, best first."""
    rows = [[m.trainer, m.configuration, f"{mean:.4f}"] for m, mean in ranked]
    return markdown.table([["trainer", "configuration", column_title(metric)], *rows])


def column_title(metric: str) -> str:
    """As its column, between bars where a value without its sign is compared."""
    return f"|{metric}|" if metric.startswith(SIGNED) else metric


def patients_note(values: Sequence[Value]) -> str:
    """That cases of one patient count as one, if there are such."""
    there = [v for v in values if not math.isnan(v.value)]
    cases, patients = len({v.case for v in there}), len({v.whose for v in there})
    if patients == cases:
        return ""
    said = f"{patients} patient{'s' if patients > 1 else ''}"
    return f"Of the {cases} cases those of one patient count as one: {said}."


def seeds_note(values: Sequence[Value], baseline: str) -> str:
    """How far chance in training alone moved the baseline, a line for each configuration.

    Of one seed, the interval knows nothing of it.
    """
    lines = []
    for model, table in by_model(v for v in values if not math.isnan(v.value)).items():
        if model.trainer != baseline:
            continue
        own = alone(table.values())
        means = [
            mean_of_classes({key: one for key, one in own.items() if key[1] == seed})
            for seed in sorted({key[1] for key in own})
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
    return markdown.table(rows)


def readable_p(p: float) -> str:
    """ "< 0.001" or "0.034"; never 0.000."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(difference: Difference) -> str:
    if math.isnan(difference.low):
        return "only one"
    return f"{difference.low:+.4f} to {difference.high:+.4f}"
