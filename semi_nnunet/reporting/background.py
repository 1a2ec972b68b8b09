"""Background of the numbers in the report: data, plans, settings with reasons, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import semi_nnunet
from semi_nnunet.discovery.listing import our_trainers, stock_trainers, summary_of
from semi_nnunet.preprocessing.case_facts import compute_intensity_shift
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import find_cases, get_channel_names
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    FINGERPRINT_FILE,
    SELECTED_FILE,
    SETTINGS_JSON,
    UNLABELLED_IMAGES,
    get_unlabelled_folder,
)
from semi_nnunet.raw.plans import resolve_configuration
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.settings.assignments import format_assignment
from semi_nnunet.util.files import optional_json
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import unique
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.workflows.next_step import suggest_preprocessing

NO_THIRD_AXIS = 999  # nnU-Net's spacing along the missing axis of 2-D images
VERSIONS = ("semi_nnunet", "nnunetv2", "torch", "python")
Facts = list[tuple[str, str]]  # lines of name and value


@dataclass(frozen=True)
class MethodSettings:
    """The settings of one trainer and configuration, and a note on differences."""

    name: str
    rows: list[tuple[str, str, str]]
    note: str


@dataclass(frozen=True)
class Background:
    """The last section of the report: data, plans, settings, versions, commands."""

    data: Facts
    plans: list[tuple[str, Facts]]
    settings: list[MethodSettings]
    versions: Facts
    commands: list[str]
    pool: str  # a sentence on the number of unlabelled images


def collect_background(folders: Folders, plans: str, jobs: Sequence[Job]) -> Background:
    """Collect the background; missing files are left out."""
    content = optional_json(folders.preprocessed / f"{plans}.json")
    configurations = list(dict.fromkeys(job.configuration for job in jobs))
    records = [optional_json(job.folder / SETTINGS_JSON) for job in jobs]
    return Background(
        collect_data_facts(folders, content, configurations),
        [(name, list_plan_facts(content, name)) for name in configurations if content],
        collect_method_settings(jobs, records),
        list_versions(records),
        list_report_commands(folders, plans, jobs),
        describe_pool(folders, records),
    )


def describe_pool(folders: Folders, records: Sequence[Mapping[str, Any]]) -> str:
    """Count the unlabelled images of the trainings, and the selected ones.

    Trainings that filter images do not count: their record may be older than the filtering.
    """
    pools = (
        record.get("cases", {}).get("unlabelled")
        for record in records
        if not record.get("settings", {}).get("filter_epochs", {}).get("value")
    )
    counts = sorted({len(cases) for cases in pools if cases})
    sentences = []
    if counts:
        span = " to ".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        sentences.append(f"Trainings started with {span} unlabelled images.")
    selected = optional_json(folders.preprocessed / SELECTED_FILE)
    if selected:
        sentences.append(
            f"semi_nnunet select (--score {selected['score']}) selected {len(selected['cases'])} "
            "images to train on; its page and table list them."
        )
    return " ".join(sentences)


def collect_data_facts(
    folders: Folders, plans: Mapping[str, Any], configurations: Sequence[str]
) -> Facts:
    """Return cases, channels, labels, and the fingerprint."""
    description = optional_json(folders.preprocessed / DATASET_JSON)
    facts = [("data set", folders.preprocessed.name)]
    if description:
        channels = get_channel_names(description)
        labels = [f"{name} {value}" for name, value in description.get("labels", {}).items()]
        facts += [
            ("channels", ", ".join(map(str, channels.values()))),
            ("labels", "; ".join(labels)),
            ("labelled cases", str(description.get("numTraining", "unknown"))),
        ]
        subfolders = {"unlabelled cases": UNLABELLED_IMAGES, "test cases": "imagesTs"}
        for name, folder in subfolders.items() if folders.raw.is_dir() else ():
            cases = find_cases(folders.raw / folder, description.get("file_ending", ""))
            facts.append((name, str(len(cases))))
    facts += format_fingerprint(optional_json(folders.preprocessed / FINGERPRINT_FILE))
    for name in configurations:
        identifier = plans.get("configurations", {}).get(name, {}).get("data_identifier")
        if identifier:
            labelled = Manifest(folders.preprocessed / identifier).read()
            unlabelled = Manifest(get_unlabelled_folder(folders.preprocessed, identifier)).read()
            if labelled and unlabelled:
                shift = compute_intensity_shift(labelled.values(), unlabelled.values())
                text = f"{shift:.2f} standard deviations (0: equal)"
                facts.append((f"intensity shift of unlabelled images, {name}", text))
    return facts


def format_fingerprint(fingerprint: Mapping[str, Any]) -> Facts:
    """Return shapes, spacings and foreground intensities of the labelled cases."""
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
    """Return a line on each method."""
    return [(name_method(name), describe_trainer(name)) for name in dict.fromkeys(trainers)]


def describe_trainer(trainer: str) -> str:
    """Return the first line of a trainer's file, after its name.

    >>> describe_trainer("nnUNetTrainer")
    "nnUNetTrainer: nnU-Net's own trainer, which uses only the labelled cases."
    """
    if trainer in stock_trainers():
        return f"{trainer}: nnU-Net's own trainer, which uses only the labelled cases."
    return f"{trainer}: {summary_of(trainer)}" if trainer in our_trainers() else trainer


def list_plan_facts(plans: Mapping[str, Any], name: str) -> Facts:
    """Return nnU-Net's plan of a configuration, with inherited values."""
    plan = resolve_configuration(plans, name) or {}
    shown = ("patch_size", "batch_size", "spacing", "normalization_schemes", "data_identifier")
    facts = [(key.replace("_", " "), format_json_value(plan[key])) for key in shown if key in plan]
    network = plan.get("architecture", {})
    if network:
        features = network.get("arch_kwargs", {}).get("features_per_stage")
        name = str(network.get("network_class_name", "")).rsplit(".", 1)[-1]
        suffix = f", features {format_json_value(features)}" if features else ""
        facts.append(("network", f"{name}{suffix}"))
    return facts


