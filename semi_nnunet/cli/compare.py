"""Say whether trainers are better than the baseline: paired case by case, over folds and seeds.

    semi_nnunet compare -d 42
    semi_nnunet compare -d 42 --metric nsd_surfel_2mm --baseline nnUNetTrainer

Looks at what was trained with the plans (and their seeds) in nnUNet_results. A case's difference is
the mean over its classes, and over the folds and seeds that predicted it; its mean comes with a
bootstrap interval (95 %) over cases and, where there are several, seeds, and Wilcoxon's test of the
cases, corrected for the number of trainers (Holm). "better" needs both. Where a training invents a
class that a case does not show, those that find nothing there count as perfect. Trainings whose
steps, batches, labelled cases or other common settings differ from their baseline's are named. The
best model is chosen on validation cases alone, never on imagesTs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.evaluation.comparison import Value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="only these")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="only these and the baseline")
    add("--baseline", default="SemiBaselineTrainer", metavar="TRAINER", help=default)
    add("--metric", default="dice", help=f"a column of metrics.csv ({default})")
    add("-o", dest="out", type=Path, help="also write the tables there, as Markdown")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.errors import UserError
    from semi_nnunet.evaluation.comparison import read_values
    from semi_nnunet.files import require_place, write_atomically
    from semi_nnunet.runs.crossval import folders_of, found_jobs, tables_of, unique, unknown
    from semi_nnunet.runs.matched import unmatched

    if args.out:
        require_place(args.out)
    jobs = found_jobs(folders_of(args.dataset), args.plans)
    trainers = unique([job.trainer for job in jobs])
    configurations = unique([job.configuration for job in jobs])
    why = f"was not trained with {args.plans}"
    problems = [
        *unknown("trainer", args.trainers or [], trainers, why),
        *unknown("configuration", args.configurations or [], configurations, why),
    ]
    if jobs and problems:
        raise UserError("The comparison cannot start:", problems)
    wanted = [*args.trainers, args.baseline] if args.trainers else None
    jobs = [
        job
        for job in jobs
        if (wanted is None or job.trainer in wanted)
        and (args.configurations is None or job.configuration in args.configurations)
    ]
    parts, refused, compared = [], [], False
    for subset in ("validation", "test"):
        values, missing = read_values(tables_of(jobs, subset), args.metric)
        parts += [f"not measured yet: {path}" for path in missing]
        if not values:
            continue
        try:
            parts.append(report_of(subset, values, args.baseline, args.metric))
            compared = True
        except UserError as error:
            parts.append(f"## {subset} cases\n\nNot compared: {error}")
            refused.append(error)
    if refused and not compared:
        raise refused[0]
    if not compared:
        print("\n".join(parts))
        raise UserError(
            f"nothing that was trained with {args.plans} has been measured. Fix: semi_nnunet "
            f"crossval -d {args.dataset} -p {args.plans} -c ..."
        )
    parts += unmatched(jobs, args.baseline)
    text = "\n\n".join(parts) + "\n"
    print(text, end="")
    if args.out:
        write_atomically(args.out, lambda path: path.write_text(text))


def report_of(subset: str, values: list[Value], baseline: str, metric: str) -> str:
    """The tables of the validation or the test cases."""
    from semi_nnunet.evaluation import comparison as of

    found = of.compare(values, baseline, metric)
    tables = of.overall_table(found, metric), of.class_table(found, metric)
    parts = [f"## {subset} cases", *tables, of.seeds_note(values, baseline)]
    if subset == "validation":
        best = of.best_model(values, metric)
        parts.append(
            "The trainings have no fold and seed in common: none is chosen."
            if best is None
            else f"Best on the validation cases: {best[0].trainer} {best[0].configuration} "
            f"({metric} {best[1]:.4f})."
        )
    return "\n\n".join(parts)
