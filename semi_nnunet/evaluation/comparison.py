"""Compare trainers with their matched baseline, patient by patient, over folds and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from semi_nnunet.evaluation.points import (
    find_difference_unit,
    format_difference,
    format_interval,
    format_mean,
)
from semi_nnunet.evaluation.statistics import (
    Difference,
    find_doubts,
    holm,
    judge_difference,
    paired_difference,
)
from semi_nnunet.evaluation.values import (
    SIGNED,
    Model,
    Value,
    build_undefined_error,
    has_defined_value,
    higher_is_better,
)
from semi_nnunet.util import markdown
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.method_names import name_method

FEW_STEPS = 500  # below, no training is long enough to judge a method by it
NOT_JUDGED = "too few steps to judge"

CaseKey = tuple[str, int, str, str]  # fold, seed, case, class
Key = tuple[str, int, str, str]  # fold, seed, patient, class
Numbers = Mapping[Key, tuple[float, ...]]
G = TypeVar("G")


@dataclass(frozen=True)
class ModelComparison:
    """A model compared with the baseline of the same configuration.

    Args:
        model: trainer and configuration.
        mean: of the metric: mean over classes of the mean over patients, folds and seeds.
        baseline_mean: of the baseline, on the same cases, folds and seeds.
        overall: difference over patients, each the mean over seeds of the mean over classes, folds
            and cases.
        p_holm: p of ``overall``, corrected for all models of the table.
        classes: class -> difference over patients and its p, corrected for all models and classes
            of the table.
        seeds: seed -> mean difference of the trainings with it.
        steps: of the shorter of the two trainings; None: not recorded.
    """

    model: Model
    mean: float
    baseline_mean: float
    overall: Difference
    p_holm: float
    classes: dict[str, tuple[Difference, float]]
    seeds: dict[int, float]
    steps: int | None = None

    @property
    def has_few_steps(self) -> bool:
        """Whether fewer than :data:`FEW_STEPS` steps were trained."""
        return self.steps is not None and self.steps < FEW_STEPS

    def verdict(self, metric: str) -> str:
        """Return "better", "WORSE", "no evidence of a gain" or :data:`NOT_JUDGED`."""
        return self._judge(self.overall, self.p_holm, metric)

    def class_verdict(self, name: str, metric: str) -> str:
        """Return the verdict on one class."""
        return self._judge(*self.classes[name], metric)

    def _judge(self, difference: Difference, p: float, metric: str) -> str:
        return NOT_JUDGED if self.has_few_steps else describe_verdict(difference, p, metric)

    def reasoned_verdict(self, metric: str) -> str:
        """Return the verdict, with the reasons if there is no evidence."""
        verdict = self.verdict(metric)
        if self.has_few_steps:
            return verdict
        reasons = find_doubts(self.overall, self.p_holm)
        if reasons and min(self.seeds.values()) < 0 < max(self.seeds.values()):
            reasons.append("the seeds disagree")
        return f"{verdict}: {' and '.join(reasons)}" if reasons else verdict


def describe_verdict(difference: Difference, p: float, metric: str) -> str:
    """Return "better", "WORSE" or "no evidence of a gain" for a difference in the metric.

    >>> gain = Difference(0.02, low=0.01, high=0.03, p=0.001, cases=12, better=11)
    >>> describe_verdict(gain, 0.002, "dice"), describe_verdict(gain, 0.2, "dice")
    ('better', 'no evidence of a gain')
    """
    judgement = judge_difference(difference, p)
    if judgement not in ("higher", "lower"):
        return "no evidence of a gain"
    return "better" if (judgement == "higher") == higher_is_better(metric) else "WORSE"


def compare_with_baseline(
    values: Sequence[Value], baseline: str, metric: str, steps: Mapping[Model, int] | None = None
) -> list[ModelComparison]:
    """Compare every model with the baseline of its configuration, on the cases that both have.

    Args:
        values: of the metric; cases of one patient are one observation.
        baseline: a trainer.
        metric: name of the metric.
        steps: of the trainings, as far as they are recorded.

    Raises:
        UserError: no model has a fold and seed in common with the baseline, or no value is defined.
    """
    tables = group_by_model(values)
    baselines = {
        model: tables.get(Model(baseline, model.configuration), {})
        for model in tables
        if model.trainer != baseline
    }
    compared = compare_tables(tables, baselines, metric)
    if not compared:
        raise build_no_comparison_error(values, tables, baseline, metric)
    return [
        replace(item, steps=find_fewest_steps(item.model, baseline, steps or {}))
        for item in compared
    ]


def find_fewest_steps(model: Model, baseline: str, steps: Mapping[Model, int]) -> int | None:
    """Return the steps of the model or of its baseline, whichever are fewer; None if unknown."""
    pair = (model, replace(model, trainer=baseline))
    return min((steps[trained] for trained in pair if trained in steps), default=None)


def rank_comparisons(compared: Sequence[ModelComparison], metric: str) -> list[ModelComparison]:
    """Return the comparisons with the largest gain first.

    Methods with fewer seeds than others come after these: the gain of one seed, over the baseline
    of one seed, may be the chance of two trainings. Methods with equally many seeds are ranked by
    the seeds that they share.
    """
    sign = 1 if higher_is_better(metric) else -1
    most = find_most_seeds(compared)
    ranked_seeds = [set(item.seeds) for item in compared if len(item.seeds) == most]
    common = set.intersection(*ranked_seeds) if ranked_seeds else set()

    def order(item: ModelComparison) -> tuple[int, float]:
        seeds = common & {*item.seeds}
        gain = float(np.mean([item.seeds[seed] for seed in seeds])) if seeds else item.overall.mean
        return -len(item.seeds), -sign * gain

    return sorted(compared, key=order)


def find_most_seeds(compared: Sequence[ModelComparison]) -> int:
    """Return the largest number of seeds that a method has in common with the baseline."""
    return max((len(item.seeds) for item in compared), default=0)


def compare_tables(
    tables: Mapping[Model, Mapping[CaseKey, Value]],
    baselines: Mapping[Model, Mapping[CaseKey, Value]],
    metric: str,
) -> list[ModelComparison]:
    """Compare models with a baseline each, on the cases that both have.

    Args:
        tables: of the models, see :func:`group_by_model`.
        baselines: model -> table of its baseline; models without one are left out.
    """
    compared = []
    for model, table in tables.items():
        base = baselines.get(model, {})
        shared = ((v, (v.value, base[key].value)) for key, v in table.items() if key in base)
        if pairs := average_cases_of_patients(shared):
            compared.append(compare_pairs(model, pairs, higher_is_better(metric)))
    overall = holm([item.overall.p for item in compared])
    class_ps = iter(holm([d.p for item in compared for d, _ in item.classes.values()]))
    return [
        replace(
            item,
            p_holm=p,
            classes={name: (d, next(class_ps)) for name, (d, _) in item.classes.items()},
        )
        for item, p in zip(compared, overall, strict=True)
    ]


def build_no_comparison_error(
    values: Sequence[Value],
    tables: Mapping[Model, Mapping[CaseKey, Value]],
    baseline: str,
    metric: str,
) -> UserError:
    """Return the error that explains why no model can be compared with the baseline."""
    measured = sorted({model.trainer for model in tables})
    if measured and baseline not in measured:
        return UserError(
            f"the baseline {baseline} was not measured, only {', '.join(measured)}",
            fix="train it (semi_nnunet crossval), or name another with --baseline",
        )
    if tables and not has_defined_value(values):
        return build_undefined_error(metric)
    if measured == [baseline]:
        means = ", ".join(
            f"{model.configuration} "
            f"{format_mean(average_classes(compute_patient_means(table.values())), metric)}"
            for model, table in tables.items()
        )
        return UserError(
            f"only the baseline {baseline} was measured ({metric}: {means})",
            fix="train a method, too (semi_nnunet crossval -tr TRAINER)",
        )
    return UserError(
        f"no trainer has a case, fold and seed in common with the baseline {baseline}",
        fix="train both (semi_nnunet crossval), or name another with --baseline",
    )


def group_by_model(values: Iterable[Value]) -> dict[Model, dict[CaseKey, Value]]:
    """Return model -> (fold, seed, case, class) -> value."""
    tables: dict[Model, dict[CaseKey, Value]] = defaultdict(dict)
    for v in values:
        tables[v.model][v.fold, v.seed, v.case, v.name] = v
    return tables


def average_cases_of_patients(
    cases: Iterable[tuple[Value, tuple[float, ...]]],
) -> dict[Key, tuple[float, ...]]:
    """Average over the cases of each patient, so that a patient with many cases counts once.

    Args:
        cases: values, and numbers of each to average; cases with a NaN are left out.
    """
    groups = defaultdict[Key, list[tuple[float, ...]]](list)
    for v, numbers in cases:
        if not any(map(math.isnan, numbers)):
            groups[v.fold, v.seed, v.patient_or_case, v.name].append(numbers)
    return {key: tuple(map(float, np.mean(group, axis=0))) for key, group in groups.items()}


def compute_patient_means(values: Iterable[Value]) -> dict[Key, tuple[float, ...]]:
    """Return the means of one model over the cases of each patient."""
    return average_cases_of_patients((v, (v.value,)) for v in values)


def list_value_classes(numbers: Numbers) -> list[str]:
    """Return the classes in order of appearance."""
    return list(dict.fromkeys(key[3] for key in numbers))


def compare_pairs(model: Model, pairs: Numbers, higher_better: bool) -> ModelComparison:
    """Return the differences of one model, with p-values that are not corrected yet."""
    classes = {
        name: paired_difference(
            tabulate_differences({key: pair for key, pair in pairs.items() if key[3] == name}),
            higher_better,
        )
        for name in list_value_classes(pairs)
    }
    return ModelComparison(
        model,
        average_classes(pairs, 0),
        average_classes(pairs, 1),
        paired_difference(tabulate_differences(pairs), higher_better),
        1.0,
        {name: (difference, 1.0) for name, difference in classes.items()},
        average_differences(pairs, lambda key: key[1]),
    )


def tabulate_differences(pairs: Numbers) -> np.ndarray:
    """Return mean differences (patients, seeds), NaN where a seed lacks a patient."""
    means = average_differences(pairs, lambda key: (key[2], key[1]))
    patients, seeds = (list(dict.fromkeys(names)) for names in zip(*means, strict=True))
    return np.array([[means.get((name, seed), math.nan) for seed in seeds] for name in patients])


def average_differences(pairs: Numbers, group: Callable[[Key], G]) -> dict[G, float]:
    """Return group -> mean over its classes of the mean difference in the class."""
    groups: dict[G, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, (value, base) in pairs.items():
        groups[group(key)][key[3]].append(value - base)
    return {
        name: float(np.mean([np.mean(differences) for differences in classes.values()]))
        for name, classes in groups.items()
    }


def average_classes(numbers: Numbers, index: int = 0) -> float:
    """Return the mean over classes of the mean over patients, folds and seeds.

    Args:
        numbers: of each fold, seed, patient and class.
        index: of the number to average: in pairs, 0 is the model and 1 the baseline.
    """
    return float(
        np.mean([average_class(numbers, name, index) for name in list_value_classes(numbers)])
    )


def average_class(numbers: Numbers, name: str, index: int = 0) -> float:
    """Return the mean of a class over patients, folds and seeds; NaN if there are none."""
    class_numbers = [number[index] for key, number in numbers.items() if key[3] == name]
    return float(np.mean(class_numbers)) if class_numbers else math.nan


def rank_models(values: Sequence[Value], metric: str) -> list[tuple[Model, float]]:
    """Return the models with their means over the cases that all of them predicted, best first.

    Models with fewer seeds than at least two others are dropped: the seeds of the others count, and
    one seed says little. If the models have nothing in common, the models with the fewest values
    are dropped until the others do; they may still be training. Returns [] if fewer than two of
    several models remain. Use validation cases to choose the best model.
    """
    measured = group_by_model(v for v in values if not math.isnan(v.value))
    tables = drop_models_with_fewer_seeds(measured)
    while tables and not (common := set.intersection(*map(set, tables.values()))):
        fewest = min(map(len, tables.values()))
        tables = {model: table for model, table in tables.items() if len(table) > fewest}
    if len(tables) < min(2, len(measured)):
        return []
    means = [
        (model, average_classes(compute_patient_means(table[key] for key in sorted(common))))
        for model, table in tables.items()
    ]
    return sorted(means, key=lambda item: item[1], reverse=higher_is_better(metric))


def drop_models_with_fewer_seeds(
    tables: Mapping[Model, dict[CaseKey, Value]],
) -> dict[Model, dict[CaseKey, Value]]:
    """Return the models that have at least as many seeds as the two with the most."""
    counts = {model: len({key[1] for key in table}) for model, table in tables.items()}
    least = sorted(counts.values())[-2:][:1]
    return {model: table for model, table in tables.items() if [counts[model]] >= least}


def find_unranked_models(
    values: Iterable[Value], ranked: Sequence[tuple[Model, float]]
) -> list[Model]:
    """Return the models that :func:`rank_models` dropped: fewer seeds, or no case in common."""
    placed = {model for model, _ in ranked}
    defined = (v for v in values if not math.isnan(v.value))
    return [model for model in group_by_model(defined) if model not in placed]


# ---- tables for people ----


def format_overall_table(compared: Sequence[ModelComparison], metric: str) -> str:
    """Return a Markdown table with a row for each model, those with the most seeds first."""
    rows = [
        ["method", "configuration", "steps", format_column_title(metric), "baseline", "difference",
         "95 % interval", "p (Holm)", "better in", "by seed", ""],
    ]  # fmt: skip
    for item in rank_comparisons(compared, metric):
        d = item.overall
        rows.append(
            [*format_model(item.model), "" if item.steps is None else str(item.steps),
             format_mean(item.mean, metric), format_mean(item.baseline_mean, metric),
             format_difference(d.mean, metric), format_interval(d, metric),
             format_p(item.p_holm), f"{d.better} of {d.cases}", format_seed_gains(item, metric),
             item.reasoned_verdict(metric)]
        )  # fmt: skip
    if all(item.steps is None for item in compared):
        rows = [[*row[:2], *row[3:]] for row in rows]
    return markdown.table(rows)


def format_seed_gains(item: ModelComparison, metric: str) -> str:
    """Return the gain of every seed; a single seed is marked as such."""
    gains = [format_difference(gain, metric) for _, gain in sorted(item.seeds.items())]
    return ", ".join(gains) if len(gains) > 1 else f"seed {next(iter(item.seeds))} only"


def format_means_table(ranked: Sequence[tuple[Model, float]], metric: str) -> str:
    """Return a Markdown table with the mean of each model, best first."""
    rows = [[*format_model(model), format_mean(mean, metric)] for model, mean in ranked]
    return markdown.table([["method", "configuration", format_column_title(metric)], *rows])


def format_class_table(compared: Sequence[ModelComparison], metric: str) -> str:
    """Return a Markdown table with a row for each model and class."""
    rows = [["method", "configuration", "class", "difference", "95 % interval", "p (Holm)", ""]]
    for item in rank_comparisons(compared, metric):
        for name, (d, p) in item.classes.items():
            rows.append(
                [*format_model(item.model), markdown.plain(name), format_difference(d.mean, metric),
                 format_interval(d, metric), format_p(p), item.class_verdict(name, metric)]
            )  # fmt: skip
    return markdown.table(rows)


def format_model(model: Model) -> tuple[str, str]:
    """Return method and configuration for a Markdown table; files of strangers name them."""
    return markdown.plain(name_method(model.trainer)), markdown.plain(model.configuration)


def describe_steps(compared: Sequence[ModelComparison]) -> str:
    """Return the warning about trainings of few steps; "" if there are none."""
    few = [item for item in compared if item.has_few_steps]
    if not few:
        return ""
    names = ", ".join(dict.fromkeys(name_method(item.model.trainer) for item in few))
    fewest = min(item.steps or 0 for item in few)
    return (
        f"No verdict on {names}: {fewest} steps were trained, and a method can be judged after "
        f"{FEW_STEPS} at the earliest."
    )


def describe_shared_seeds(compared: Sequence[ModelComparison]) -> str:
    """Return the note on methods with fewer seeds than others; "" if all have the same number."""
    most = find_most_seeds(compared)
    fewer = [name_method(item.model.trainer) for item in compared if len(item.seeds) < most]
    if not fewer:
        return ""
    verb = "has" if len(fewer) == 1 else "have"
    return (
        f"Not ranked with the others: {', '.join(dict.fromkeys(fewer))} {verb} fewer than {most} "
        "seeds. Their gains are over the baseline with the same seeds only, so they also contain "
        "its chance in training."
    )


def describe_unit(metric: str) -> str:
    """Return the note that numbers are points; "" for other units."""
    if find_difference_unit(metric) != "points":
        return ""
    return f"In points: {metric} x 100."


def format_column_title(metric: str) -> str:
    """Return the metric's name, between bars if values are compared without their sign."""
    return f"|{metric}|" if metric.startswith(SIGNED) else metric


