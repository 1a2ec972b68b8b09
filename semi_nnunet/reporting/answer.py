"""The answer to "does it help?" in sentences, which claims no gain without evidence.

Validation cases choose the best method; test cases confirm it or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semi_nnunet.evaluation.comparison import (
    ModelComparison,
    describe_shared_seeds,
    describe_steps,
    find_most_seeds,
    find_unranked_models,
    rank_comparisons,
    rank_models,
)
from semi_nnunet.evaluation.statistics import LEVEL
from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.measured import SubsetResults
from semi_nnunet.reporting.wording import (
    find_difference_unit,
    format_metric,
    format_p_value,
    format_points,
    format_value,
    join_words,
    name_model,
)
from semi_nnunet.runs.folders import ALL
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import format_count

OTHER_CASES = "others"  # cases that are not in the report


@dataclass(frozen=True)
class Answer:
    """The first lines of a report: the best method, and how sure that is.

    Args:
        verdict: "better", "worse" or "open".
        headline: the verdict in a sentence.
        sentences: size of the difference, and the evidence.
        compared: comparison of the method that the answer is about.
        subset: cases of that comparison, "validation" or "test".
    """

    verdict: str
    headline: str
    sentences: tuple[str, ...]
    compared: ModelComparison | None = None
    subset: str = ""


def answer_question(
    measured: Sequence[SubsetResults], baseline: str, preselected: str = ""
) -> Answer:
    """Word the answer that follows from the comparisons.

    Args:
        measured: validation or test cases, or both.
        baseline: the trainer that the others are compared with.
        preselected: the trainer that was chosen on cases outside the report; empty: none.
    """
    subsets = {item.subset: item for item in measured if item.compared}
    if match := find_preselected(subsets, preselected):
        return answer_for_preselected(*match)
    if not subsets:
        return answer_without_comparison(measured, baseline)
    validation, test = subsets.get("validation"), subsets.get("test")
    ranked = rank_models(validation.values, validation.metric) if validation else []
    model = ranked[0][0] if ranked else None
    if validation and model and model.trainer == baseline:
        return answer_that_baseline_is_best(validation, test, ranked)
    on_test = test if test and (model is None or find_comparison(test, model)) else None
    judge = next(results for results in (on_test, validation, test) if results)
    item = find_comparison(judge, model) if model else None
    item = item or find_largest_gain(judge)
    verdict = classify_comparison(item, judge.metric)
    headline = write_headline(judge, item, verdict, "validation" if item.model == model else "")
    sentences = [describe_difference(judge, item), describe_evidence(judge, item)]
    sentences += describe_choice(judge, item, validation, bool(ranked))
    sentences += describe_unranked(validation, ranked) if validation else []
    sentences += describe_fewer_seeds(judge)
    return Answer(verdict, headline, tuple(sentences), item, judge.subset)


def find_preselected(
    subsets: Mapping[str, SubsetResults], trainer: str
) -> tuple[SubsetResults, ModelComparison] | None:
    """Return the comparison of a trainer, on test cases if there is one."""
    for subset in ("test", "validation"):
        for item in subsets[subset].compared if subset in subsets else ():
            if item.model.trainer == trainer:
                return subsets[subset], item
    return None


def answer_for_preselected(judge: SubsetResults, item: ModelComparison) -> Answer:
    """Word the answer for a method that was chosen on other cases."""
    verdict, (name, _) = classify_comparison(item, judge.metric), name_pair(judge, item)
    headline = write_headline(judge, item, verdict, OTHER_CASES)
    sentences = describe_difference(judge, item), describe_evidence(judge, item)
    note = f"{name} was chosen on other cases."
    return Answer(verdict, headline, (*sentences, note), item, judge.subset)


def find_comparison(measured: SubsetResults, model: Model) -> ModelComparison | None:
    """Return the comparison of a model, if it has one."""
    return next((item for item in measured.compared if item.model == model), None)


def find_largest_gain(measured: SubsetResults) -> ModelComparison:
    """Return the comparison with the largest gain, of those with the most seeds."""
    return rank_comparisons(measured.compared, measured.metric)[0]


def classify_comparison(item: ModelComparison, metric: str) -> str:
    """Return "better", "worse" or "open", which also means that too few steps were trained."""
    return {"better": "better", "WORSE": "worse"}.get(item.verdict(metric), "open")


def name_pair(measured: SubsetResults, item: ModelComparison) -> tuple[str, str]:
    """Return the short names of the method and of its baseline."""
    base = next(m for m in measured.models if m.configuration == item.model.configuration)
    return name_model(item.model, measured.models), name_model(base, measured.models)


def answer_without_comparison(measured: Sequence[SubsetResults], baseline: str) -> Answer:
    """Explain why nothing can be compared: there is only one trainer, or no baseline."""
    models = list(dict.fromkeys(model for item in measured for model in item.models))
    names = join_words([name_model(model, models) for model in models])
    reason = (
        "No other method has a case, fold and seed in common with the baseline."
        if any(model.trainer == baseline for model in models)
        else f"The baseline {name_method(baseline)} is not among them."
    )
    best = [s for item in measured if item.subset == "validation" for s in describe_ranking(item)]
    fix = "Train both with the same folds and seeds: semi_nnunet crossval."
    sentences = (f"Measured so far: {names}. {reason}", *best, fix)
    return Answer("open", "There is nothing to compare yet.", sentences)


def describe_ranking(validation: SubsetResults) -> list[str]:
    """Rank several methods or configurations that have no baseline."""
    ranked, metric = rank_models(validation.values, validation.metric), validation.metric
    if len(ranked) < 2:
        return []
    means = [
        f"{name_model(m, validation.models)} {format_value(mean, metric, 1)}" for m, mean in ranked
    ]
    return [f"On the validation cases, best first ({format_metric(metric)}): {', '.join(means)}."]


def answer_that_baseline_is_best(
    validation: SubsetResults, test: SubsetResults | None, ranked: Sequence[tuple[Model, float]]
) -> Answer:
    """Word the answer for a baseline that ranks first on the validation cases."""
    comparisons = (find_comparison(validation, model) for model, _ in ranked[1:])
    item = next(filter(None, comparisons), None) or find_largest_gain(validation)
    best = name_model(ranked[0][0], validation.models)
    sentences = [
        f"The best other method on the validation cases: {describe_difference(validation, item)}",
        describe_evidence(validation, item),
    ]
    sentences += [*describe_unranked(validation, ranked), *describe_fewer_seeds(validation)]
    if test and (on_test := find_comparison(test, item.model)):
        sentences.append(f"The same on the test cases: {describe_difference(test, on_test)}")
    headline = f"No: on the validation cases, no method is better than {best}."
    if item.has_few_steps:
        headline = write_few_steps_headline(validation, item)
    verdict = "worse" if classify_comparison(item, validation.metric) == "worse" else "open"
    return Answer(verdict, headline, tuple(sentences), item, "validation")


def write_headline(
    judge: SubsetResults, item: ModelComparison, verdict: str, chosen_by: str
) -> str:
    """Answer yes, no or unknown in a sentence.

    ``chosen_by`` names the cases that chose the method: "validation", :data:`OTHER_CASES`, or "".
    """
    name, base = name_pair(judge, item)
    if item.has_few_steps:
        return write_few_steps_headline(judge, item)
    if verdict == "worse":
        return f"No: {name} is worse than {base} on the {judge.subset} cases."
    if verdict == "open":
        return f"No evidence that {name} is better than {base}."
    if judge.subset == "validation" and chosen_by != OTHER_CASES:
        return f"{name} is better than {base} on the validation cases; no test cases confirm it."
    if len(judge.compared) > 1 and not chosen_by:
        most = find_most_seeds(judge.compared)
        equal = [other for other in judge.compared if len(other.seeds) == most]
        verdicts = [classify_comparison(other, judge.metric) for other in equal]
        better = verdicts.count("better")
        return (
            f"Yes: {better} of {len(verdicts)} methods {'is' if better == 1 else 'are'} better "
            f"than {base} on the test cases."
        )
    return f"Yes: {name} is better than {base} on the {judge.subset} cases."


def write_few_steps_headline(measured: SubsetResults, item: ModelComparison) -> str:
    """Explain that the trainings are too short for a verdict."""
    name, base = name_pair(measured, item)
    return f"Too few steps to judge: {name} or {base} was trained for {item.steps} only."


def describe_fewer_seeds(measured: SubsetResults) -> list[str]:
    """Name the methods that were not ranked because they have fewer seeds."""
    return [note] if (note := describe_shared_seeds(measured.compared)) else []


def describe_difference(measured: SubsetResults, item: ModelComparison) -> str:
    """State both means and their difference, with the interval."""
    metric, d = measured.metric, item.overall
    name, base = name_pair(measured, item)
    ours, theirs = (format_value(mean, metric, 1) for mean in (item.mean, item.baseline_mean))
    gain = f"{format_points(d.mean, metric)} {find_difference_unit(metric)}".rstrip()
    difference = f"{name} reaches {format_metric(metric)} {ours}, {base} {theirs}: {gain}"
    if d.cases < 2:
        return f"{difference}. One {measured.unit} says nothing about chance."
    low, high = format_points(d.low, metric), format_points(d.high, metric)
    return f"{difference}, 95 % interval {low} to {high}."


def describe_evidence(measured: SubsetResults, item: ModelComparison) -> str:
    """State the numbers of steps, cases, seeds and folds, and the p-value."""
    d, methods = item.overall, len(measured.compared)
    cases = format_count(d.cases, f"{measured.subset} {measured.unit}")
    corrected = f", corrected for {methods} methods" if methods > 1 else ""
    evidence = (
        f"Better in {d.better} of {cases} ({format_p_value(item.p_holm)}{corrected}); "
        f"{format_count(len(item.seeds), 'seed')}, "
        f"{format_folds(find_common_folds(measured, item))}. {describe_seed_gains(measured, item)}"
    )
    if 2 ** (1 - d.cases) * methods >= LEVEL:  # even if all cases had the same sign
        cases = format_count(d.cases, measured.unit)
        evidence += f" With {cases} this test cannot reach p < {LEVEL}, however large the gain."
    if item.steps is not None and not item.has_few_steps:
        evidence += f" Trained for {item.steps} steps."
    return f"{evidence} {describe_steps([item])} {measured.note}".replace("  ", " ").rstrip()


def find_common_folds(measured: SubsetResults, item: ModelComparison) -> list[str]:
    """Return the folds that the method and the baseline have in common."""
    base = next(m for m in measured.models if m.configuration == item.model.configuration)
    ours, theirs = (
        {(v.fold, v.seed) for v in measured.values if v.model == model}
        for model in (item.model, base)
    )
    return sorted({fold for fold, _ in ours & theirs})


def format_folds(folds: Sequence[str]) -> str:
    """Return "folds 0 and 1", or "fold all (trained on every labelled case)"."""
    if list(folds) == [ALL]:
        return "fold all (trained on every labelled case)"
    return f"{'fold' if len(folds) == 1 else 'folds'} {join_words(folds)}"


def describe_seed_gains(measured: SubsetResults, item: ModelComparison) -> str:
    """State the difference of each seed."""
    if len(item.seeds) < 2:
        return "With one seed, the effect of chance in training is unknown."
    gains = [
        f"{format_points(difference, measured.metric)} (seed {seed})"
        for seed, difference in sorted(item.seeds.items())
    ]
    return f"By seed: {', '.join(gains)}."


def describe_unranked(
    validation: SubsetResults, ranked: Sequence[tuple[Model, float]]
) -> list[str]:
    """Name the methods that could not be ranked, and why."""
    most = find_most_seeds(validation.compared)
    seeds = {item.model: len(item.seeds) for item in validation.compared}
    names = [
        name_model(model, validation.models)
        for model in find_unranked_models(validation.values, ranked)
        if seeds.get(model, most) >= most
    ]
    if not (ranked and names):
        return []
    verb, subject = ("was", "it has") if len(names) == 1 else ("were", "they have")
    return [
        f"{join_words(names)} {verb} left out of this choice: {subject} no fold and seed in common "
        "with the others."
    ]


def describe_choice(
    judge: SubsetResults, item: ModelComparison, validation: SubsetResults | None, is_ranked: bool
) -> list[str]:
    """State on which cases the method was chosen."""
    if len(judge.compared) == 1:
        return []
    name, _ = name_pair(judge, item)
    most = find_most_seeds(judge.compared)
    equal = [other for other in judge.compared if len(other.seeds) == most]
    methods = format_count(len(equal), "method")
    if judge.subset == "validation":
        return [f"{name} was chosen among {methods} on these same cases, which flatters it."]
    if validation and is_ranked:
        return [f"{name} is the best of {methods} and the baseline on the validation cases."]
    return [
        f"{name} shows the largest difference of {methods} on these test cases. Without validation "
        "cases, it is not confirmed that it is the best of them."
    ]
