"""Compare trainers with their matched baseline, patient by patient, over folds and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from semi_nnunet.data.patients import PatientOf, itself
from semi_nnunet.errors import UserError
from semi_nnunet.evaluation.statistics import Difference, holm, paired_difference, verdict
from semi_nnunet.evaluation.values import Model, Value, higher_is_better


@dataclass(frozen=True)
class Compared:
    """A model beside the baseline of the same configuration.

    Args:
        model: the model.
        mean: of the metric: mean over classes of the mean over cases, folds and seeds.
        baseline_mean: the baseline's, on the same cases, folds and seeds.
        overall: difference of the patients, each the mean over seeds of those over classes, folds
            and cases.
        p_holm: corrected for all models of the table.
        classes: class -> difference of the patients in it, and its corrected p.
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


def in_words(found: str, higher_better: bool) -> str:
    """ "higher" or "lower" as better or worse."""
    if found not in ("higher", "lower"):
        return "no evidence of a gain"
    return "better" if (found == "higher") == higher_better else "WORSE"


def compare(
    values: Sequence[Value], baseline: str, metric: str, patient_of: PatientOf = itself
) -> list[Compared]:
    """Compare every model with the baseline of its configuration, on what both have.

    Args:
        values: of the metric.
        baseline: the trainer.
        metric: which it is.
        patient_of: case -> its patient; cases of one patient are one observation.

    Raises:
        UserError: no model has a fold and seed in common with the baseline.
    """
    tables = by_model(values)
    found = []
    for model, table in tables.items():
        base = tables.get(Model(baseline, model.configuration), {})
        pairs = {key: (value, base[key]) for key, value in table.items() if key in base}
        if model.trainer != baseline and any(not_nan(pair) for pair in pairs.values()):
            found.append(pair_up(model, pairs, higher_is_better(metric), patient_of))
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


def pair_up(model: Model, pairs: Pairs, higher_better: bool, patient_of: PatientOf) -> Compared:
    """The differences of one model, not corrected for the others."""
    both = {key: pair for key, pair in pairs.items() if not_nan(pair)}
    names = list(dict.fromkeys(key[3] for key in both))
    of_classes = {
        name: paired_difference(
            by_patient_and_seed(
                {key: pair for key, pair in both.items() if key[3] == name}, patient_of
            ),
            higher_better,
        )
        for name in names
    }
    corrected = holm([difference.p for difference in of_classes.values()])
    return Compared(
        model,
        mean_of_classes(both, names, 0),
        mean_of_classes(both, names, 1),
        paired_difference(by_patient_and_seed(both, patient_of), higher_better),
        1.0,
        {name: (of_classes[name], p) for name, p in zip(names, corrected, strict=True)},
        mean_difference_by(both, lambda key: key[1]),
    )


def by_patient_and_seed(pairs: Pairs, patient_of: PatientOf) -> np.ndarray:
    """(patients, seeds) mean differences, NaN where a seed lacks a patient."""
    found = mean_difference_by(pairs, lambda key: (patient_of(key[2]), key[1]))
    patients, seeds = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    return np.array([[found.get((one, seed), math.nan) for seed in seeds] for one in patients])


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


def patients_note(values: Sequence[Value], patient_of: PatientOf) -> str:
    """That cases of one patient count as one, if there are such."""
    cases = {v.case for v in values if not math.isnan(v.value)}
    patients = {patient_of(case) for case in cases}
    if len(patients) == len(cases):
        return ""
    return f"Of the {len(cases)} cases those of one patient count as one: {len(patients)} patients."


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
