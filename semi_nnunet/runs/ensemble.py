"""Ensembles of what a cross-validation trained: the mean of the members' probabilities.

nnU-Net's own ensembling averages them; a member that counts twice is given to it twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.ensembling.ensemble import ensemble_folders

from semi_nnunet.data.file_bytes import require_whole
from semi_nnunet.data.layout import METRICS_FILE, read_plans
from semi_nnunet.evaluation.tables import mean_of
from semi_nnunet.evaluation.values import Model, crediting_absence, read_values
from semi_nnunet.runs.commands import run_verb
from semi_nnunet.runs.folders import ALL, TEST_FOLDER, Folders, folders_of
from semi_nnunet.runs.folders import VALIDATION_FOLDER as VALIDATION
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import found_jobs
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import folder_aside, read_json, write_json
from semi_nnunet.util.names import require_positive, unique, unknown

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
            f"{' '.join(weights or ())}",
            fix="correct them (4 1 stands for .8 and .2)",
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
        raise UserError(f"{out} holds something else, which stays", fix="choose another -o")
    folders = members[0].job.folders
    with folder_aside(out, "No ensemble was written") as aside:
        for group in groups(members, subset):
            inputs = [str(m.job.folder / subset) for m in group for _ in range(m.weight)]
            ensemble_folders(
                inputs,
                str(aside),
                num_processes=processes,
                dataset_json_file_or_dict=read_json(folders.preprocessed / "dataset.json"),
                plans_json_file_or_dict=read_plans(folders.preprocessed, group[0].job.plans),
            )
        for path in aside.iterdir():
            require_whole(path)
        listed = [{"member": str(m.job), "weight": m.weight} for m in members]
        write_json(aside / MEMBERS, listed)
        shutil.rmtree(out, ignore_errors=True)


@dataclass(frozen=True)
class Ensembled:
    """An ensemble's predictions of one set of cases, beside those of its members.

    Args:
        subset: "validation" or "test".
        folder: of its segmentations.
        members: how many there are.
        dice: of each member, and of the "ensemble": the mean Dice of the same cases, or None where
            it is not measured; {} where there are no labels.
    """

    subset: str
    folder: Path
    members: int
    dice: dict[str, float | None]


def ensemble(
    dataset: str,
    out: str | Path,
    *,
    plans: str = "nnUNetPlans",
    configurations: Sequence[str] | None = None,
    trainers: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    weights: Sequence[str] | None = None,
    processes: int = 2,
) -> Iterator[Ensembled]:
    """Average what trainings predicted with their probabilities, and measure the result.

    Args:
        dataset: number or name.
        out: folder for validation/ and test/.
        plans: identifier; their seeds are found, too.
        configurations, trainers, folds, seeds: only these; None: all that were trained.
        weights: how often each trainer with each configuration counts, or each of their folds and
            seeds, as whole numbers; None: once.
        processes: that average and measure.

    Yields:
        What was averaged: the validation cases, then imagesTs.

    Raises:
        UserError: a name is unknown, nothing fits, the members lack probabilities, or ``out`` holds
            something else.
    """
    require_positive({"-np": processes})
    out = Path(out)
    folders = folders_of(dataset)
    wanted: dict[str, Sequence[Any] | None] = {
        "trainer": trainers, "configuration": configurations, "fold": folds, "seed": seeds,
    }  # fmt: skip
    members = weighted(chosen_jobs(folders, dataset, plans, wanted), weights)
    found = [*problems(members, VALIDATION), *problems(members, TEST_FOLDER)]
    raise_if_any("These cannot be averaged:", found)
    subsets = [subset for subset in (VALIDATION, TEST_FOLDER) if any(groups(members, subset))]
    if not subsets:
        raise UserError(
            "the members predicted nothing that could be averaged: there is no imagesTs, and fold "
            "'all' has no validation cases",
            fix="put images into imagesTs and run semi_nnunet "
            "crossval again, or choose other folds",
        )
    references = {VALIDATION: folders.references, TEST_FOLDER: folders.test_labels}
    for subset in subsets:
        write_ensemble(members, subset, out / subset, processes)
        print(f"wrote the mean of {len(members)} members to {out / subset}", flush=True)
        dice: dict[str, float | None] = {}
        if (labels := references[subset]) is not None:
            words = folders.evaluation(out / subset, labels, processes)
            if run_verb(words):
                raise UserError(
                    "the ensemble could not be measured", fix=f"see above; {typed(words)}"
                )
            dice = dice_of_members(members, subset, out / subset)
        yield Ensembled(subset, out / subset, len(members), dice)


def chosen_jobs(
    folders: Folders, dataset: str, plans: str, wanted: Mapping[str, Sequence[Any] | None]
) -> list[Job]:
    """The trained jobs that fit, in the order in which the user named them.

    Args:
        folders: of the data set.
        dataset: as it was given.
        plans: identifier.
        wanted: "trainer", "configuration", "fold" or "seed" -> those wanted, None: all.

    Raises:
        UserError: a name is none of those that were trained, or nothing fits.
    """
    trained = [job for job in found_jobs(folders, plans) if job.is_trained]
    wrong = [
        problem
        for key, names in wanted.items()
        for problem in unknown(
            key,
            [*map(str, names or ())],
            unique([str(getattr(job, key)) for job in trained]),
            f"was not trained with {plans}",
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
            "no training fits", fix=f"semi_nnunet status -d {dataset} -p {plans} lists them"
        )
    jobs.sort(key=lambda job: place_in(wanted["trainer"], job.trainer))
    jobs.sort(key=lambda job: place_in(wanted["configuration"], job.configuration))
    return jobs


def place_in(names: Sequence[str] | None, name: str) -> int:
    """Put the ensemble into the folder that the user named."""
    return 0 if names is None else names.index(name)


def dice_of_members(members: Sequence[Member], subset: str, out: Path) -> dict[str, float | None]:
    """The Dice of each member beside the ensemble's, of the same cases: all folds' together.

    None stands for a member that is not measured, or was before its last training.
    """
    measured: dict[str, list[Path]] = {}
    stale: list[str] = []
    for job in (member.job for member in members):
        of_folds = f"{job.trainer} {job.configuration} seed {job.seed}"
        if (table := job.tables().get(subset)) is not None:
            measured.setdefault(of_folds if subset == VALIDATION else str(job), []).append(table)
            if job.is_stale(subset):  # it is not of what was averaged
                stale.append(str(table))
    measured["ensemble"] = [out / METRICS_FILE]
    # together, so that a class that one of them invents counts for all
    together = [(Model(name, ""), "", 0, path) for name in measured for path in measured[name]]
    values, missing = read_values(together, "dice")
    values = crediting_absence(values, "dice")
    found: dict[str, float | None] = {}
    for name, paths in measured.items():
        absent = any(str(path) in (*missing, *stale) for path in paths)
        of_name = [one.value for one in values if one.model.trainer == name]
        found[name] = None if absent else mean_of(of_name)
    return found
