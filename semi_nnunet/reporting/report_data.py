"""Content of the report, from nnU-Net's folders or from files of values; nothing is drawn yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from semi_nnunet.discovery.listing import all_trainers
from semi_nnunet.evaluation.values import (
    SUBSETS,
    Model,
    build_empty_error,
    build_undefined_error,
    higher_is_better,
    read_values_files,
)
from semi_nnunet.reporting.answer import Answer, answer_question
from semi_nnunet.reporting.background import Background, Facts, collect_background, describe_methods
from semi_nnunet.reporting.case_files import CaseFiles
from semi_nnunet.reporting.choice import MethodChoice
from semi_nnunet.reporting.costs import TrainingCosts, collect_costs
from semi_nnunet.reporting.measured import SubsetResults, measure_subset, read_metrics
from semi_nnunet.reporting.rounds import RoundsPage, collect_rounds
from semi_nnunet.reporting.run_pages import (
    Panel,
    Pool,
    Run,
    build_run,
    draw_dice_panels,
    name_run,
    read_pools,
)
from semi_nnunet.reporting.shown_cases import Viewer, build_viewers
from semi_nnunet.reporting.submissions import Submissions
from semi_nnunet.reporting.wording import (
    find_difference_unit,
    format_points,
    format_points_interval,
    format_value,
)
from semi_nnunet.runs.folders import Folders, load_domain_finder, load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import (
    find_jobs,
    find_stale_tables,
    list_metric_tables,
    require_trained,
)
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.names import unique, unknown
from semi_nnunet.workflows.compare import build_unmeasured_error, count_steps
from semi_nnunet.workflows.equal_time import EqualTimeComparison, LongerBaselines
from semi_nnunet.workflows.matched import find_mismatches, find_outdated_trainings
from semi_nnunet.workflows.pieces import describe_pieces

CONFIRMING_FIRST = SUBSETS[::-1]
VALUES_ONLY = (
    "Made only from recorded values: without the trainings there are no pictures, curves and "
    "settings. Unknown are the steps, and whether methods and baseline had the same settings"
)


@dataclass(frozen=True)
class CaseRow:
    """A class of a case: each method's mean over folds and seeds, and method - baseline."""

    case: str
    name: str
    values: tuple[float, ...]
    difference: float


@dataclass(frozen=True)
class TrainingRecords:
    """Records of trainings apart from tables of metrics: curves, filterings, pictures, costs.

    Args:
        unmeasured: trainings without any table of metrics yet.
        viewers: cases as pictures.
        viewers_note: why some cases, or all, are not shown.
        viewers_subset: "validation" or "test".
        runs: the curves of every training.
        first_run: index of the method's first training in ``runs``.
        dice: curves of all trainings, a panel for each method.
        pools: every filtering of the unlabelled images.
        background: data, plans, settings, versions, commands.
        costs: of every method, on each machine.
        rounds: of annotation, if labels were accepted.
    """

    unmeasured: list[str]
    viewers: list[Viewer]
    viewers_note: str
    viewers_subset: str
    runs: list[Run]
    first_run: int
    dice: list[Panel]
    pools: list[Pool]
    background: Background
    costs: TrainingCosts
    rounds: RoundsPage | None = None


@dataclass(frozen=True)
class Report:
    """The content of a report's page.

    Args:
        dataset: name of the data set.
        plans: identifier of the plans.
        metric: that the answer is about.
        answer: headline and sentences.
        method: whose cases are shown; the first method if nothing is compared.
        baseline: that ``method`` is compared with, if any.
        measured: results on test cases and on validation cases, as available.
        cases: subset -> a row for every class of every case.
        methods: a line on each of them.
        trained: records of the trainings; None for a report of values only.
        equal_time: subset -> comparisons with baselines that trained as long as the methods.
        choice: how the method was chosen, if known.
        submissions: with measured costs, if any.
    """

    dataset: str
    plans: str
    metric: str
    answer: Answer
    method: Model
    baseline: Model | None
    measured: list[SubsetResults]
    cases: dict[str, list[CaseRow]]
    methods: Facts
    trained: TrainingRecords | None = None
    equal_time: dict[str, list[EqualTimeComparison]] = field(default_factory=dict)
    choice: MethodChoice | None = None
    submissions: Submissions | None = None


