"""Check that compared trainings differ only in their method, from the records in their folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.properties import build_settings_resolver
from semi_nnunet.preprocessing.cases import PreprocessingSpec, find_outdated_problems
from semi_nnunet.preprocessing.manifest import describe_source_changes, read_sources
from semi_nnunet.raw.folds import Fold, PatientOf
from semi_nnunet.raw.layout import DATASET_JSON, SETTINGS_JSON, SPLITS_FILE, SUMMARY_JSON
from semi_nnunet.runs.folders import ALL, Folders, is_older, load_patient_finder
from semi_nnunet.runs.folds import foresee_folds
from semi_nnunet.runs.job import Job, list_pool_cases, read_trained_from
from semi_nnunet.settings import schema
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.schema import keep_earlier_behaviour, list_settings_of_scope
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.util.errors import Problem, collect_errors
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import list_first
from semi_nnunet.workflows.before_start import find_description_changes, find_raw_changes

MATCHED = list_settings_of_scope(SemiSettings, schema.MATCHED)
OF_ANY_TRAINING = list_settings_of_scope(SemiSettings, schema.MATCHED, schema.SUPERVISED)
OWN = list_settings_of_scope(SemiSettings, schema.OWN)
CASES, POOL = "labelled cases", "unlabelled cases"


def read_training_record(job: Job) -> dict[str, Any]:
    """Return the settings and cases of a training; {} for nnU-Net's own trainers.

    A training without unlabelled cases, such as the baseline, has no settings about them. The
    unlabelled cases of a training that filters them are left out, because it may have been resumed
    after the filtering.
    """
    record = optional_json(job.folder / SETTINGS_JSON)
    values = {name: entry["value"] for name, entry in record.get("settings", {}).items()}
    settings = {name: value for name, value in values.items() if name not in OWN}
    cases = record.get("cases", {})
    if cases.get("unlabelled") == []:
        unused = {field.name for field in fields(SemiSettings)} - {*OF_ANY_TRAINING}
        settings = {name: value for name, value in settings.items() if name not in unused}
    if "labelled" in cases:
        settings[CASES] = sorted(cases["labelled"])
    if cases.get("unlabelled") and not values.get("filter_epochs"):
        settings[POOL] = sorted(cases["unlabelled"])
    return settings


def read_matched_settings(job: Job) -> dict[str, Any]:
    """Return the settings and cases that a baseline must share; {} for nnU-Net's own trainers."""
    return {
        name: value
        for name, value in read_training_record(job).items()
        if name in (*MATCHED, CASES)
    }


def list_matched_settings(trainer: str) -> list[str]:
    """Return the settings in which a trainer and its baseline must agree.

    A method may have its own rule for one of them, such as for the number of labelled patches.
    """
    settings_class = settings_classes().get(trainer, SemiSettings)
    names = {*list_settings_of_scope(settings_class, schema.MATCHED)}
    return [name for name in MATCHED if name in names]


def find_mismatches(jobs: Sequence[Job], baseline: str) -> list[str]:
    """Return a sentence for each setting in which compared or averaged trainings differ.

    A training is compared with the baseline of its configuration, fold and seed. The folds and
    seeds of one trainer are averaged.
    """
    return [
        *find_mismatches_with_baseline(jobs, baseline),
        *find_mismatches_within_trainers(jobs),
    ]


