"""Everything the report shows, from nnU-Net's folders or from values; nothing is drawn yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.discovery.listing import all_trainers
from semi_nnunet.evaluation.values import (
    NO_VALUES,
    SUBSETS,
    Model,
    build_undefined_error,
    higher_is_better,
    read_values_files,
)
from semi_nnunet.report.answer import Answer, answer_question
from semi_nnunet.report.background import Background, Facts, collect_background, describe_methods
from semi_nnunet.report.case_files import CaseFiles
from semi_nnunet.report.choice import MethodChoice
from semi_nnunet.report.costs import TrainingCosts, collect_costs
from semi_nnunet.report.measured import SubsetResults, measure_subset, read_metrics
from semi_nnunet.report.run_pages import (
    Panel,
    Pool,
    Run,
    build_run,
    draw_dice_panels,
    name_run,
    read_pools,
)
from semi_nnunet.report.shown_cases import Viewer, build_viewers
from semi_nnunet.report.submissions import Submissions
from semi_nnunet.runs.folders import Folders, load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import (
    find_jobs,
    find_stale_tables,
    list_metric_tables,
    require_trained,
)
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.names import unique, unknown
from semi_nnunet.workflows.compare import build_unmeasured_error
from semi_nnunet.workflows.matched import find_mismatches

CONFIRMING_FIRST = SUBSETS[::-1]
VALUES_ALONE = (
    "Made of recorded values alone: pictures, curves and settings are with the trainings; whether "
    "methods and baseline were trained alike is not known"
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
    """What trainings left beside their numbers: curves, filterings and pictures.

    Args:
        unmeasured: trainings without any table of metrics yet.
        viewers: cases as pictures, and why some, or all, are missing.
        runs: the curves of every training; dice: of all of them, a panel for each method.
        first_run: the place of the method's first training among them.
        pools: every filtering of the unlabelled images.
        background: data, plans, settings, versions, commands.
        costs: of every method, on each machine.
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


