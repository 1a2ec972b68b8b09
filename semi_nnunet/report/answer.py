"""The answer to "does it help?" in plain sentences: no gain is claimed without evidence.

Which method is the best is chosen on validation cases; test cases confirm it, or do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semi_nnunet.evaluation.comparison import Compared, left_out, ranking
from semi_nnunet.evaluation.statistics import LEVEL
from semi_nnunet.evaluation.values import Model, higher_is_better
from semi_nnunet.report.measured import Measured
from semi_nnunet.report.wording import (
    count,
    in_points,
    listed,
    metric_title,
    model_name,
    number,
    p_value,
    short_name,
    unit_of_difference,
)
from semi_nnunet.runs.folders import ALL

OTHERS = "others"  # cases that are not measured here


@dataclass(frozen=True)
class Answer:
    """The first lines of a report: which method is best, and how sure that is.

    Args:
        verdict: "better", "worse" or "open".
        headline: it in a sentence.
        sentences: by how much, and how sure.
        compared: the method that it is about, on the cases that it is about.
        subset: those cases.
    """

    verdict: str
    headline: str
    sentences: tuple[str, ...]
    compared: Compared | None = None
    subset: str = ""


def answer(measured: Sequence[Measured], baseline: str, chosen: str = "") -> Answer:
    """Word the answer that the comparisons give.

    Args:
        measured: validation or test cases, or both.
        baseline: the trainer that the others are compared with.
        chosen: the trainer that cases which are not among these chose; empty: none.
    """
    sets = {item.subset: item for item in measured if item.compared}
    if before := chosen_before(sets, chosen):
        return of_chosen(*before)
    if not sets:
        return nothing_to_compare(measured, baseline)
    validation, test = sets.get("validation"), sets.get("test")
    ranked = ranking(validation.values, validation.metric) if validation else []
    model = ranked[0][0] if ranked else None
    if validation and model and model.trainer == baseline:
        return baseline_is_best(validation, test, ranked)
    on_test = test if test and (model is None or find(test, model)) else None
    judge = next(one for one in (on_test, validation, test) if one)
    item = find(judge, model) if model else None
    item = item or largest_gain(judge)
    verdict = verdict_of(item, judge.metric)
    headline = headline_of(judge, item, verdict, "validation" if item.model == model else "")
    sentences = [difference_sentence(judge, item), evidence_sentence(judge, item)]
    sentences += choice_sentences(judge, item, validation, bool(ranked))
    sentences += left_out_sentences(validation, ranked) if validation else []
    return Answer(verdict, headline, tuple(sentences), item, judge.subset)


def chosen_before(sets: Mapping[str, Measured], trainer: str) -> tuple[Measured, Compared] | None:
    """The comparison of a trainer, on test cases if there is one."""
    for subset in ("test", "validation"):
        for item in sets[subset].compared if subset in sets else ():
            if item.model.trainer == trainer:
                return sets[subset], item
    return None


def of_chosen(judge: Measured, item: Compared) -> Answer:
    """What these cases say of a method that others chose."""
    verdict, (name, _) = verdict_of(item, judge.metric), names_of(judge, item)
    headline = headline_of(judge, item, verdict, OTHERS)
    sentences = difference_sentence(judge, item), evidence_sentence(judge, item)
    said = f"These cases did not choose {name}."
    return Answer(verdict, headline, (*sentences, said), item, judge.subset)


def find(measured: Measured, model: Model) -> Compared | None:
    """The model's comparison, if it has one."""
    return next((item for item in measured.compared if item.model == model), None)


def largest_gain(measured: Measured) -> Compared:
    """Find the method with the largest gain."""
    sign = 1 if higher_is_better(measured.metric) else -1
    return max(measured.compared, key=lambda item: sign * item.overall.mean)


def verdict_of(item: Compared, metric: str) -> str:
    """Name the verdict of a comparison in one word."""
    return {"better": "better", "WORSE": "worse"}.get(item.verdict(metric), "open")


def names_of(measured: Measured, item: Compared) -> tuple[str, str]:
    """The method's and the baseline's."""
    base = next(m for m in measured.models if m.configuration == item.model.configuration)
    return model_name(item.model, measured.models), model_name(base, measured.models)


def nothing_to_compare(measured: Sequence[Measured], baseline: str) -> Answer:
    """Say why nothing can be compared: there is one trainer alone, or no baseline."""
    models = list(dict.fromkeys(model for item in measured for model in item.models))
    names = listed([model_name(model, models) for model in models])
    what = f"Measured so far: {names}. "
    what += (
        "No other method has a case of the same fold and seed in common with it."
        if any(model.trainer == baseline for model in models)
        else f"The baseline {short_name(baseline)} is not among them."
    )
    fix = "Train both with the same folds and seeds: semi_nnunet crossval."
    best = [s for item in measured if item.subset == "validation" for s in best_sentences(item)]
    return Answer("open", "There is nothing to compare yet.", (what, *best, fix))


def best_sentences(validation: Measured) -> list[str]:
    """Say which of several methods or configurations to choose when there is no baseline."""
    ranked, metric = ranking(validation.values, validation.metric), validation.metric
    if len(ranked) < 2:
        return []
    said = [f"{model_name(m, validation.models)} {number(mean, metric, 1)}" for m, mean in ranked]
    return [f"On the validation cases, best first ({metric_title(metric)}): {', '.join(said)}."]


