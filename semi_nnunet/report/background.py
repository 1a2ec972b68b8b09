"""What the numbers rest on, for the report: data, plans, settings with reasons, versions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import semi_nnunet
from semi_nnunet.discovery.listing import our_trainers, stock_trainers, summary_of
from semi_nnunet.preprocessing.fingerprint import compute_intensity_shift
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.layout import SELECTED_FILE, UNLABELLED_IMAGES, get_unlabelled_folder
from semi_nnunet.raw.plans import resolve_configuration
from semi_nnunet.report.wording import shorten_trainer_name
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.settings.assignments import format_assignment
from semi_nnunet.util.files import optional_json

NO_THIRD_AXIS = 999  # its spacing, as nnU-Net reads what has two axes
VERSIONS = ("semi_nnunet", "nnunetv2", "torch", "python")
Facts = list[tuple[str, str]]  # name and value, a line each


@dataclass(frozen=True)
class MethodSettings:
    """The settings of one trainer and configuration, and those that differ between runs."""

    name: str
    rows: list[tuple[str, str, str]]
    note: str


@dataclass(frozen=True)
class Background:
    """What stands below the results: data, plans, methods, settings, versions, commands."""

    data: Facts
    plans: list[tuple[str, Facts]]
    settings: list[MethodSettings]
    versions: Facts
    commands: list[str]
    pool: str  # how many of the unlabelled images were used


def collect_background(folders: Folders, plans: str, jobs: Sequence[Job]) -> Background:
    """Collect what is there; what is not is left out."""
    content = optional_json(folders.preprocessed / f"{plans}.json")
    configurations = list(dict.fromkeys(job.configuration for job in jobs))
    records = [optional_json(job.folder / "semi_settings.json") for job in jobs]
    return Background(
        collect_data_facts(folders, content, configurations),
        [(name, list_plan_facts(content, name)) for name in configurations if content],
        collect_method_settings(jobs, records),
        list_versions(records),
        list_report_commands(folders, plans, jobs),
        describe_pool(folders, records),
    )


def describe_pool(folders: Folders, records: Sequence[Mapping[str, Any]]) -> str:
    """Count the unlabelled images that trainings began with, and those selected.

    One that filters them may have been resumed after: its record is of then.
    """
    pools = (
        record.get("cases", {}).get("unlabelled")
        for record in records
        if not record.get("settings", {}).get("filter_epochs", {}).get("value")
    )
    counts = sorted({len(cases) for cases in pools if cases})
    said = []
    if counts:
        span = " to ".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        said.append(f"Trainings began with {span} unlabelled images.")
    selected = optional_json(folders.preprocessed / SELECTED_FILE)
    if selected:
        said.append(
            f"semi_nnunet select (--score {selected['score']}) has chosen {len(selected['cases'])} "
            f"to train on; its page and table show which."
        )
    return " ".join(said)


def collect_data_facts(
    folders: Folders, plans: Mapping[str, Any], configurations: Sequence[str]
) -> Facts:
    """Cases, channels, labels, and the fingerprint."""
    description = optional_json(folders.preprocessed / "dataset.json")
    facts = [("data set", folders.preprocessed.name)]
    if description:
        channels = description.get("channel_names") or description.get("modality") or {}
        labels = [f"{name} {value}" for name, value in description.get("labels", {}).items()]
        facts += [
            ("channels", ", ".join(map(str, channels.values()))),
            ("labels", "; ".join(labels)),
        ]
        facts.append(("labelled cases", str(description.get("numTraining", "not known"))))
        folders_of = {"unlabelled cases": UNLABELLED_IMAGES, "test cases": "imagesTs"}
        for name, folder in folders_of.items() if folders.raw.is_dir() else ():
            cases = find_cases(folders.raw / folder, description.get("file_ending", ""))
            facts.append((name, str(len(cases))))
    fingerprint = optional_json(folders.preprocessed / "dataset_fingerprint.json")
    facts += format_fingerprint(fingerprint)
    for name in configurations:
        identifier = plans.get("configurations", {}).get(name, {}).get("data_identifier")
        if identifier:
            labelled = Manifest(folders.preprocessed / identifier).read()
            unlabelled = Manifest(get_unlabelled_folder(folders.preprocessed, identifier)).read()
            if labelled and unlabelled:
                shift = compute_intensity_shift(labelled.values(), unlabelled.values())
                what = f"{shift:.2f} standard deviations (0: alike)"
                facts.append((f"intensities, unlabelled from labelled, {name}", what))
    return facts


def format_fingerprint(fingerprint: Mapping[str, Any]) -> Facts:
    """Shapes, spacings and the foreground's intensities of the labelled cases."""
    facts = []
    for key, name, form in (
        ("shapes_after_crop", "shape", "{:.0f}"),
        ("spacings", "spacing (mm)", "{:.3g}"),
    ):
        if values := fingerprint.get(key):
            if key == "spacings" and all(row[0] == NO_THIRD_AXIS for row in values):
                values = [row[1:] for row in values]
            low, middle, high = (
                " x ".join(form.format(v) for v in row)
                for row in (np.min(values, 0), np.median(values, 0), np.max(values, 0))
            )
            facts.append(
                (f"{name}, median", middle if low == high else f"{middle} ({low} to {high})")
            )
    channels = fingerprint.get("foreground_intensity_properties_per_channel", {})
    for channel, values in channels.items():
        text = f"mean {values['mean']:.4g}, sd {values['std']:.4g}, median {values['median']:.4g}"
        facts.append((f"foreground intensity, channel {channel}", text))
    return facts


