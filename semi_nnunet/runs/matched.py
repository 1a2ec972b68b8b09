"""Whether trainings that are compared were alike but for their method, as their folders say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from semi_nnunet.checkpoints import plain
from semi_nnunet.discovery.listing import settings_classes
from semi_nnunet.errors import Problem
from semi_nnunet.files import optional_json, read_json
from semi_nnunet.planning.facts import collect_facts, resolve_settings
from semi_nnunet.planning.rules import Facts
from semi_nnunet.runs.job import Job

MATCHED = (
    "epochs", "steps_per_epoch", "labelled_batch_size", "labelled_share", "accumulate_batches",
    "optimizer", "initial_lr", "momentum", "weight_decay", "lr_schedule", "mixed_precision",
    "gradient_clip", "supervised_loss", "class_weights", "class_weights_from", "deep_supervision",
    "mirror", "max_rotation_degrees", "labelled_appearance",
)  # fmt: skip
CASES = "labelled cases"


def trained_with(job: Job) -> dict[str, Any]:
    """What the baseline of a training must share; empty of nnU-Net's own trainers."""
    record = optional_json(job.folder / "semi_settings.json")
    settings = record.get("settings", {})
    found = {name: settings[name]["value"] for name in MATCHED if name in settings}
    labelled = record.get("cases", {}).get("labelled")
    return found if labelled is None else {**found, CASES: sorted(labelled)}


def unmatched(jobs: Sequence[Job], baseline: str) -> list[str]:
    """A sentence for each setting in which a training differs from its baseline.

    Its baseline has the same configuration, fold and seed.
    """
    bases = {
        (job.configuration, job.fold, job.seed): trained_with(job)
        for job in jobs
        if job.trainer == baseline
    }
    found: dict[tuple[str, ...], list[str]] = {}
    unknown: dict[tuple[str, str], None] = {}
    for job in jobs:
        base = bases.get((job.configuration, job.fold, job.seed))
        if base is None or job.trainer == baseline:
            continue
        own = trained_with(job)
        if bool(own) != bool(base):
            unknown[job.trainer, job.configuration] = None
        for name in (*MATCHED, CASES):
            if name in own and name in base and own[name] != base[name]:
                values = said(name, own[name]), said(name, base[name])
                where = found.setdefault((job.trainer, job.configuration, name, *values), [])
                where.append(f"fold {job.fold} seed {job.seed}")
    return [
        f"{trainer} {configuration} and {baseline} are not matched: {name} {own} against {base} "
        f"({', '.join(where)})"
        for (trainer, configuration, name, own, base), where in found.items()
    ] + [
        f"Whether {trainer} {configuration} and {baseline} are matched is not known: nnU-Net's own "
        f"trainers keep no record of their steps and batches"
        for trainer, configuration in unknown
    ]


def said(name: str, value: Any) -> str:
    """A value for people."""
    return f"{len(value)} ({', '.join(value[:3])}, ...)" if name == CASES else str(value)


def changed_since(jobs: Sequence[Job], plans: Mapping[str, Any]) -> Iterator[Problem]:
    """Trainings that are done, with other settings than the plans have now.

    Args:
        jobs: with these plans, or those of a seed.
        plans: of seed 0.
    """
    classes, folder = settings_classes(), jobs[0].folders.preprocessed

    @cache
    def facts_of(configuration: str) -> Facts:
        return collect_facts(plans, configuration, read_json(folder / "dataset.json"), folder)

    @cache
    def planned(trainer: str, configuration: str) -> dict[str, Any]:
        kind, facts = classes[trainer], facts_of(configuration)
        resolved = resolve_settings(kind, trainer, configuration, plans, facts, classes)
        return dict(plain(resolved.as_dict()))

    for job in jobs:
        if job.trainer not in classes or not job.is_trained or not (own := trained_with(job)):
            continue
        now = planned(job.trainer, job.configuration)
        differ = [
            f"{name} {own[name]} (now {now[name]})"
            for name in MATCHED
            if name in own and own[name] != now[name]
        ]
        if differ:
            what = f"was trained with {', '.join(differ)}, so that others would not be matched"
            yield Problem(str(job), what, "plan as before, or under another name (plan --name)")
