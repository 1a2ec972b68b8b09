"""Average what trainers, configurations, folds and seeds predict, and measure whether it helps.

    semi_nnunet crossval -d 42 -c 2d 3d_fullres -tr SemiMeanTeacherTrainer SemiCPSTrainer --npz
    semi_nnunet ensemble -d 42 -tr SemiMeanTeacherTrainer SemiCPSTrainer -o together
    semi_nnunet ensemble -d 42 -tr SemiMeanTeacherTrainer -c 2d 3d_fullres --weights 1 2 -o weighted

The members are all trainings with the plans and their seeds that fit. nnU-Net averages their
probabilities: of imagesTs those of all members, of the validation cases those of the members of
their fold. Choose members and weights by the validation cases, not by the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.runs.ensemble import Member


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-o", dest="out", type=Path, required=True, help="folder for test/ and validation/")
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="default: all")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="default: all")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: all that were trained")
    add("--seed", type=int, nargs="+", metavar="SEED", help="default: all that were trained")
    add(
        "--weights", nargs="+", metavar="N",
        help="how often each trainer with each configuration counts, or each of their folds and "
        "seeds (default: once)",
    )  # fmt: skip
    add("-np", dest="processes", type=int, default=2, help=f"processes ({default})")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.cli.launching import require_positive
    from semi_nnunet.runs.commands import run_verb
    from semi_nnunet.runs.crossval import folders_of, found_jobs, unique, unknown
    from semi_nnunet.runs.ensemble import VALIDATION, groups, problems, weighted, write_ensemble
    from semi_nnunet.runs.job import TEST_FOLDER
    from semi_nnunet.util.command import typed
    from semi_nnunet.util.errors import UserError

    require_positive(args, "processes")
    folders = folders_of(args.dataset)
    wanted = {
        "trainer": args.trainers,
        "configuration": args.configurations,
        "fold": args.folds,
        "seed": args.seed,
    }
    trained = [job for job in found_jobs(folders, args.plans) if job.is_trained]
    wrong = [
        problem
        for key, names in wanted.items()
        for problem in unknown(
            key,
            [*map(str, names or ())],
            unique([str(getattr(job, key)) for job in trained]),
            f"was not trained with {args.plans}",
        )
    ]
    if trained and wrong:
        raise UserError("The ensemble cannot be made:", wrong)
    jobs = [
        job
        for job in trained
        if all(names is None or getattr(job, key) in names for key, names in wanted.items())
    ]
    if not jobs:
        raise UserError(
            f"no training fits. Fix: semi_nnunet status -d {args.dataset} -p {args.plans} lists "
            f"them"
        )
    jobs.sort(key=lambda job: place_in(args.trainers, job.trainer))
    jobs.sort(key=lambda job: place_in(args.configurations, job.configuration))
    members = weighted(jobs, args.weights)
    found = [*problems(members, VALIDATION), *problems(members, TEST_FOLDER)]
    if found:
        raise UserError("These cannot be averaged:", found)
    if not any(groups(members, subset) for subset in (VALIDATION, TEST_FOLDER)):
        raise UserError(
            "the members predicted nothing that could be averaged: there is no imagesTs, and fold "
            "'all' has no validation cases. Fix: put images into imagesTs and run semi_nnunet "
            "crossval again, or choose other folds"
        )
    references = {VALIDATION: folders.references, TEST_FOLDER: folders.test_labels}
    for subset, labels in references.items():
        if not groups(members, subset):
            continue
        out = args.out / subset
        write_ensemble(members, subset, out, args.processes)
        print(f"wrote the mean of {len(members)} members to {out}", flush=True)
        if labels is None:
            continue
        words = folders.evaluation(out, labels, args.processes)
        if run_verb(words):
            raise UserError(f"the ensemble could not be measured. Fix: see above; {typed(words)}")
        print_members(members, subset, out)


def place_in(names: Sequence[str] | None, name: str) -> int:
    """Where the user named it."""
    return 0 if names is None else names.index(name)


def print_members(members: Sequence[Member], subset: str, out: Path) -> None:
    """The Dice of each member beside the ensemble's, of the same cases: all folds' together."""
    from semi_nnunet.evaluation.tables import CSV, mean_of
    from semi_nnunet.evaluation.values import Model, crediting_absence, read_values
    from semi_nnunet.runs.ensemble import VALIDATION

    measured: dict[str, list[Path]] = {}
    stale: list[str] = []
    for job in (member.job for member in members):
        of_folds = f"{job.trainer} {job.configuration} seed {job.seed}"
        if (table := job.tables().get(subset)) is not None:
            measured.setdefault(of_folds if subset == VALIDATION else str(job), []).append(table)
            if job.is_stale(subset):  # it is not of what was averaged
                stale.append(str(table))
    measured["ensemble"] = [out / CSV]
    # together, so that a class that one of them invents counts for all
    together = [(Model(name, ""), "", 0, path) for name in measured for path in measured[name]]
    values, missing = read_values(together, "dice")
    values = crediting_absence(values, "dice")
    print(f"\nmean Dice of the {subset} cases")
    for name, paths in measured.items():
        mean = mean_of([one.value for one in values if one.model.trainer == name])
        absent = any(str(path) in (*missing, *stale) for path in paths)
        print(f"  {name:<60}{'not measured' if absent else f'{mean:.4f}'}")