def describe_methods(trainers: Iterable[str]) -> Facts:
    """Describe what each method does."""
    return [
        (shorten_trainer_name(name), describe_trainer(name)) for name in dict.fromkeys(trainers)
    ]


def describe_trainer(trainer: str) -> str:
    """A line on a trainer: the first of its file."""
    if trainer in stock_trainers():
        return f"{trainer}: nnU-Net's own, which learns from the labelled cases alone."
    return f"{trainer}: {summary_of(trainer)}" if trainer in our_trainers() else trainer


def list_plan_facts(plans: Mapping[str, Any], name: str) -> Facts:
    """List what nnU-Net planned for a configuration."""
    own = resolve_configuration(plans, name) or {}
    shown = ("patch_size", "batch_size", "spacing", "normalization_schemes", "data_identifier")
    facts = [(key.replace("_", " "), format_json_value(own[key])) for key in shown if key in own]
    network = own.get("architecture", {})
    if network:
        features = network.get("arch_kwargs", {}).get("features_per_stage")
        kind = str(network.get("network_class_name", "")).rsplit(".", 1)[-1]
        facts.append(
            ("network", f"{kind}, features {format_json_value(features)}" if features else kind)
        )
    return facts


def format_json_value(value: Any) -> str:
    """A value of JSON for people."""
    if isinstance(value, list):
        return " x ".join(format_json_value(v) for v in value) if value else "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def collect_method_settings(
    jobs: Sequence[Job], of_jobs: Sequence[Mapping[str, Any]]
) -> list[MethodSettings]:
    """Read the settings of each trainer and configuration from its first training that left any."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, record in zip(jobs, of_jobs, strict=True):
        if record:
            groups.setdefault((job.trainer, job.configuration), []).append(record["settings"])
    found = []
    for (trainer, configuration), records in groups.items():
        first = records[0]
        rows = [
            (key, format_json_value(item["value"]), str(item.get("reason", "")))
            for key, item in first.items()
        ]
        differ = [
            key
            for key, item in first.items()
            if any(other.get(key, {}).get("value") != item["value"] for other in records)
        ]
        note = f"differs between its trainings: {', '.join(differ)}" if differ else ""
        found.append(MethodSettings(f"{trainer} {configuration}", rows, note))
    return found


def list_versions(records: Sequence[Mapping[str, Any]]) -> Facts:
    """List the software versions of the trainings and of this report."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name in VERSIONS:
            if name in record:
                found.setdefault(name, set()).add(str(record[name]))
    facts = [(name, ", ".join(sorted(values))) for name, values in found.items()]
    return [*facts, ("this report", f"semi_nnunet {semi_nnunet.__version__}")]


def list_planning_commands(folders: Folders, plans: str, configurations: str) -> list[str]:
    """The command that makes plans of semi_nnunet plan again from their source."""
    name = folders.preprocessed.name
    planned = optional_json(folders.preprocessed / f"{plans}.json").get("semi_planned")
    if not planned:
        return []
    origin = planned.get("from", plans)
    words = ["semi_nnunet", "plan", "-d", name, "-p", origin]
    if origin != plans:
        words += ["--name", plans]
    for key in ("budget", "patch", "architecture", "encoder", "weights"):
        if key in planned:
            value = planned[key]
            words += [f"--{key}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    if given := list(list_given_settings(planned.get("given", {}))):
        words += ["--set", *given]
    before = list_planning_commands(folders, origin, configurations) if origin != plans else []
    first = f"semi_nnunet preprocess -d {name} -p {origin} -c {configurations}"
    return [*(before or [first]), shlex.join(words)]


def list_given_settings(given: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Settings as semi_nnunet plan --set takes them."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from list_given_settings(value, f"{where}{key}.")
        else:
            yield format_assignment(f"{where}{key}", value)


def list_report_commands(folders: Folders, plans: str, jobs: Sequence[Job]) -> list[str]:
    """List the commands that make the same trainings and tables again."""
    name = folders.preprocessed.name
    trainings = [
        f"nnUNetv2_train {name} {job.configuration} {job.fold} -tr {job.trainer} -p {job.plans}"
        for job in jobs
    ]
    where, groups = f"-d {name} -p {plans}", dict[tuple[str, str, int], list[str]]()
    for trainer, configuration in dict.fromkeys((job.trainer, job.configuration) for job in jobs):
        own = [j for j in jobs if (j.trainer, j.configuration) == (trainer, configuration)]
        folds = " ".join(dict.fromkeys(job.fold for job in own))
        seeds = 1 + max(job.seed for job in own)
        groups.setdefault((configuration, folds, seeds), []).append(trainer)
    crossvals = [
        f"semi_nnunet crossval {where} -c {configuration} -f {folds} --seeds {seeds} "
        f"-tr {' '.join(trainers)}"
        for (configuration, folds, seeds), trainers in groups.items()
    ]
    configurations = " ".join(dict.fromkeys(job.configuration for job in jobs))
    return [
        *list_planning_commands(folders, plans, configurations),
        f"semi_nnunet preprocess {where} -c {configurations}",
        *crossvals,  # which train, or find trained, predict and measure
        f"semi_nnunet compare {where}",
        f"semi_nnunet report {where}",
        *trainings,
    ]
