"""Say whether trainers are better than the baseline: paired case by case, over folds and seeds.

    semi_nnunet compare -d 42
    semi_nnunet compare -d 42 --metric nsd_surfel_2mm --baseline nnUNetTrainer
    semi_nnunet compare -d 42 --write-values here.csv
    semi_nnunet compare --values here.csv there.csv

Looks at what was trained with the plans (and their seeds) in nnUNet_results. A case's difference is
the mean over its classes, and over the folds and seeds that predicted it; cases of one patient
count as one, if dataset.json tells patients. The mean comes with a bootstrap interval (95 %) over
cases and, where there are several, seeds, and Wilcoxon's test of the cases, corrected for the
number of trainers, and, of single classes, of trainers x classes (Holm). "better" needs both. Where
a training invents a class that a case does not show, those that find nothing there count as
perfect. Trainings whose steps, batches, labelled cases or other common settings differ from their
baseline's are named, and those of one trainer that are not alike; of --values, which come from
elsewhere, nothing is known but the numbers. The best model is chosen on validation cases alone,
never on imagesTs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.evaluation.values import Origin, Value
    from semi_nnunet.runs.job import Job

BASELINE, PLANS = "SemiBaselineTrainer", "nnUNetPlans"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", default=PLANS, help=default)
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="only these")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="only these and the baseline")
    add("--baseline", default=BASELINE, metavar="TRAINER", help=default)
    add("--metric", default="dice", help=f"a column of metrics.csv ({default})")
    add("-o", dest="out", type=Path, help="also write the tables there, as Markdown")
    add(
        "--values",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="compare what these files of --write-values hold, too, or, without -d, alone",
    )
    add("--write-values", type=Path, metavar="FILE", help="write every value compared to this CSV")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.evaluation.values import NO_VALUES, write_values
    from semi_nnunet.runs.crossval import stale_tables
    from semi_nnunet.runs.matched import unmatched
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.util.files import require_other, require_place, write_atomically

    require_no_plans(args)
    if not (args.dataset or args.values):
        raise UserError("there is nothing to compare. Fix: -d ID, --values FILE, or both")
    for path in (args.out, args.write_values):
        if path:
            require_place(path)
    if args.out:
        require_other(args.out, args.values)
    jobs, values, missing, origin = gathered(args)
    kept = bool(args.write_values and origin and any(values.values()))
    if kept:
        write_values(args.write_values, values, args.metric, origin)
    stale, refused, compared = stale_tables(jobs), [], False
    parts = [*(f"not measured yet: {path}" for path in missing), *map(str, stale)]
    for subset, of_subset in values.items():
        if not of_subset:
            continue
        try:
            parts.append(report_of(subset, of_subset, args.baseline, args.metric))
            compared = True
        except UserError as error:
            parts.append(f"## {subset} cases\n\nNot compared: {error}")
            refused.append(error)
    if refused and not compared:
        if not kept:
            raise refused[0]
        print("\n\n".join(parts))  # what is kept may be compared with another machine's
        return
    if not compared:
        print("\n".join(parts))
        if stale:
            raise UserError("all that was measured is older than the trainings:", stale)
        raise UserError(
            f"nothing that was trained with {args.plans} has been measured. Fix: semi_nnunet "
            f"crossval -d {args.dataset} -p {args.plans} -c ..."
            if args.dataset
            else NO_VALUES
        )
    text = "\n\n".join([*parts, *unmatched(jobs, args.baseline)]) + "\n"
    print(text, end="")
    if args.out:
        write_atomically(args.out, lambda path: path.write_text(text))


def require_no_plans(args: argparse.Namespace) -> None:
    """Refuse plans where only files are looked at, which have theirs."""
    from semi_nnunet.util.errors import UserError

    if args.values and not args.dataset and args.plans != PLANS:
        raise UserError("-p chooses trainings of -d, but --values has its own. Fix: leave it out")


def gathered(
    args: argparse.Namespace,
) -> tuple[list[Job], dict[str, list[Value]], list[str], Origin | None]:
    """What the options name.

    Returns:
        The trainings; the values of each subset, theirs and those of the files; the tables that
        are not there yet; where the values come from.

    Raises:
        UserError: a trainer or configuration is none of theirs, or a file cannot be read.
    """
    from semi_nnunet.data.patients import itself
    from semi_nnunet.evaluation.values import SUBSETS, read_all_written, read_values, together
    from semi_nnunet.runs.crossval import (
        folders_of,
        found_jobs,
        patients_of,
        require_trained,
        tables_of,
    )

    folders = folders_of(args.dataset) if args.dataset else None
    jobs = found_jobs(folders, args.plans) if folders else []
    if folders and not jobs and not args.values:
        require_trained(folders, args.plans)
    patient_of = patients_of(folders) if folders else itself
    own = (folders.results.name.split("_", 1)[-1], args.plans) if folders else None
    written, origin = read_all_written(args.values, args.metric, own)
    models = [(job.trainer, job.configuration) for job in jobs]
    models += [(v.model.trainer, v.model.configuration) for of in written.values() for v in of]
    if models:
        require_known(args, models)

    def wanted(trainer: str, configuration: str) -> bool:
        return (args.trainers is None or trainer in (*args.trainers, args.baseline)) and (
            args.configurations is None or configuration in args.configurations
        )

    jobs = [job for job in jobs if wanted(job.trainer, job.configuration)]
    values, missing = {}, []
    for subset in SUBSETS:
        measured, absent = read_values(tables_of(jobs, subset), args.metric, patient_of)
        missing += absent
        others = written.get(subset, [])
        others = [v for v in others if wanted(v.model.trainer, v.model.configuration)]
        values[subset] = together(measured, others, args.metric)
    return jobs, values, missing, origin


def require_known(args: argparse.Namespace, models: list[tuple[str, str]]) -> None:
    """Refuse trainers and configurations that are none of the models'; there may be no baseline."""
    from semi_nnunet.runs.crossval import unique, unknown
    from semi_nnunet.util.errors import UserError

    trainers, configurations = (unique(names) for names in zip(*models, strict=True))
    why = f"was not trained with {args.plans}" if args.dataset else "is not in the files"
    named = [*(args.trainers or []), *([] if args.baseline == BASELINE else [args.baseline])]
    problems = [
        *unknown("trainer", unique(named), trainers, why),
        *unknown("configuration", args.configurations or [], configurations, why),
    ]
    if problems:
        raise UserError("The comparison cannot start:", problems)


def report_of(subset: str, values: list[Value], baseline: str, metric: str) -> str:
    """The tables of the validation or the test cases.

    Raises:
        UserError: there is nothing to compare, neither with the baseline nor with each other.
    """
    from semi_nnunet.evaluation import comparison as of
    from semi_nnunet.evaluation.values import crediting_absence
    from semi_nnunet.util.errors import UserError

    values = crediting_absence(values, metric)
    ranked = of.ranking(values, metric)
    try:
        found = of.compare(values, baseline, metric)
    except UserError as error:  # such as one trainer in two configurations
        if len(ranked) < 2:
            raise
        tables = [f"Not compared with a baseline: {error}", of.means_table(ranked, metric)]
    else:
        tables = [of.overall_table(found, metric), of.class_table(found, metric)]
    notes = of.patients_note(values), of.seeds_note(values, baseline)
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
            for model in (of.left_out(values, ranked) if ranked else [])
        ]
    return "\n\n".join(parts)