def describe_patients(values: Sequence[Value]) -> str:
    """Return the note that cases of one patient count as one; "" if each patient has one case."""
    defined = [v for v in values if not math.isnan(v.value)]
    cases, patients = len({v.case for v in defined}), len({v.patient_or_case for v in defined})
    if patients == cases:
        return ""
    noun = "patients" if patients > 1 else "patient"
    return f"Cases of one patient count as one: {cases} cases of {patients} {noun}."


def describe_seeds(values: Sequence[Value], baseline: str, metric: str) -> str:
    """Return a line for each configuration with the baseline's mean of each seed.

    It shows how much of a difference may be chance in training, which one seed leaves unknown.
    """
    lines = []
    for model, table in group_by_model(v for v in values if not math.isnan(v.value)).items():
        if model.trainer != baseline:
            continue
        patients = compute_patient_means(table.values())
        means = [
            average_classes({key: number for key, number in patients.items() if key[1] == seed})
            for seed in sorted({key[1] for key in patients})
        ]
        name = f"{name_method(baseline)} {model.configuration}"
        lines.append(
            f"{name} by seed: {', '.join(format_mean(mean, metric) for mean in means)}."
            if len(means) > 1
            else f"{name} has one seed, so the intervals cover chance in the cases, but not chance "
            "in training. To include it: semi_nnunet crossval --seeds 3"
        )
    return "\n".join(lines)


def format_p(p: float) -> str:
    """Return "< 0.001" or "0.034", but never "0.000"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
