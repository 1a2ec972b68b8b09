"""Ensembles of trainings: the mean of the members' probabilities.

nnU-Net's own ensembling averages them; a member with weight 2 is passed to it twice.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.ensembling.ensemble import ensemble_folders

from semi_nnunet.evaluation.tables import METRICS_JSON, average_defined
from semi_nnunet.evaluation.values import Model, credit_absence, read_values
from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    LESIONS_FILE,
    MEASURED_FROM,
    METRICS_FILE,
    SUMMARY_JSON,
    WRITTEN_FILE,
)
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.commands import run_verb
from semi_nnunet.runs.folders import ALL, TEST_FOLDER, Folders
from semi_nnunet.runs.folders import VALIDATION_FOLDER as VALIDATION
from semi_nnunet.runs.job import Job, find_changed_test_inputs
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import folder_aside, read_json, write_json
from semi_nnunet.util.names import list_first, unique, unknown
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.verify.file_bytes import require_complete_image
from semi_nnunet.workflows.matched import find_stale_predictions

logger = logging.getLogger(__name__)

MEMBERS = "members.json"
OWN_FILES = {
    MEMBERS, WRITTEN_FILE, MEASURED_FROM, METRICS_FILE, METRICS_JSON, SUMMARY_JSON, LESIONS_FILE,
}  # fmt: skip


@dataclass(frozen=True)
class EnsembleMember:
    """A training and its weight, a whole number."""

    job: Job
    weight: int


def weigh_members(jobs: Sequence[Job], weights: Sequence[str] | None) -> list[EnsembleMember]:
    """Make members with weights for each training or each model (trainer and configuration).

    Args:
        weights: whole numbers, one for each model or for each training; None: 1 for all.

    Raises:
        UserError: the number of weights differs, or a weight is not a whole number above 0.
    """
    models = list(dict.fromkeys((job.trainer, job.configuration) for job in jobs))
    texts = weights or ["1"] * len(models)
    numbers = [int(text) if text.isdecimal() else 0 for text in texts]
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
        return [EnsembleMember(job, number) for job, number in zip(jobs, numbers, strict=True)]
    weight_of = dict(zip(models, numbers, strict=True))
    return [EnsembleMember(job, weight_of[job.trainer, job.configuration]) for job in jobs]


def group_members(members: Sequence[EnsembleMember], subset: str) -> list[list[EnsembleMember]]:
    """Group members that predicted the same cases: all for test cases, else those of a fold."""
    if subset == TEST_FOLDER:
        return [list(members)] if members[0].job.folders.test_images else []
    folds = dict.fromkeys(member.job.fold for member in members if member.job.fold != ALL)
    return [[member for member in members if member.job.fold == fold] for fold in folds]


def find_ensemble_problems(members: Sequence[EnsembleMember], subset: str) -> list[Problem]:
    """Return members without present probabilities, and models that lack a fold."""
    problems = []
    for group in group_members(members, subset):
        cases = {m.job: m.job.predicted_cases(subset) for m in group}
        expected = set().union(*cases.values())
        for job in cases:
            missing = set() if subset == VALIDATION else {*job.folders.test_cases()} - cases[job]
            if missing:
                message = f"predictions are missing for test cases {list_first(sorted(missing))}"
                problems.append(Problem(str(job), message, "semi_nnunet crossval ... --npz"))
                continue
            changed = [] if subset == VALIDATION else find_changed_test_inputs(job)
            if changed:
                message = f"predicted imagesTs before a change of {list_first(changed)}"
                problems.append(Problem(str(job), message, "repeat semi_nnunet crossval"))
                continue
            stored = {path.stem for path in (job.folder / subset).glob("*.npz")}
            fix = "semi_nnunet crossval ... --npz predicts them (again), without another training"
            if not stored:
                message = "its probabilities were not kept"
                problems.append(Problem(f"{job}, {subset}", message, fix))
            elif stored != expected:
                message = f"lacks the probabilities of {list_first(sorted(expected - stored))}"
                problems.append(Problem(f"{job}, {subset}", message, fix))
    if subset != VALIDATION:
        return problems
    models_of_folds = [
        {(m.job.trainer, m.job.configuration, m.job.seed) for m in group}
        for group in group_members(members, VALIDATION)
    ]
    for model in sorted(set().union(*models_of_folds)):
        if not all(model in models for models in models_of_folds):
            name = "{} {} seed {}".format(*model)
            fix = "train the others, or choose trained folds with -f"
            problems.append(Problem(name, "is not trained in all folds of the ensemble", fix))
    return problems


def write_ensemble(
    members: Sequence[EnsembleMember], subset: str, out: Path, processes: int
) -> None:
    """Write the ensemble's segmentations of the test or the validation cases to ``out``.

    The folder appears only when it is complete.

    Raises:
        UserError: ``out`` holds other files, or labels in it were edited.
    """
    require_own_files(out)
    folders = members[0].job.folders
    with folder_aside(out, "No ensemble was written") as temporary:
        for group in group_members(members, subset):
            inputs = [str(m.job.folder / subset) for m in group for _ in range(m.weight)]
            ensemble_folders(
                inputs,
                str(temporary),
                num_processes=processes,
                dataset_json_file_or_dict=read_json(folders.preprocessed / DATASET_JSON),
                plans_json_file_or_dict=read_plans(folders.preprocessed, group[0].job.plans),
            )
        written = WrittenLabels(temporary)
        for path in list(temporary.iterdir()):
            require_complete_image(path)
            written.record(path.name, path)
        listed = [{"member": str(m.job), "weight": m.weight} for m in members]
        write_json(temporary / MEMBERS, listed)
        shutil.rmtree(out, ignore_errors=True)


def require_own_files(out: Path) -> None:
    """Check that a folder of an earlier ensemble holds nothing that would be lost.

    Raises:
        UserError: it holds other files, or labels in it were edited.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / MEMBERS).is_file():
        raise UserError(f"{out} holds other files, which are kept", fix="choose another -o")
    written = WrittenLabels(out)
    if not written.read():
        return  # an earlier version did not list its files
    unchanged = written.list_unchanged()
    if edited := sorted({*written.read()} - unchanged):
        raise UserError(
            f"labels in {out} were edited since they were written: {list_first(edited)}",
            fix="move your corrections to another folder, and delete the other edited labels here",
        )
    if foreign := sorted({path.name for path in out.iterdir()} - unchanged - OWN_FILES):
        raise UserError(f"{out} holds other files: {list_first(foreign)}", fix="move them")


