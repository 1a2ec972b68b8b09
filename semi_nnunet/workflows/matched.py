"""Check that compared trainings differ only in their method, from the records in their folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.preprocessing.manifest import describe_source_changes, read_sources
from semi_nnunet.raw.folds import PatientOf, load_folds
from semi_nnunet.runs.folders import ALL
from semi_nnunet.runs.job import Job
from semi_nnunet.settings import schema
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import list_settings_of_scope
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import list_first

MATCHED = list_settings_of_scope(SemiSettings, schema.MATCHED)
OF_ANY_TRAINING = list_settings_of_scope(SemiSettings, schema.MATCHED, schema.SUPERVISED)
OWN = list_settings_of_scope(SemiSettings, schema.OWN)
CASES, POOL = "labelled cases", "unlabelled cases"


def read_record(job: Job) -> dict[str, Any]:
    """Return the settings and cases of a training; {} for nnU-Net's own trainers.

    A training without unlabelled cases, such as the baseline, has no settings about them. The
    unlabelled cases of a training that filters them are left out, because it may have been resumed
    after the filtering.
    """
    record = optional_json(job.folder / "semi_settings.json")
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
    """Return what a baseline must share with a training; {} for nnU-Net's own trainers."""
    return {name: value for name, value in read_record(job).items() if name in (*MATCHED, CASES)}


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
        for name, value in read_record(job).items():
            group = (*model, name, *([job.fold] if name in (CASES, POOL) else []))
            reference, expected = references.setdefault(group, (job, value))
            if value != expected:
                texts = format_recorded_value(name, value), format_recorded_value(name, expected)
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
        for name in (*MATCHED, CASES):
            if name in ignore or name not in settings or name not in expected:
                continue
            if settings[name] != expected[name]:
                texts = [format_recorded_value(name, s[name]) for s in (settings, expected)]
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


def format_recorded_value(name: str, value: Any) -> str:
    """Return a setting as text, or the count and first names of cases.

    >>> format_recorded_value(CASES, ["a", "b", "c", "d"])
    '4 (a, b, c, ...)'
    """
    if name not in (CASES, POOL):
        return str(value)
    return f"{len(value)} ({', '.join(value[:3])}, ...)" if value else "none"


def find_changed_trainings(
    jobs: Sequence[Job], plans: Mapping[str, Any], patient_of: PatientOf
) -> Iterator[Problem]:
    """Yield trainings, done or begun, whose settings or unlabelled cases have changed since.

    Args:
        jobs: with these plans, or with those of a seed.
        plans: of seed 0.
    """
    classes, folder = settings_classes(), jobs[0].folders.preprocessed
    folds = load_folds(folder)

    @cache
    def collect(configuration: str) -> DatasetProperties:
        return collect_properties(plans, configuration, read_json(folder / "dataset.json"), folder)

    @cache
    def resolve(trainer: str, configuration: str) -> dict[str, Any]:
        settings_class, properties = classes[trainer], collect(configuration)
        resolved = resolve_settings(
            settings_class, trainer, configuration, plans, properties, classes
        )
        return dict(json.loads(json.dumps(to_plain_values(resolved.as_dict()))))  # as recorded

    for job in jobs:
        if job.trainer not in classes or not job.has_checkpoint:
            continue
        if not (recorded := read_record(job)):
            continue
        current = resolve(job.trainer, job.configuration)
        if POOL in recorded:
            current = {**current, POOL: job.unlabelled_cases(patient_of)}
        if CASES in recorded and job.fold == ALL:
            current = {**current, CASES: job.folders.labelled_cases()}
        elif CASES in recorded and int(job.fold) < len(folds):
            current = {**current, CASES: sorted(folds[int(job.fold)]["train"])}
        if changes := find_source_changes(job):
            message = f"was trained before a change of the data: {list_first(changes)}"
            fix = f"move {job.folder} away to train again, or restore these files and preprocess"
            yield Problem(str(job), message, fix)
            continue
        differences = [
            f"{name} {format_recorded_value(name, recorded[name])} "
            f"(now {format_recorded_value(name, current[name])})"
            for name in recorded
            if name in current and recorded[name] != current[name]
        ]
        if differences:
            message = f"was trained with {', '.join(differences)}; it is not what is requested now"
            fix = f"plan as before, or under another name (plan --name), or move {job.folder} away"
            if POOL in recorded and recorded[POOL] != current[POOL]:
                fix = f"imagesUn as before, or all of it (select --undo); or {fix}"
            yield Problem(str(job), message, fix)


def find_source_changes(job: Job) -> list[str]:
    """Return the images and labels that have changed since a training began, and were preprocessed.

    Trainings of earlier versions did not record them.
    """
    recorded = optional_json(job.folder / "semi_settings.json").get("sources", {})
    changes = list[str]()
    for kind, sources in recorded.items():
        folder = job.case_folder(kind == "unlabelled")
        changes += describe_source_changes(sources, read_sources(folder, sources)) if folder else []
    return changes
