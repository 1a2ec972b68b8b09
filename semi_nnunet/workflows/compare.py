"""Compare trainers with the baseline, and describe the result in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.domain_gains import compare_by_domain, format_domain_table
from semi_nnunet.evaluation.points import format_mean
from semi_nnunet.evaluation.values import (
    SUBSETS,
    Model,
    Origin,
    Value,
    build_empty_error,
    credit_absence,
    merge_values,
    read_values,
    read_values_files,
    write_values,
)
from semi_nnunet.raw.domains import DomainOf
from semi_nnunet.raw.folds import case_as_patient
from semi_nnunet.runs.folders import find_folders, load_domain_finder, load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.longer_baseline import read_training_length
from semi_nnunet.runs.trainings import (
    find_jobs,
    find_stale_tables,
    list_metric_tables,
    require_trained,
)
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.files import require_other, require_place, write_text
from semi_nnunet.util.markdown import plain
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import unique, unknown
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.workflows.equal_time import (
    LongerBaselines,
    format_equal_time_table,
    select_jobs,
)
from semi_nnunet.workflows.matched import find_mismatches, find_outdated_trainings
from semi_nnunet.workflows.next_step import suggest_measuring
from semi_nnunet.workflows.pieces import describe_pieces


class NothingToCompareError(UserError):
    """Nothing was compared; ``notes`` describe what was found instead."""

    def __init__(self, error: UserError, notes: Sequence[str]):
        super().__init__(error.what, error.problems, fix=error.fix)
        self.notes = tuple(notes)


def compare_trainings(
    dataset: str | None = None,
    *,
    plans: str = DEFAULT_PLANS,
    configurations: Sequence[str] | None = None,
    trainers: Sequence[str] | None = None,
    baseline: str = BASELINE,
    metric: str = "dice",
    values: Sequence[str | Path] = (),
    out: str | Path | None = None,
    write_values_to: str | Path | None = None,
) -> str:
    """Compare trainers with the baseline: paired by case, over folds and seeds.

    :func:`semi_nnunet.compare` documents the arguments.

    Returns:
        The tables and notes on them, as Markdown.

    Raises:
        UserError: a name is unknown, a file cannot be read, or nothing was measured.
    """
    files = [Path(file) for file in values]
    out = None if out is None else Path(out)
    values_file = None if write_values_to is None else Path(write_values_to)
    require_default_plans(dataset, files, plans)
    if not (dataset or files):
        raise UserError("there is nothing to compare", fix="-d ID, --values FILE, or both")
    require_output_files(out, values_file, files)
    jobs, values_of, missing, origin = gather_values(
        dataset, plans, files, metric, configurations, trainers, baseline
    )
    writes_values = False
    if values_file and origin and any(values_of.values()):
        write_values(values_file, values_of, metric, origin)
        writes_values = True
    steps = count_steps(jobs)
    longer = LongerBaselines.find(find_folders(dataset), plans, jobs) if dataset else None
    domain_of = load_domain_finder(longer.folders) if longer else None
    measured = [*jobs, *longer.all_jobs] if longer else jobs
    stale, errors, compared = find_stale_tables(measured), list[UserError](), False
    outdated = find_outdated_trainings(longer.folders, measured) if longer else []
    unmeasured = [f"not measured yet: {path}" for path in missing]
    paragraphs = [*unmeasured, *map(str, stale), *map(str, outdated)]
    for subset, subset_values in values_of.items():
        if not subset_values:
            continue
        try:
            paragraphs.append(
                format_subset_tables(subset, subset_values, baseline, metric, steps, domain_of)
            )
            compared = True
        except UserError as error:
            paragraphs.append(f"## {subset} cases\n\nNot compared: {format_error(error)}")
            errors.append(error)
        paragraphs += describe_pieces(jobs, subset)
        if longer and (at_equal_time := longer.compare(subset, subset_values, metric)):
            paragraphs.append(format_equal_time_table(at_equal_time, metric))
    if not (compared or writes_values):  # values go to another machine's comparison
        if stale:
            reason = UserError("nothing up to date can be compared:", stale)
        elif errors:
            reason = errors[0]
        elif dataset:
            reason = build_unmeasured_error(jobs, plans, dataset)
        else:
            reason = build_empty_error(files)
        raise NothingToCompareError(reason, [*unmeasured, *map(str, outdated)])
    mismatches = [*find_mismatches(jobs, baseline), *(longer.find_mismatches() if longer else ())]
    text = "\n\n".join([*paragraphs, *mismatches]) + "\n"
    if out:
        write_text(out, text)
    return text


def build_unmeasured_error(jobs: Sequence[Job], plans: str, dataset: str) -> UserError:
    """Return the error for trainings without metrics, with the commands that measure them.

    Predictions in a user's own folder are not found, so that the commands predict again.
    """
    commands = suggest_measuring(jobs, plans)
    commands = commands or [
        suggest_command("crossval", dataset=dataset, plans=plans, configurations=["..."])
    ]
    return UserError(
        f"no training with {plans} has been measured in the folders of the trainings",
        fix=", then ".join(commands),
    )


def require_default_plans(dataset: str | None, values: Sequence[Path], plans: str) -> None:
    """Refuse -p if only files are compared, which name their own plans.

    Raises:
        UserError: other plans are given, and no data set.
    """
    if values and not dataset and plans != DEFAULT_PLANS:
        raise UserError("-p chooses trainings of -d, but --values has its own", fix="leave it out")


def gather_values(
    dataset: str | None,
    plans: str,
    files: Sequence[Path],
    metric: str,
    configurations: Sequence[str] | None,
    trainers: Sequence[str] | None,
    baseline: str,
) -> tuple[list[Job], dict[str, list[Value]], list[str], Origin | None]:
    """Gather the metrics to compare; see :func:`compare_trainings`.

    Returns:
        The trainings; the values of each subset, from the trainings and the files; the missing
        tables; and the origin of the values.

    Raises:
        UserError: a trainer or configuration is unknown, or a file cannot be read.
    """
    folders = find_folders(dataset) if dataset else None
    jobs = find_jobs(folders, plans) if folders else []
    if folders and not jobs and not files:
        require_trained(folders, plans)
    patient_of = load_patient_finder(folders) if folders else case_as_patient
    name = (folders.results.name.split("_", 1)[-1], plans) if folders else None
    written, origin = read_values_files(files, metric, name)
    models = [(job.trainer, job.configuration) for job in jobs]
    models += [(v.model.trainer, v.model.configuration) for rows in written.values() for v in rows]
    if models:
        requested = [*(trainers or []), *([] if baseline == BASELINE else [baseline])]
        why = f"was not trained with {plans}" if dataset else "is not in the files"
        require_trained_names(models, requested, configurations or [], why)

    def is_selected(trainer: str, configuration: str) -> bool:
        return (trainers is None or trainer in (*trainers, baseline)) and (
            configurations is None or configuration in configurations
        )

    jobs = [job for job in jobs if is_selected(job.trainer, job.configuration)]
    values, missing = {}, []
    for subset in SUBSETS:
        measured, absent = read_values(list_metric_tables(jobs, subset), metric, patient_of)
        missing += absent
        from_files = [
            value
            for value in written.get(subset, [])
            if is_selected(value.model.trainer, value.model.configuration)
        ]
        values[subset] = merge_values(measured, from_files, metric)
    return jobs, values, missing, origin


def require_trained_names(
    models: Sequence[tuple[str, str]],
    requested_trainers: Sequence[str],
    requested_configurations: Sequence[str],
    why: str,
) -> None:
    """Refuse trainers and configurations without a model; there may be no baseline.

    Raises:
        UserError: naming all of them, with the most similar existing names.
    """
    trainers, configurations = (unique(names) for names in zip(*models, strict=True))
    problems = [
        *unknown("trainer", unique(requested_trainers), trainers, why),
        *unknown("configuration", requested_configurations, configurations, why),
    ]
    raise_if_any("The comparison cannot start:", problems)


def require_output_files(out: Path | None, values_file: Path | None, inputs: list[Path]) -> None:
    """Raise a UserError if the comparison or its values cannot be written, or replace an input."""
    for path in (out, values_file):
        if path:
            require_place(path)
    if out:
        require_other(out, [*inputs, *([values_file] if values_file else [])])
    if values_file:
        require_other(values_file, inputs, "--write-values")
        if out and out.absolute() == values_file.absolute():
            raise UserError(f"{out} is both -o and --write-values", fix="choose two files")


def format_error(error: UserError) -> str:
    """Return the text of an error as Markdown."""
    return "\n".join(map(plain, str(error).splitlines()))


def count_steps(jobs: Sequence[Job]) -> dict[Model, int]:
    """Return the steps of the trainings of each model, as far as they are recorded."""
    models = dict.fromkeys(Model(job.trainer, job.configuration) for job in jobs)
    lengths = {model: read_training_length(select_jobs(jobs, model)) for model in models}
    return {model: length.steps for model, length in lengths.items() if length}


def format_subset_tables(
    subset: str,
    values: list[Value],
    baseline: str,
    metric: str,
    steps: Mapping[Model, int],
    domain_of: DomainOf | None = None,
) -> str:
    """Return the tables of the validation or the test cases, as Markdown.

    Raises:
        UserError: there is nothing to compare, neither with the baseline nor with each other.
    """
    values = credit_absence(values, metric)
    ranking = comparison.rank_models(values, metric)
    try:
        compared = comparison.compare_with_baseline(values, baseline, metric, steps)
    except UserError as error:  # such as one trainer in two configurations
        if len(ranking) < 2:
            raise
        means = comparison.format_means_table(ranking, metric)
        tables, compared = [f"Not compared with a baseline: {format_error(error)}", means], []
    else:
        tables = [comparison.format_overall_table(compared, metric)]
        tables.append(comparison.format_class_table(compared, metric))
        gains = compare_by_domain(values, baseline, metric, domain_of)
        tables += filter(None, [format_domain_table(gains, metric)])
    notes = (
        comparison.describe_unit(metric),
        comparison.describe_steps(compared),
        comparison.describe_shared_seeds(compared),
        comparison.describe_patients(values),
        comparison.describe_seeds(values, baseline, metric),
    )
    paragraphs = [f"## {subset} cases", *tables, *filter(None, notes)]
    if subset == "validation":
        if ranking:
            best, mean = ranking[0]
            paragraphs.append(
                f"Best on the validation cases: {name_method(best.trainer)} {best.configuration} "
                f"({best.trainer}; {metric} {format_mean(mean, metric)})."
            )
        else:
            paragraphs.append(
                "The trainings have no fold and seed in common, so they cannot be ranked."
            )
        paragraphs += [
            f"{name_method(model.trainer)} {model.configuration} is not ranked: it has fewer seeds "
            "than the others, or no fold and seed in common with them."
            for model in (comparison.find_unranked_models(values, ranking) if ranking else [])
        ]
    return "\n\n".join(paragraphs)