@dataclass(frozen=True)
class EnsembledSubset:
    """An ensemble's predictions of one set of cases, compared with its members'.

    Args:
        subset: "validation" or "test".
        folder: of its segmentations.
        members: their number.
        dice: mean Dice of the same cases for each member and the "ensemble", or None for a member
            that is not measured; {} without labels.
    """

    subset: str
    folder: Path
    members: int
    dice: dict[str, float | None]


def choose_members(
    folders: Folders,
    plans: str,
    selection: Mapping[str, Sequence[Any] | None],
    weights: Sequence[str] | None,
) -> list[EnsembleMember]:
    """Return the trainings that match, with their weights.

    Args:
        selection: see :func:`select_trained_jobs`.
        weights: see :func:`weigh_members`.

    Raises:
        UserError: a name is unknown, no training matches, or members lack probabilities, or have
            those of other images or labels.
    """
    members = weigh_members(select_trained_jobs(folders, plans, selection), weights)
    problems = [
        *find_ensemble_problems(members, VALIDATION),
        *find_ensemble_problems(members, TEST_FOLDER),
        *find_stale_predictions(folders, [member.job for member in members]),
    ]
    raise_if_any("These cannot be averaged:", problems)
    return members


def average_members(
    folders: Folders, members: Sequence[EnsembleMember], out: Path, processes: int
) -> Iterator[EnsembledSubset]:
    """Average the probabilities that trainings predicted, and measure the result.

    Yields:
        The ensemble of the validation cases, then of imagesTs.

    Raises:
        UserError: the members predicted nothing, or ``out`` holds other files.
    """
    subsets = [s for s in (VALIDATION, TEST_FOLDER) if any(group_members(members, s))]
    if not subsets:
        raise UserError(
            "the members predicted nothing that could be averaged: there is no imagesTs, and fold "
            "'all' has no validation cases",
            fix="put images into imagesTs and run semi_nnunet crossval again, or choose other "
            "folds",
        )
    references = {VALIDATION: folders.references, TEST_FOLDER: folders.test_labels}
    for subset in subsets:
        write_ensemble(members, subset, out / subset, processes)
        logger.info(f"wrote the mean of {len(members)} members to {out / subset}")
        dice: dict[str, float | None] = {}
        if (labels := references[subset]) is not None:
            words = folders.evaluation_command(out / subset, labels, processes)
            if run_verb(words):
                raise UserError(
                    "the ensemble could not be measured", fix=f"see above; {typed(words)}"
                )
            dice = measure_members(members, subset, out / subset)
        yield EnsembledSubset(subset, out / subset, len(members), dice)


