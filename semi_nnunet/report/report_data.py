"""Everything the report shows, collected from nnU-Net's folders; nothing is drawn as a page yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semi_nnunet.errors import UserError
from semi_nnunet.evaluation.values import Model, higher_is_better
from semi_nnunet.report.answer import Answer, answer
from semi_nnunet.report.background import Background, background
from semi_nnunet.report.case_files import CaseFiles
from semi_nnunet.report.measured import Measured, measure
from semi_nnunet.report.run_pages import Panel, Pool, Run, all_dice, pools_of, run_name, run_of
from semi_nnunet.report.shown_cases import Viewer, viewers
from semi_nnunet.runs.crossval import found_jobs, patients_of, stale_tables, tables_of
from semi_nnunet.runs.job import Folders
from semi_nnunet.runs.matched import unmatched

SUBSETS = ("test", "validation")  # what confirms comes first


@dataclass(frozen=True)
class CaseRow:
    """A class of a case: each method's mean over folds and seeds, and method - baseline."""

    case: str
    name: str
    values: tuple[float, ...]
    difference: float


@dataclass(frozen=True)
class Report:
    """What the page is made of.

    Args:
        dataset: its name.
        plans: their identifier.
        metric: that the answer is about.
        answer: the answer.
        method: the method that cases are shown of; None if nothing was measured of it.
        baseline: what it is compared with, if there is anything.
        measured: test cases, validation cases; those there are.
        unmeasured: trainings without any table of metrics yet.
        cases: subset -> a row for every class of every case.
        viewers: cases as pictures, and why some, or all, are missing.
        runs: the curves of every training; dice: of all of them, a panel for each method.
        first_run: the place of the method's first training among them.
        pools: every filtering of the unlabelled images.
        background: data, plans, settings, versions, commands.
    """

    dataset: str
    plans: str
    metric: str
    answer: Answer
    method: Model
    baseline: Model | None
    measured: list[Measured]
    unmeasured: list[str]
    cases: dict[str, list[CaseRow]]
    viewers: list[Viewer]
    viewers_note: str
    viewers_subset: str
    runs: list[Run]
    first_run: int
    dice: list[Panel]
    pools: list[Pool]
    background: Background


def collect(folders: Folders, plans: str, baseline: str, metric: str = "dice") -> Report:
    """Read what the trainings left.

    Args:
        folders: of the data set.
        plans: identifier; their seeds are found, too.
        baseline: trainer to compare with.
        metric: a column of metrics.csv.

    Raises:
        UserError: nothing was measured, or a table lacks the metric.
    """
    jobs, patient_of = found_jobs(folders, plans), patients_of(folders)
    found = {
        subset: measure(subset, tables_of(jobs, subset), baseline, metric, patient_of)
        for subset in SUBSETS
    }
    measured, stale = [item for item in found.values() if item], stale_tables(jobs)
    if not measured:
        name = folders.results.name
        if stale:
            raise UserError("all that was measured is older than the trainings:", stale)
        raise UserError(
            f"nothing that was trained with {plans} on {name} has been measured: no metrics.csv in "
            f"{folders.results}. Fix: semi_nnunet crossval -d {name} -p {plans} -c ..., or -p with "
            f"the plans that were trained"
        )
    said = answer(measured, baseline)
    notes = (
        *(f"{sentence}." for sentence in unmatched(jobs, baseline)),
        *(f"{one}." for one in stale),
    )
    said = replace(said, sentences=(*said.sentences, *notes))
    method, base = shown_models(measured, said, baseline)
    subset = said.subset or measured[0].subset
    shown = next(item for item in measured if item.subset == subset)
    try:
        current = [job for job in jobs if subset in job.current_tables()]
        pictures, note = viewers(CaseFiles(folders, subset, current), shown, method, base)
    except UserError as error:
        pictures, note = [], f"Not shown: {error}"
    return Report(
        folders.results.name,
        plans,
        metric,
        said,
        method,
        base,
        measured,
        [
            run_name(job)
            for job in jobs
            if not any(path.is_file() for path in job.current_tables().values())
        ],
        {item.subset: case_rows(item, method, base) for item in measured},
        pictures,
        note,
        subset,
        [run_of(job) for job in jobs],
        next(i for i, job in enumerate(jobs) if job.trainer == method.trainer),
        all_dice(jobs, baseline),
        [pool for job in jobs for pool in pools_of(job)],
        background(folders, plans, jobs),
    )


def shown_models(
    measured: Sequence[Measured], said: Answer, baseline: str
) -> tuple[Model, Model | None]:
    """The method that the answer is about and its baseline; else the first there is."""
    if said.compared:
        model = said.compared.model
        return model, Model(baseline, model.configuration)
    return measured[0].models[0], None


def case_rows(measured: Measured, method: Model, baseline: Model | None) -> list[CaseRow]:
    """Every class of every case, and all classes together; what lost most comes first."""
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
    return sorted(rows, key=lambda row: worst_first(sign * row.difference, row.case))


def worst_first(gain: float, case: str) -> tuple[bool, float, str]:
    """Undefined ones last."""
    return math.isnan(gain), 0.0 if math.isnan(gain) else gain, case