def format_json_value(value: Any) -> str:
    """Return a value of JSON as people read it.

    >>> format_json_value([64, 80]), format_json_value(True)
    ('64 x 80', 'true')
    """
    if isinstance(value, list):
        return " x ".join(format_json_value(v) for v in value) if value else "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def collect_method_settings(
    jobs: Sequence[Job], records: Sequence[Mapping[str, Any]]
) -> list[MethodSettings]:
    """Return the settings of each trainer and configuration, from its first training with any."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, record in zip(jobs, records, strict=True):
        if record:
            groups.setdefault((job.trainer, job.configuration), []).append(record["settings"])
    methods = []
    for (trainer, configuration), settings in groups.items():
        first = settings[0]
        rows = [
            (key, format_json_value(item["value"]), str(item.get("reason", "")))
            for key, item in first.items()
        ]
        differing = [
            key
            for key, item in first.items()
            if any(other.get(key, {}).get("value") != item["value"] for other in settings)
        ]
        note = f"differs between its trainings: {', '.join(differing)}" if differing else ""
        methods.append(MethodSettings(f"{trainer} {configuration}", rows, note))
    return methods


def list_versions(records: Sequence[Mapping[str, Any]]) -> Facts:
    """Return the software versions of the trainings and of this report."""
    versions: dict[str, set[str]] = {}
    for record in records:
        for name in VERSIONS:
            if name in record:
                versions.setdefault(name, set()).add(str(record[name]))
    facts = [(name, ", ".join(sorted(values))) for name, values in versions.items()]
    return [*facts, ("this report", f"semi_nnunet {semi_nnunet.__version__}")]


def list_planning_commands(
    folders: Folders, plans: str, configurations: Sequence[str]
) -> list[str]:
    """Return the commands that make plans of semi_nnunet again; [] for nnU-Net's own plans."""
    dataset = folders.preprocessed.name
    record = optional_json(folders.preprocessed / f"{plans}.json").get("semi_planned")
    if not record:
        return []
    origin = record.get("from", plans)
    options = ("budget", "device", "spacing", "patch", "architecture", "encoder", "like")
    plan = suggest_command(
        "plan", dataset=dataset, plans=origin, new_plans=None if origin == plans else plans,
        **{name: record.get(name) for name in options}, encoder_weights=record.get("weights"),
        settings=list(list_given_settings(record.get("given", {}))),
    )  # fmt: skip
    first = [suggest_preprocessing(dataset, origin, configurations)]
    if origin != plans:
        first = list_planning_commands(folders, origin, configurations) or first
    return [*first, plan]


def list_given_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield settings as ``semi_nnunet plan --set`` takes them."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from list_given_settings(value, f"{prefix}{key}.")
        else:
            yield format_assignment(f"{prefix}{key}", value)


def list_report_commands(folders: Folders, plans: str, jobs: Sequence[Job]) -> list[str]:
    """Return the commands that repeat the trainings and make the tables."""
    dataset = folders.preprocessed.name
    trainings = [
        f"nnUNetv2_train {dataset} {job.configuration} {job.fold} -tr {job.trainer} -p {job.plans}"
        for job in jobs
    ]
    models: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        models.setdefault((job.trainer, job.configuration), []).append(job)
    groups: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
    for (trainer, configuration), model_jobs in models.items():
        folds = tuple(unique([job.fold for job in model_jobs]))
        seeds = 1 + max(job.seed for job in model_jobs)
        groups.setdefault((configuration, folds, seeds), []).append(trainer)
    crossvals = [
        suggest_command(
            "crossval", dataset=dataset, plans=plans, configurations=[configuration], folds=folds,
            seeds=seeds, trainers=trainers,
        )
        for (configuration, folds, seeds), trainers in groups.items()
    ]  # fmt: skip
    configurations = unique([job.configuration for job in jobs])
    return [
        *list_planning_commands(folders, plans, configurations),
        suggest_preprocessing(dataset, plans, configurations),
        *crossvals,  # they train what is missing, predict and measure
        *(suggest_command(verb, dataset=dataset, plans=plans) for verb in ("compare", "report")),
        *trainings,
    ]