def select_trained_jobs(
    folders: Folders, plans: str, selection: Mapping[str, Sequence[Any] | None]
) -> list[Job]:
    """Return the trained jobs that match, in the order of the requested names.

    Args:
        selection: "trainer", "configuration", "fold" or "seed" -> the requested ones; None: all.

    Raises:
        UserError: a name was not trained, or no training matches.
    """
    trained = [job for job in find_jobs(folders, plans) if job.is_trained and job.segments]
    problems = [
        problem
        for key, names in selection.items()
        for problem in unknown(
            key,
            [*map(str, names or ())],
            unique([str(getattr(job, key)) for job in trained]),
            f"was not trained with {plans}",
        )
    ]
    if trained:
        raise_if_any("The ensemble cannot be made:", problems)
    jobs = [
        job
        for job in trained
        if all(names is None or getattr(job, key) in names for key, names in selection.items())
    ]
    if not jobs:
        raise UserError(
            "no training matches",
            fix=suggest_command("status", dataset=folders.raw.name, plans=plans) + " lists them",
        )
    orders = [(k, n) for k in ("configuration", "trainer") if (n := selection[k]) is not None]
    jobs.sort(key=lambda job: [names.index(getattr(job, key)) for key, names in orders])
    return jobs


def measure_members(
    members: Sequence[EnsembleMember], subset: str, out: Path
) -> dict[str, float | None]:
    """Return the Dice of each member and of the ensemble, over the same cases of all folds.

    Returns:
        Member or "ensemble" -> mean Dice; None for a member without an up-to-date table.
    """
    tables: dict[str, list[Path]] = {}
    stale: list[str] = []
    for job in (member.job for member in members):
        model = f"{job.trainer} {job.configuration} seed {job.seed}"
        if (table := job.tables().get(subset)) is not None:
            tables.setdefault(model if subset == VALIDATION else str(job), []).append(table)
            if job.is_stale(subset):  # it does not measure the averaged predictions
                stale.append(str(table))
    tables["ensemble"] = [out / METRICS_FILE]
    # read all at once, so that a class that one member invents counts for all
    rows = [(Model(name, ""), "", 0, path) for name in tables for path in tables[name]]
    values, missing = read_values(rows, "dice")
    values = credit_absence(values, "dice")
    dice: dict[str, float | None] = {}
    for name, paths in tables.items():
        is_absent = any(str(path) in (*missing, *stale) for path in paths)
        of_member = [value.value for value in values if value.model.trainer == name]
        dice[name] = None if is_absent else average_defined(of_member)
    return dice