@dataclass(frozen=True)
class Report:
    """The content of a report's page.

    Args:
        dataset: its name.
        plans: their identifier.
        metric: that the answer is about.
        answer: the answer.
        method: the method that cases are shown of; the first there is if nothing is compared.
        baseline: what it is compared with, if there is anything.
        measured: test cases, validation cases; those there are.
        cases: subset -> a row for every class of every case.
        methods: what each of them does.
        trained: what is in the folders of the trainings; None of a report of values alone.
        choice: how the method was chosen, where somebody tells.
        submissions: that were measured, if any.
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
    choice: MethodChoice | None = None
    submissions: Submissions | None = None


def build_report_from_values(
    paths: Sequence[Path], baseline: str, metric: str = "dice", chosen: str = ""
) -> Report:
    """Make the report from a file of ``semi_nnunet compare --write-values`` alone.

    Args:
        paths: of its files, of one data set and one name of plans.
        baseline: trainer to compare with.
        metric: the one they hold.
        chosen: the trainer that other cases chose; empty: none.

    Raises:
        UserError: a file cannot be read, they hold nothing, are not of one data set, or disagree;
            nobody knows the baseline; the metric is defined nowhere.
    """
    values, origin = read_values_files(paths, metric)
    if origin is None:
        raise UserError(NO_VALUES)
    require_known_baseline(baseline, {v.model.trainer for of in values.values() for v in of})
    found = [
        measure_subset(subset, {metric: values.get(subset, [])}, baseline)
        for subset in CONFIRMING_FIRST
    ]
    if not any(found):
        raise build_undefined_error(metric)
    report = build_report(*origin, metric, [item for item in found if item], baseline, chosen)
    return add_notes(report, [VALUES_ALONE])


def build_report_from_trainings(
    folders: Folders, plans: str, baseline: str, metric: str = "dice", chosen: str = ""
) -> Report:
    """Make the report from all that trainings left.

    Args:
        folders: of the data set.
        plans: identifier; their seeds are found, too.
        baseline: trainer to compare with.
        metric: a column of metrics.csv.
        chosen: the trainer that other cases chose; empty: none.

    Raises:
        UserError: nothing was measured, a table lacks the metric, or nobody knows the baseline.
    """
    require_known_baseline(baseline)
    jobs, patient_of = find_jobs(folders, plans), load_patient_finder(folders)
    if not jobs:
        require_trained(folders, plans)
    metrics = {
        subset: read_metrics(list_metric_tables(jobs, subset), metric, patient_of)
        for subset in CONFIRMING_FIRST
    }
    found = (measure_subset(subset, of_subset, baseline) for subset, of_subset in metrics.items())
    measured, stale = [item for item in found if item], find_stale_tables(jobs)
    name = folders.results.name
    if not measured:
        if any(of_subset[metric] for of_subset in metrics.values()):
            raise build_undefined_error(metric)
        if stale:
            raise UserError("all that was measured is older than the trainings:", stale)
        raise build_unmeasured_error(jobs, plans, name)
    report = build_report(name, plans, metric, measured, baseline, chosen)
    report = add_notes(report, [*find_mismatches(jobs, baseline), *map(str, stale)])
    return replace(report, trained=collect_training_records(report, folders, jobs, baseline))


def require_known_baseline(name: str, measured: Iterable[str] = ()) -> None:
    """Check that there is such a trainer, whether it was trained or not.

    Raises:
        UserError: it is none of those measured, nor of those known here.
    """
    known = unique([*sorted(measured), *all_trainers()])
    raise_if_any("The report cannot be made:", unknown("trainer", [name], known))


def build_report(
    dataset: str,
    plans: str,
    metric: str,
    measured: list[SubsetResults],
    baseline: str,
    chosen: str = "",
) -> Report:
    """Word the answer that follows from the numbers."""
    said = answer_question(measured, baseline, chosen)
    method, base = choose_shown_models(measured, said, baseline)
    cases = {item.subset: build_case_rows(item, method, base) for item in measured}
    methods = describe_methods(model.trainer for item in measured for model in item.models)
    return Report(dataset, plans, metric, said, method, base, measured, cases, methods)


def add_notes(report: Report, notes: Iterable[str]) -> Report:
    """The same with more sentences in its answer."""
    said = report.answer
    sentences = (*said.sentences, *(f"{note}." for note in notes))
    return replace(report, answer=replace(said, sentences=sentences))


def collect_training_records(
    report: Report, folders: Folders, jobs: Sequence[Job], baseline: str
) -> TrainingRecords:
    """Gather what is not in the tables of metrics."""
    subset = report.answer.subset or report.measured[0].subset
    shown = next(item for item in report.measured if item.subset == subset)
    try:
        current = [job for job in jobs if subset in job.current_tables()]
        files = CaseFiles(folders, subset, current)
        pictures, note = build_viewers(files, shown, report.method, report.baseline)
    except UserError as error:
        pictures, note = [], f"Not shown: {error}"
    return TrainingRecords(
        [
            name_run(job)
            for job in jobs
            if job.segments and not any(path.is_file() for path in job.current_tables().values())
        ],
        pictures,
        note,
        subset,
        [build_run(job) for job in jobs],
        next(i for i, job in enumerate(jobs) if job.trainer == report.method.trainer),
        draw_dice_panels(jobs, baseline),
        [pool for job in jobs for pool in read_pools(job)],
        collect_background(folders, report.plans, jobs),
        collect_costs(jobs, shown),
    )


def choose_shown_models(
    measured: Sequence[SubsetResults], said: Answer, baseline: str
) -> tuple[Model, Model | None]:
    """The method that the answer is about and its baseline; else the first there is."""
    if said.compared:
        model = said.compared.model
        return model, Model(baseline, model.configuration)
    return measured[0].models[0], None


def build_case_rows(
    measured: SubsetResults, method: Model, baseline: Model | None
) -> list[CaseRow]:
    """The rows of every case, for each class and all together; the largest loss comes first."""
    means, rows = measured.of_cases(), []
    for case in measured.cases:
        names = dict.fromkeys(
            name for of_model in means.values() for name in of_model.get(case, {})
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
    """Undefined ones last."""
    return math.isnan(gain), 0.0 if math.isnan(gain) else gain, case