def find_mismatches_within_trainers(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield a sentence for each setting that differs between folds or seeds of one trainer."""
    references: dict[tuple[str, ...], tuple[Job, Any]] = {}
    mismatches: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        model = (job.trainer, job.configuration)
        for name, value in read_training_record(job).items():
            group = (*model, name, *([job.fold] if name in (CASES, POOL) else []))
            reference, expected = references.setdefault(group, (job, value))
            if value != expected:
                texts = format_values(name, value, expected)
                key = (*model, name, *texts, format_fold_and_seed(reference))
                mismatches.setdefault(key, []).append(format_fold_and_seed(job))
    for (trainer, configuration, name, value, other, other_fold), folds in mismatches.items():
        yield (
            f"The trainings of {trainer} {configuration} are not alike: {name} {value} "
            f"({', '.join(folds)}) against {other} ({other_fold})"
        )


def find_mismatches_with_baseline(
    jobs: Sequence[Job], baseline: str, ignore: Sequence[str] = ()
) -> list[str]:
    """Return a sentence for each setting in which a training differs from its baseline.

    Pre-training is left out, because it is not compared.

    Args:
        ignore: settings that may differ.
    """
    baselines = {
        (job.configuration, job.fold, job.seed): (job, read_matched_settings(job))
        for job in jobs
        if job.trainer == baseline
    }
    mismatches: dict[tuple[str, ...], list[str]] = {}
    unrecorded: dict[tuple[str, str, str], None] = {}
    for job in jobs:
        key = (job.configuration, job.fold, job.seed)
        if key not in baselines or job.trainer == baseline or not job.segments:
            continue
        (baseline_job, expected), settings = baselines[key], read_matched_settings(job)
        silent = baseline_job if settings else job
        if bool(settings) != bool(expected) and silent.is_trained:  # else it may not have begun
            unrecorded[job.trainer, job.configuration, silent.trainer] = None
        for name in (*list_matched_settings(job.trainer), CASES):
            if name in ignore or name not in settings or name not in expected:
                continue
            if settings[name] != expected[name]:
                texts = format_values(name, settings[name], expected[name])
                folds = mismatches.setdefault((job.trainer, job.configuration, name, *texts), [])
                folds.append(format_fold_and_seed(job))
    return [
        f"{trainer} {configuration} and {baseline} are not matched: {name} {value} against "
        f"{expected} ({', '.join(folds)})"
        for (trainer, configuration, name, value, expected), folds in mismatches.items()
    ] + [
        f"Whether {trainer} {configuration} and {baseline} are matched is not known: {silent} left "
        f"no record of its steps and batches, as nnU-Net's own trainers do not"
        for trainer, configuration, silent in unrecorded
    ]


def format_fold_and_seed(job: Job) -> str:
    """Return the name of one of a trainer's trainings."""
    return f"fold {job.fold} seed {job.seed}"


def format_values(name: str, value: Any, other: Any) -> tuple[str, str]:
    """Return two values of a setting as texts; of cases, the count and those not in the other.

    >>> format_values(CASES, ["a", "b", "c"], ["a", "d"])
    ('3 (only here: b, c)', '2 (only here: d)')
    """
    if name not in (CASES, POOL):
        return str(value), str(other)
    return _count_cases(value, other), _count_cases(other, value)


def _count_cases(cases: Sequence[str], others: Sequence[str]) -> str:
    only_here = sorted({*cases} - {*others})
    return f"{len(cases)} (only here: {list_first(only_here, 3)})" if only_here else f"{len(cases)}"


def find_changed_trainings(
    jobs: Sequence[Job], plans: Mapping[str, Any], patient_of: PatientOf
) -> Iterator[Problem]:
    """Yield trainings, done or begun, whose settings, cases or data have changed since.

    Args:
        jobs: with these plans, or with those of a seed.
        plans: of seed 0.
    """
    classes, folder = settings_classes(), jobs[0].folders.preprocessed
    data = CurrentData(jobs[0].folders, patient_of)
    description = read_json(folder / DATASET_JSON)
    resolve = build_settings_resolver(plans, description, folder, classes)
    for job in jobs:
        if not job.has_checkpoint:
            continue
        if renamed := [*find_renamed([job])]:
            yield from renamed
            continue
        if changes := data.find_changes(job):
            message = f"was trained before a change of the data: {list_first(changes)}"
            fix = (
                f"move {job.folder} away to train again; or restore what changed (files, plans, "
                f"labels in {DATASET_JSON}, {SPLITS_FILE}; a round: semi_nnunet accept --undo) and "
                f"preprocess"
            )
            yield Problem(str(job), message, fix)
            continue
        if job.trainer not in classes or not (recorded := read_training_record(job)):
            continue
        resolved = keep_earlier_behaviour(resolve(job.trainer, job.configuration), recorded)
        current = dict(json.loads(json.dumps(to_plain_values(resolved.as_dict()))))  # as recorded
        current |= data.list_cases(job, recorded)
        differences = [
            "{} {} (now {})".format(name, *format_values(name, recorded[name], current[name]))
            for name in recorded
            if name in current and recorded[name] != current[name]
        ]
        if differences:
            message = f"was trained with {', '.join(differences)}; it is not what is requested now"
            fix = f"plan as before, or under another name (--new-plans), or move {job.folder} away"
            if POOL in recorded and recorded[POOL] != current[POOL]:
                fix = f"imagesUn as before, or all of it (select --undo); or {fix}"
            yield Problem(str(job), message, fix)


def find_outdated_trainings(folders: Folders, jobs: Sequence[Job]) -> list[Problem]:
    """Return the trainings whose data have changed since, which their tables do not show.

    Nothing counts as changed if the preprocessed data are gone. Data that cannot be read, which
    a table does not need, are a problem, too.
    """
    problems = [*find_renamed(jobs)]
    if (folders.preprocessed / DATASET_JSON).is_file():
        for find in (find_description_changes, find_raw_changes):
            with collect_errors(problems, str(folders.raw)):
                problems += find(folders)
        with collect_errors(problems, str(folders.preprocessed)):
            problems += find_outdated_jobs(folders, jobs)
    return problems


def find_renamed(jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield the models whose folder has the name of another trainer than theirs."""
    models = {job.folder.parent: job for job in jobs}
    for model, job in models.items():
        trainer = optional_json(job.folder / SETTINGS_JSON).get("trainer", job.trainer)
        if trainer != job.trainer:
            message = f"was trained by {trainer}, but its folder has the name of {job.trainer}"
            yield Problem(str(model), message, "give the folder its earlier name")


def find_stale_predictions(folders: Folders, jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield trainings that would predict their validation cases differently today."""
    yield from find_outdated_trainings(folders, jobs)
    for job in jobs:
        if is_older(job.validation / SUMMARY_JSON, job.checkpoint):
            fix = f"remove {job.validation}, and repeat semi_nnunet crossval"
            yield Problem(str(job), "was trained again after its validation", fix)


def find_outdated_jobs(folders: Folders, jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield the trainings whose preprocessed cases have changed since, those alike together."""
    data, trainings = CurrentData(folders, load_patient_finder(folders)), dict[str, list[Job]]()
    for job in jobs:
        recorded = read_training_record(job)
        current = data.list_cases(job, recorded)
        changes = data.find_changes(job)
        changes += [f"the {name}" for name in current if current[name] != recorded[name]]
        cases = job.case_folder(unlabelled=False)
        if cases and data.were_plans_edited(job.plans, job.configuration, cases):
            changes.append(job.plans)
        if changes:
            trainings.setdefault(list_first(changes), []).append(job)
    for names, outdated in trainings.items():
        message = f"trained before a change of the data: {names}"
        yield Problem(
            list_first([str(job) for job in outdated]),
            message,
            "restore what changed, or train again with plans of another name (semi_nnunet plan "
            "--new-plans NAME)",
        )


def were_plans_edited(preprocessed: Path, plans: str, configuration: str, cases: Path) -> bool:
    """Return whether plans or labels were edited after the cases of a folder were preprocessed."""
    content = optional_json(preprocessed / f"{plans}.json")
    if configuration not in content.get("configurations", {}):  # they were removed
        return False
    spec = PreprocessingSpec(content, configuration, read_json(preprocessed / DATASET_JSON))
    return any(find_outdated_problems(spec, cases, ""))


class CurrentData:
    """The cases and the preprocessed data of a data set now, each list read once."""

    def __init__(self, folders: Folders, patient_of: PatientOf):
        self.folders, self.patient_of = folders, patient_of
        self._read_sources = cache(read_sources)
        self._list_pool_cases = cache(list_pool_cases)
        self.were_plans_edited = cache(partial(were_plans_edited, folders.preprocessed))

    @cached_property
    def _folds(self) -> dict[str, Fold]:
        return {str(number): fold for number, fold in enumerate(foresee_folds(self.folders))}

    @cached_property
    def _labelled(self) -> list[str]:
        return self.folders.labelled_cases()

    def list_cases(self, job: Job, recorded: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the cases of each recorded kind that a training would see now."""
        cases = dict[str, list[str]]()
        if POOL in recorded:
            cases[POOL] = job.unlabelled_cases(self.patient_of, self._list_pool_cases)
        if CASES in recorded and job.fold == ALL:
            cases[CASES] = self._labelled
        return cases

    def find_changes(self, job: Job) -> list[str]:
        """Return the images and labels that have changed since a training began.

        Trainings of earlier versions did not record them; of nnU-Net's own trainers, only
        ``crossval`` does. A corrected label of a validation case changes what its measures mean,
        not the training.
        """
        recorded, changes = read_trained_from(job), list[str]()
        fold = self._folds.get(job.fold, {}) if recorded else {}
        sides = {"labelled": fold.get("train"), "validation": fold.get("val")}
        for kind, sources in recorded.items():
            folder = job.case_folder(kind == "unlabelled")
            if folder and (now := self._read_sources(folder)):  # else it was removed
                changes += [
                    change
                    for change in describe_source_changes(sources, now)
                    if kind != "validation" or not change.startswith("label of ")
                ]
                if (side := sides.get(kind)) is not None:
                    others = {*sources} ^ {case for case in side if case in now}
                    changes += [f"the side of {case} in {SPLITS_FILE}" for case in sorted(others)]
        return list(dict.fromkeys(changes))
