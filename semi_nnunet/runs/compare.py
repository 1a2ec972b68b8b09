"""Whether trainers are better than the baseline: the comparison of what was measured, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.data.patients import itself
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.values import (
    NO_VALUES,
    SUBSETS,
    Origin,
    Value,
    crediting_absence,
    read_all_written,
    read_values,
    together,
    write_values,
)
from semi_nnunet.runs.crossval import PLANS
from semi_nnunet.runs.folders import folders_of, patients_of
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.matched import unmatched
from semi_nnunet.runs.next_step import to_measure
from semi_nnunet.runs.trainings import found_jobs, require_trained, stale_tables, tables_of
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.files import require_other, require_place, write_text
from semi_nnunet.util.names import unique, unknown


class NothingToCompareError(UserError):
    """Nothing was compared; ``notes`` say what there is nevertheless."""

    def __init__(self, error: UserError | str, notes: Sequence[str]):
        if isinstance(error, UserError):  # its text has its problems already
            super().__init__(str(error))
            self.problems = error.problems
        else:
            super().__init__(error)
        self.notes = tuple(notes)


def compare(
    dataset: str | None = None,
    *,
    plans: str = PLANS,
    configurations: Sequence[str] | None = None,
    trainers: Sequence[str] | None = None,
    baseline: str = BASELINE,
    metric: str = "dice",
    values: Sequence[str | Path] = (),
    out: str | Path | None = None,
    write_values_to: str | Path | None = None,
) -> str:
    """Say whether trainers are better than the baseline: paired by case, over folds and seeds.

    Args:
        dataset: number or name of the data set whose trainings are compared; None: ``values`` alone
            are.
        plans: of the trainings; those of their seeds are found, too.
        configurations: only these; None: all.
        trainers: only these and the baseline; None: all.
        baseline: trainer to compare with.
        metric: a column of metrics.csv.
        values: files that ``write_values_to`` wrote, here or elsewhere.
        out: also write the tables there, as Markdown.
        write_values_to: write every value that is compared to this CSV.

    Returns:
        The tables, and what is to be known of them, as Markdown.

    Raises:
        UserError: a name is unknown, a file cannot be read, or nothing was measured.
    """
    files = [Path(file) for file in values]
    out = None if out is None else Path(out)
    kept = None if write_values_to is None else Path(write_values_to)
    require_no_plans(dataset, files, plans)
    if not (dataset or files):
        raise UserError("there is nothing to compare", fix="-d ID, --values FILE, or both")
    for path in (out, kept):
        if path:
            require_place(path)
    if out:
        require_other(out, files)
    jobs, found, missing, origin = gathered(
        dataset, plans, files, metric, configurations, trainers, baseline
    )
    is_kept = False
    if kept and origin and any(found.values()):
        write_values(kept, found, metric, origin)
        is_kept = True
    stale, refused, compared = stale_tables(jobs), list[UserError](), False
    parts = [*(f"not measured yet: {path}" for path in missing), *map(str, stale)]
    for subset, of_subset in found.items():
        if not of_subset:
            continue
        try:
            parts.append(tables_of_subset(subset, of_subset, baseline, metric))
            compared = True
        except UserError as error:
            parts.append(f"## {subset} cases\n\nNot compared: {error}")
            refused.append(error)
    if refused and not compared:
        if not is_kept:
            raise refused[0]
        return "\n\n".join(parts) + "\n"  # what is kept may be compared with another machine's
    if not compared:
        if stale:
            older = UserError("all that was measured is older than the trainings:", stale)
            raise NothingToCompareError(older, parts)
        raise NothingToCompareError(
            not_measured(jobs, plans, dataset) if dataset else NO_VALUES,
            parts,
        )
    text = "\n\n".join([*parts, *unmatched(jobs, baseline)]) + "\n"
    if out:
        write_text(out, text)
    return text


def not_measured(jobs: Sequence[Job], plans: str, dataset: str) -> UserError:
    """What to say where trainings have no table of metrics: the very commands that make them.

    Predictions in a folder of the user's are not found, so that they are told to be made anew.
    """
    commands = to_measure(jobs, plans) or [f"semi_nnunet crossval -d {dataset} -p {plans} -c ..."]
    return UserError(
        f"nothing that was trained with {plans} has been measured in the folders of the trainings. "
        f"",
        fix=f"{', then '.join(commands)}",
    )


def require_no_plans(dataset: str | None, values: Sequence[Path], plans: str) -> None:
    """Refuse plans where only files are looked at, which have theirs.

    Raises:
        UserError: so it is.
    """
    if values and not dataset and plans != PLANS:
        raise UserError("-p chooses trainings of -d, but --values has its own", fix="leave it out")


def gathered(
    dataset: str | None,
    plans: str,
    files: Sequence[Path],
    metric: str,
    configurations: Sequence[str] | None,
    trainers: Sequence[str] | None,
    baseline: str,
) -> tuple[list[Job], dict[str, list[Value]], list[str], Origin | None]:
    """Gather the metrics that are to be compared; see :func:`compare`.

    Returns:
        The trainings; the values of each subset, theirs and those of the files; the tables that
        are not there yet; where the values come from.

    Raises:
        UserError: a trainer or configuration is none of theirs, or a file cannot be read.
    """
    folders = folders_of(dataset) if dataset else None
    jobs = found_jobs(folders, plans) if folders else []
    if folders and not jobs and not files:
        require_trained(folders, plans)
    patient_of = patients_of(folders) if folders else itself
    own = (folders.results.name.split("_", 1)[-1], plans) if folders else None
    written, origin = read_all_written(files, metric, own)
    models = [(job.trainer, job.configuration) for job in jobs]
    models += [(v.model.trainer, v.model.configuration) for of in written.values() for v in of]
    if models:
        named = [*(trainers or []), *([] if baseline == BASELINE else [baseline])]
        why = f"was not trained with {plans}" if dataset else "is not in the files"
        require_known(models, named, configurations or [], why)

    def wanted(trainer: str, configuration: str) -> bool:
        return (trainers is None or trainer in (*trainers, baseline)) and (
            configurations is None or configuration in configurations
        )

    jobs = [job for job in jobs if wanted(job.trainer, job.configuration)]
    values, missing = {}, []
    for subset in SUBSETS:
        measured, absent = read_values(tables_of(jobs, subset), metric, patient_of)
        missing += absent
        others = written.get(subset, [])
        others = [v for v in others if wanted(v.model.trainer, v.model.configuration)]
        values[subset] = together(measured, others, metric)
    return jobs, values, missing, origin


def require_known(
    models: Sequence[tuple[str, str]],
    named_trainers: Sequence[str],
    named_configurations: Sequence[str],
    why: str,
) -> None:
    """Refuse trainers and configurations that are none of the models'; there may be no baseline.

    Raises:
        UserError: naming all of them, with the nearest that is there.
    """
    trainers, configurations = (unique(names) for names in zip(*models, strict=True))
    problems = [
        *unknown("trainer", unique(named_trainers), trainers, why),
        *unknown("configuration", named_configurations, configurations, why),
    ]
    raise_if_any("The comparison cannot start:", problems)


def tables_of_subset(subset: str, values: list[Value], baseline: str, metric: str) -> str:
    """The tables of the validation or the test cases.

    Raises:
        UserError: there is nothing to compare, neither with the baseline nor with each other.
    """
    values = crediting_absence(values, metric)
    ranked = comparison.ranking(values, metric)
    try:
        found = comparison.compare(values, baseline, metric)
    except UserError as error:  # such as one trainer in two configurations
        if len(ranked) < 2:
            raise
        tables = [f"Not compared with a baseline: {error}", comparison.means_table(ranked, metric)]
    else:
        tables = [comparison.overall_table(found, metric), comparison.class_table(found, metric)]
    notes = comparison.patients_note(values), comparison.seeds_note(values, baseline)
    parts = [f"## {subset} cases", *tables, *filter(None, notes)]
    if subset == "validation":
        parts.append(
            "Best on the validation cases: {0.trainer} {0.configuration} ({1} {2:.4f}).".format(
                ranked[0][0], metric, ranked[0][1]
            )
            if ranked
            else "The trainings have no fold and seed in common: none is chosen."
        )
        parts += [
            f"{model.trainer} {model.configuration} was left out of this choice: it has no "
            f"fold and seed in common with the others."
            for model in (comparison.left_out(values, ranked) if ranked else [])
        ]
    return "\n\n".join(parts)