def build_report_from_values(
    paths: Sequence[Path], baseline: str, metric: str = "dice", preselected: str = ""
) -> Report:
    """Build the report from files of ``semi_nnunet compare --write-values``.

    Args:
        paths: the files, of one data set and one name of plans.
        baseline: trainer to compare with.
        metric: that they hold.
        preselected: the trainer that was chosen on other cases; empty: none.

    Raises:
        UserError: a file cannot be read, the files hold no values, are of several data sets, or
            disagree; the baseline is unknown; no value is defined.
    """
    values, origin = read_values_files(paths, metric)
    if origin is None:
        raise build_empty_error(paths)
    trainers = {v.model.trainer for subset_values in values.values() for v in subset_values}
    require_known_baseline(baseline, trainers)
    results = [
        measure_subset(subset, {metric: values.get(subset, [])}, baseline)
        for subset in CONFIRMING_FIRST
    ]
    measured = [item for item in results if item]
    if not measured:
        raise build_undefined_error(metric)
    report = build_report(*origin, metric, measured, baseline, preselected)
    return add_notes(report, [VALUES_ONLY])


def build_report_from_trainings(
    folders: Folders, plans: str, baseline: str, metric: str = "dice", preselected: str = ""
) -> Report:
    """Build the report from the results folders of trainings.

    Args:
        folders: of the data set.
        plans: identifier; plans of their seeds are included.
        baseline: trainer to compare with.
        metric: a column of metrics.csv.
        preselected: the trainer that was chosen on other cases; empty: none.

    Raises:
        UserError: nothing was measured, a table lacks the metric, or the baseline is unknown.
    """
    require_known_baseline(baseline)
    jobs, patient_of = find_jobs(folders, plans), load_patient_finder(folders)
    if not jobs:
        require_trained(folders, plans)
    metrics = {
        subset: read_metrics(list_metric_tables(jobs, subset), metric, patient_of)
        for subset in CONFIRMING_FIRST
    }
    steps, domain_of = count_steps(jobs), load_domain_finder(folders)
    results = (
        measure_subset(subset, values, baseline, steps, domain_of)
        for subset, values in metrics.items()
    )
    measured = [item for item in results if item]
    longer = LongerBaselines.find(folders, plans, jobs)
    stale = find_stale_tables([*jobs, *longer.all_jobs])
    name = folders.results.name
    if not measured:
        if any(subset_metrics[metric] for subset_metrics in metrics.values()):
            raise build_undefined_error(metric)
        if stale:
            raise UserError("All tables of metrics are outdated:", stale)
        raise build_unmeasured_error(jobs, plans, name)
    report = build_report(name, plans, metric, measured, baseline, preselected)
    equal_time = {
        item.subset: longer.compare(item.subset, item.values, metric) for item in measured
    }
    notes = describe_equal_time(report, equal_time.get(report.answer.subset, []))
    notes += describe_pieces(jobs, report.answer.subset)
    notes += [*find_mismatches(jobs, baseline), *longer.find_mismatches(), *map(str, stale)]
    notes += map(str, find_outdated_trainings(folders, [*jobs, *longer.all_jobs]))
    report = replace(add_notes(report, notes), equal_time=equal_time)
    return replace(report, trained=collect_training_records(report, folders, jobs, baseline))


def describe_equal_time(report: Report, compared: Sequence[EqualTimeComparison]) -> list[str]:
    """State the gain of the report's method over a baseline that trained as long as it did."""
    row = next((row for row in compared if row.compared.model == report.method), None)
    if row is None:
        if report.answer.verdict != "better":
            return []
        return [
            "Both trained for equally many steps. Whether the gain lasts if the baseline trains as "
            "long is not known (semi_nnunet crossval --equal-time)"
        ]
    item, metric = row.compared, report.metric
    gain = f"{format_points(item.overall.mean, metric)} {find_difference_unit(metric)}".rstrip()
    steps = f" ({row.baseline.steps} steps)" if row.baseline else ""
    return [
        f"At equal training time the baseline{steps} reaches "
        f"{format_value(item.baseline_mean, metric, 1)}: {gain} for the method, 95 % interval "
        f"{format_points_interval(item.overall, metric)}; {item.reasoned_verdict(metric)}"
    ]


