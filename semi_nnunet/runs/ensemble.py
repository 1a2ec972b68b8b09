"""Ensembles of what a cross-validation trained: the mean of the members' probabilities.

nnU-Net's own ensembling averages them; a member that counts twice is given to it twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.ensembling.ensemble import ensemble_folders

from semi_nnunet.data.layout import read_plans
from semi_nnunet.runs.job import ALL, TEST_FOLDER, Job
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json, write_json

VALIDATION = "validation"
MEMBERS = "members.json"


@dataclass(frozen=True)
class Member:
    """A training, and how often it counts."""

    job: Job
    weight: int


def weighted(jobs: Sequence[Job], weights: Sequence[str] | None) -> list[Member]:
    """Members with their weight, or with that of their model (a trainer with a configuration).

    Raises:
        UserError: there is no whole number for each model, nor for each member.
    """
    models = list(dict.fromkeys((job.trainer, job.configuration) for job in jobs))
    numbers = [int(one) if one.isdecimal() else 0 for one in weights or ["1"] * len(models)]
    if len(numbers) not in (len(models), len(jobs)) or min(numbers, default=1) < 1:
        names = ", ".join(" ".join(model) for model in models)
        members = f"; or for each of the {len(jobs)} trainings: {', '.join(map(str, jobs))}"
        raise UserError(
            f"--weights must be a whole number from 1 for each of the {len(models)} models, in "
            f"this order: {names}{members if len(jobs) > len(models) else ''}; got "
            f"{' '.join(weights or ())}. Fix: correct them (4 1 stands for .8 and .2)"
        )
    if len(numbers) == len(jobs):
        return [Member(job, number) for job, number in zip(jobs, numbers, strict=True)]
    weight_of = dict(zip(models, numbers, strict=True))
    return [Member(job, weight_of[job.trainer, job.configuration]) for job in jobs]


def groups(members: Sequence[Member], subset: str) -> list[list[Member]]:
    """The members that predicted the same cases: of the test, all; of the validation, by fold."""
    if subset == TEST_FOLDER:
        return [list(members)] if members[0].job.folders.test_images else []
    folds = dict.fromkeys(member.job.fold for member in members if member.job.fold != ALL)
    return [[member for member in members if member.job.fold == fold] for fold in folds]


def problems(members: Sequence[Member], subset: str) -> list[Problem]:
    """Members without probabilities, and folds that lack a member."""
    found = []
    for group in groups(members, subset):
        cases = {m.job: m.job.predicted_cases(subset) for m in group}
        wanted = set().union(*cases.values())
        for job in cases:
            missing = set() if subset == VALIDATION else {*job.folders.test_cases()} - cases[job]
            if missing:
                what = f"has not predicted all of imagesTs, not {', '.join(sorted(missing)[:5])}"
                found.append(Problem(str(job), what, "semi_nnunet crossval ... --npz"))
                continue
            has = {path.stem for path in (job.folder / subset).glob("*.npz")}
            fix = "semi_nnunet crossval ... --npz predicts them (again), without another training"
            if not has:
                found.append(Problem(f"{job}, {subset}", "its probabilities were not kept", fix))
            elif has != wanted:
                what = f"lacks the probabilities of {', '.join(sorted(wanted - has)[:5])}"
                found.append(Problem(f"{job}, {subset}", what, fix))
    of_folds = [
        {(m.job.trainer, m.job.configuration, m.job.seed) for m in group}
        for group in groups(members, VALIDATION)
    ]
    for model in sorted(set().union(*of_folds)) if subset == VALIDATION else ():
        if not all(model in group for group in of_folds):
            name = "{} {} seed {}".format(*model)
            fix = "train the others, or choose those that are trained with -f"
            found.append(Problem(name, "is not trained in all folds of the ensemble", fix))
    return found


def write_ensemble(members: Sequence[Member], subset: str, out: Path, processes: int) -> None:
    """Write the ensemble's segmentations of the test or the validation cases to ``out``, whole.

    Raises:
        UserError: ``out`` holds something that is no ensemble.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / MEMBERS).is_file():
        raise UserError(f"{out} holds something else, which stays. Fix: choose another -o")
    folders = members[0].job.folders
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for group in groups(members, subset):
        inputs = [str(m.job.folder / subset) for m in group for _ in range(m.weight)]
        ensemble_folders(
            inputs,
            str(aside),
            num_processes=processes,
            dataset_json_file_or_dict=read_json(folders.preprocessed / "dataset.json"),
            plans_json_file_or_dict=read_plans(folders.preprocessed, group[0].job.plans),
        )
    listed = [{"member": str(m.job), "weight": m.weight} for m in members]
    write_json(aside / MEMBERS, listed)
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
