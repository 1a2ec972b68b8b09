"""Whether trainings that are compared were alike but for their method, as their folders say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from semi_nnunet.data.patients import PatientOf
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.runs.job import Job
from semi_nnunet.settings import schema
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import names_of_scope
from semi_nnunet.training.checkpoints import plain
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import optional_json, read_json

MATCHED = names_of_scope(SemiSettings, schema.MATCHED)
OF_ANY_TRAINING = names_of_scope(SemiSettings, schema.MATCHED, schema.SUPERVISED)
OWN = names_of_scope(SemiSettings, schema.OWN)
CASES, POOL = "labelled cases", "unlabelled cases"


def recorded(job: Job) -> dict[str, Any]:
    """Read what a training was trained with; it is empty for nnU-Net's own trainers.

    Of one without unlabelled cases, such as the baseline, what is about these is not told; nor are
    the cases of one that filters them: it may have been resumed after.
    """
    record = optional_json(job.folder / "semi_settings.json")
    values = {name: one["value"] for name, one in record.get("settings", {}).items()}
    found = {name: value for name, value in values.items() if name not in OWN}
    cases = record.get("cases", {})
    if cases.get("unlabelled") == []:
        unused = {field.name for field in fields(SemiSettings)} - {*OF_ANY_TRAINING}
        found = {name: value for name, value in found.items() if name not in unused}
    if "labelled" in cases:
        found[CASES] = sorted(cases["labelled"])
    if cases.get("unlabelled") and not values.get("filter_epochs"):
        found[POOL] = sorted(cases["unlabelled"])
    return found


def trained_with(job: Job) -> dict[str, Any]:
    """Read what a baseline must share with a training; it is empty for nnU-Net's own trainers."""
    return {name: value for name, value in recorded(job).items() if name in (*MATCHED, CASES)}


def unmatched(jobs: Sequence[Job], baseline: str) -> list[str]:
    """A sentence for each setting in which trainings differ that are compared, or taken together.

    The baseline of a training has the same configuration, fold and seed; the folds and seeds of one
    trainer are taken together.
    """
    return [*unlike_baseline(jobs, baseline), *unlike_each_other(jobs)]


def unlike_each_other(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each setting that the folds and seeds of one trainer do not share."""
    firsts: dict[tuple[str, ...], tuple[Job, Any]] = {}
    found: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        model = (job.trainer, job.configuration)
        for name, value in recorded(job).items():
            alike = (*model, name, *([job.fold] if name in (CASES, POOL) else []))
            first, theirs = firsts.setdefault(alike, (job, value))
            if value != theirs:
                both = said(name, value), said(name, theirs)
                where = found.setdefault((*model, name, *both, placed(first)), [])
                where.append(placed(job))
    for (trainer, configuration, name, value, other, place), where in found.items():
        yield (
            f"The trainings of {trainer} {configuration} are not alike: {name} {value} "
            f"({', '.join(where)}) against {other} ({place})"
        )


def unlike_baseline(jobs: Sequence[Job], baseline: str) -> list[str]:
    """A sentence for each setting in which a training differs from its baseline.

    A pre-training is no model that is compared, so that nothing is said of it.
    """
    bases = {
        (job.configuration, job.fold, job.seed): (job, trained_with(job))
        for job in jobs
        if job.trainer == baseline
    }
    found: dict[tuple[str, ...], list[str]] = {}
    unknown: dict[tuple[str, str, str], None] = {}
    for job in jobs:
        like = (job.configuration, job.fold, job.seed)
        if like not in bases or job.trainer == baseline or not job.segments:
            continue
        (its_job, base), own = bases[like], trained_with(job)
        untold = its_job if own else job
        if bool(own) != bool(base) and untold.is_trained:  # else it may not have begun
            unknown[job.trainer, job.configuration, untold.trainer] = None
        for name in (*MATCHED, CASES):
            if name in own and name in base and own[name] != base[name]:
                values = said(name, own[name]), said(name, base[name])
                where = found.setdefault((job.trainer, job.configuration, name, *values), [])
                where.append(placed(job))
    return [
        f"{trainer} {configuration} and {baseline} are not matched: {name} {own} against {base} "
        f"({', '.join(where)})"
        for (trainer, configuration, name, own, base), where in found.items()
    ] + [
        f"Whether {trainer} {configuration} and {baseline} are matched is not known: {untold} left "
        f"no record of its steps and batches, as nnU-Net's own trainers do not"
        for trainer, configuration, untold in unknown
    ]


def placed(job: Job) -> str:
    """Name one of a trainer's trainings."""
    return f"fold {job.fold} seed {job.seed}"


def said(name: str, value: Any) -> str:
    """A value for people."""
    if name not in (CASES, POOL):
        return str(value)
    return f"{len(value)} ({', '.join(value[:3])}, ...)" if value else "none"


def changed_since(
    jobs: Sequence[Job], plans: Mapping[str, Any], patient_of: PatientOf
) -> Iterator[Problem]:
    """Trainings done or begun with other settings or unlabelled cases than there are now.

    Args:
        jobs: with these plans, or those of a seed.
        plans: of seed 0.
        patient_of: case -> its patient.
    """
    classes, folder = settings_classes(), jobs[0].folders.preprocessed

    @cache
    def properties_of(configuration: str) -> DatasetProperties:
        return collect_properties(plans, configuration, read_json(folder / "dataset.json"), folder)

    @cache
    def planned(trainer: str, configuration: str) -> dict[str, Any]:
        kind, properties = classes[trainer], properties_of(configuration)
        resolved = resolve_settings(kind, trainer, configuration, plans, properties, classes)
        return dict(json.loads(json.dumps(plain(resolved.as_dict()))))  # as recorded

    for job in jobs:
        if job.trainer not in classes or not job.continues or not (own := recorded(job)):
            continue
        now = planned(job.trainer, job.configuration)
        if POOL in own:
            now = {**now, POOL: job.unlabelled_cases(patient_of)}
        differ = [
            f"{name} {said(name, own[name])} (now {said(name, now[name])})"
            for name in own
            if name in now and own[name] != now[name]
        ]
        if differ:
            what = f"was trained with {', '.join(differ)}; it would not be what is asked for now"
            fix = f"plan as before, or under another name (plan --name), or move {job.folder} away"
            if POOL in own and own[POOL] != now[POOL]:
                fix = f"imagesUn as before, or all of it (select --undo); or {fix}"
            yield Problem(str(job), what, fix)