def baseline_is_best(
    validation: Measured, test: Measured | None, ranked: Sequence[tuple[Model, float]]
) -> Answer:
    """The methods did not pay."""
    others = (find(validation, model) for model, _ in ranked[1:])
    item = next((one for one in others if one), None) or largest_gain(validation)
    best = model_name(ranked[0][0], validation.models)
    sentences = [
        "The best of the others, on the validation cases: " + difference_sentence(validation, item),
        evidence_sentence(validation, item),
    ]
    sentences += left_out_sentences(validation, ranked)
    if test and (again := find(test, item.model)):
        sentences.append("The same on the test cases: " + difference_sentence(test, again))
    headline = f"No: on the validation cases, nothing is better than {best} itself."
    return Answer(
        "worse" if verdict_of(item, validation.metric) == "worse" else "open",
        headline, tuple(sentences), item, "validation",
    )  # fmt: skip


def headline_of(judge: Measured, item: Compared, verdict: str, chosen_by: str) -> str:
    """Yes, no, or not known.

    Args:
        judge: the cases that say so.
        item: the method's comparison on them.
        verdict: of it.
        chosen_by: the cases that chose the method: "validation", :data:`OTHERS`, or "" for none.
    """
    name, base = names_of(judge, item)
    better = [other for other in judge.compared if verdict_of(other, judge.metric) == "better"]
    if verdict == "worse":
        return f"No: {name} is worse than {base} on the {judge.subset} cases."
    if verdict == "open":
        return f"No evidence that {name} is better than {base}."
    if judge.subset == "validation" and chosen_by != OTHERS:
        return f"{name} is better than {base} on the validation cases; no test cases confirm it."
    if len(judge.compared) > 1 and not chosen_by:
        return (
            f"Yes: {len(better)} of {len(judge.compared)} methods "
            f"{'is' if len(better) == 1 else 'are'} better than {base} on the test cases."
        )
    return f"Yes: {name} is better than {base} on the {judge.subset} cases."


def difference_sentence(measured: Measured, item: Compared) -> str:
    """Say by how much two methods differ, with the interval."""
    metric, d = measured.metric, item.overall
    name, base = names_of(measured, item)
    ours, theirs = (number(mean, metric, 1) for mean in (item.mean, item.baseline_mean))
    gain = f"{in_points(d.mean, metric)} {unit_of_difference(metric)}".rstrip()
    said = f"{name} reaches {metric_title(metric)} {ours}, {base} {theirs}: {gain}"
    if d.cases < 2:
        return f"{said}, on one {measured.unit}: nothing can be said about chance."
    low, high = in_points(d.low, metric), in_points(d.high, metric)
    return f"{said}, 95 % interval {low} to {high}."


def evidence_sentence(measured: Measured, item: Compared) -> str:
    """On how many cases, seeds and folds."""
    d, methods = item.overall, len(measured.compared)
    cases = count(d.cases, f"{measured.subset} {measured.unit}")
    corrected = f", corrected for {methods} methods" if methods > 1 else ""
    said = (
        f"Better in {d.better} of {cases} ({p_value(item.p_holm)}{corrected}); "
        f"{count(len(item.seeds), 'seed')}, {folds_in_words(common_folds(measured, item))}. "
        f"{seeds_sentence(measured, item)}"
    )
    if 2 ** (1 - d.cases) * methods >= LEVEL:  # all cases on one side would not be enough
        compared = count(d.cases, measured.unit)
        said += f" With {compared} this test cannot show more, whatever the gain."
    return f"{said} {measured.note}".rstrip()


def common_folds(measured: Measured, item: Compared) -> list[str]:
    """The folds that the method and the baseline have in common."""
    base = next(m for m in measured.models if m.configuration == item.model.configuration)
    ours, theirs = (
        {(v.fold, v.seed) for v in measured.values if v.model == model}
        for model in (item.model, base)
    )
    return sorted({fold for fold, _ in ours & theirs})


def folds_in_words(folds: Sequence[str]) -> str:
    """ "folds 0 and 1", "fold all (trained on every labelled case)"."""
    if list(folds) == [ALL]:
        return "fold all (trained on every labelled case)"
    return f"{'fold' if len(folds) == 1 else 'folds'} {listed(folds)}"


def seeds_sentence(measured: Measured, item: Compared) -> str:
    """The difference of each seed."""
    if len(item.seeds) < 2:
        return "With one seed, how much chance in training matters is not known."
    parts = [
        f"{in_points(difference, measured.metric)} (seed {seed})"
        for seed, difference in sorted(item.seeds.items())
    ]
    return f"By seed: {', '.join(parts)}."


def left_out_sentences(validation: Measured, ranked: Sequence[tuple[Model, float]]) -> list[str]:
    """Name the methods that could not be chosen, and why."""
    names = [model_name(m, validation.models) for m in left_out(validation.values, ranked)]
    if not (ranked and names):
        return []
    said = f"{listed(names)} {'was' if len(names) == 1 else 'were'} left out of that choice"
    return [f"{said}, having no fold and seed in common with the others."]


def choice_sentences(
    judge: Measured, item: Compared, validation: Measured | None, chosen: bool
) -> list[str]:
    """Say on which cases the method was chosen."""
    if len(judge.compared) == 1 and judge.subset == "test":
        return []
    name, _ = names_of(judge, item)
    methods = count(len(judge.compared), "method")
    if judge.subset == "validation":
        if len(judge.compared) == 1:
            return []
        return [f"{name} was chosen among {methods} on these same cases, which flatters it."]
    if validation and chosen:
        return [f"{name} is the best on the validation cases, among {methods} and the baseline."]
    return [
        f"{name} shows the largest difference of {methods}; no validation cases chose it, so that "
        f"it is the best of them is not confirmed."
    ]