def require_known_baseline(name: str, measured: Iterable[str] = ()) -> None:
    """Raise if the baseline is neither a measured trainer nor a trainer of this package."""
    names = unique([*sorted(measured), *all_trainers()])
    raise_if_any("The report cannot be made:", unknown("trainer", [name], names))


def build_report(
    dataset: str,
    plans: str,
    metric: str,
    measured: list[SubsetResults],
    baseline: str,
    preselected: str = "",
) -> Report:
    """Build the report that follows from the numbers."""
    answer = answer_question(measured, baseline, preselected)
    method, base = choose_shown_models(measured, answer, baseline)
    cases = {item.subset: build_case_rows(item, method, base) for item in measured}
    methods = describe_methods(model.trainer for item in measured for model in item.models)
    return Report(dataset, plans, metric, answer, method, base, measured, cases, methods)


def add_notes(report: Report, notes: Iterable[str]) -> Report:
    """Return the report with more sentences in its answer."""
    sentences = (*report.answer.sentences, *(f"{note.removesuffix('.')}." for note in notes))
    return replace(report, answer=replace(report.answer, sentences=sentences))


def collect_training_records(
    report: Report, folders: Folders, jobs: Sequence[Job], baseline: str
) -> TrainingRecords:
    """Collect everything that is not in the tables of metrics."""
    subset = report.answer.subset or report.measured[0].subset
    shown = next(item for item in report.measured if item.subset == subset)
    try:
        current = [job for job in jobs if subset in job.current_tables()]
        files = CaseFiles(folders, subset, current)
        viewers, note = build_viewers(files, shown, report.method, report.baseline)
    except UserError as error:
        viewers, note = [], f"Cases cannot be shown: {error}"
    unmeasured = [
        name_run(job)
        for job in jobs
        if job.segments and not any(path.is_file() for path in job.current_tables().values())
    ]
    return TrainingRecords(
        unmeasured,
        viewers,
        note,
        subset,
        [build_run(job) for job in jobs],
        next(i for i, job in enumerate(jobs) if job.trainer == report.method.trainer),
        draw_dice_panels(jobs, baseline),
        [pool for job in jobs for pool in read_pools(job)],
        collect_background(folders, report.plans, jobs),
        collect_costs(jobs, shown),
        collect_rounds(folders),
    )


def choose_shown_models(
    measured: Sequence[SubsetResults], answer: Answer, baseline: str
) -> tuple[Model, Model | None]:
    """Return the method of the answer and its baseline, or the first method and None."""
    if answer.compared:
        model = answer.compared.model
        return model, Model(baseline, model.configuration)
    return measured[0].models[0], None


def build_case_rows(
    measured: SubsetResults, method: Model, baseline: Model | None
) -> list[CaseRow]:
    """Return rows of every case, for each class and all classes; the largest loss comes first."""
    means, rows = measured.case_means(), []
    for case in measured.cases:
        names = dict.fromkeys(
            name for model_means in means.values() for name in model_means.get(case, {})
        )
        for name in names:
            value = {model: means[model].get(case, {}).get(name, math.nan) for model in means}
            difference = math.nan
            if baseline in value and method in value:
                difference = value[method] - value[baseline]
            rows.append(CaseRow(case, name, tuple(value[m] for m in measured.models), difference))
    sign = 1 if higher_is_better(measured.metric) else -1
    return sorted(rows, key=lambda row: build_sort_key(sign * row.difference, row.case))


def build_sort_key(gain: float, case: str) -> tuple[bool, float, str]:
    """Return a key that puts the worst gain first and NaN last."""
    return math.isnan(gain), 0.0 if math.isnan(gain) else gain, case
