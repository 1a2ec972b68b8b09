"""Checks before trainings start: of a cross-validation, of a training, and of a data set."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.discovery.doctor import Finding, dataset
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.planning.teaching import collect_idle_inputs, find_ignored_labels
from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.preprocessing.case_facts import list_partly_labelled
from semi_nnunet.preprocessing.cases import (
    PreprocessingSpec,
    find_outdated_problems,
    find_stale_cases,
    read_checked_sources,
)
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw import classes as annotated_classes
from semi_nnunet.raw import folds as patients
from semi_nnunet.raw.description import RawDataset, find_cases
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    DATASET_JSON,
    SETTINGS_JSON,
    SKIPPED_FILE,
    SPLITS_FILE,
    find_raw_dataset,
    find_unfinished_round,
    get_unlabelled_folder,
)
from semi_nnunet.raw.lesion_rules import LESIONS_KEY
from semi_nnunet.raw.pieces import ONE_PIECE_KEY
from semi_nnunet.raw.plans import find_plans_name_problems, list_plans_files
from semi_nnunet.raw.readers import PLACED_ENDINGS, find_misplaced_label, read_header
from semi_nnunet.runs.folders import ALL, Folders, find_folders
from semi_nnunet.runs.job import Job
from semi_nnunet.settings.common import POOL, SemiSettings
from semi_nnunet.settings.overrides import collect_given_settings
from semi_nnunet.util.errors import Problem, Suggestion, UserError, collect_errors, shorten_reason
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.verify.domain_distance import load_domain_facts
from semi_nnunet.verify.reports import find_changed_cases, read_reports, write_reports
from semi_nnunet.workflows.next_step import (
    suggest_for_dataset,
    suggest_preprocessing,
    suggest_training,
)

NNUNET_NETWORKS = "dynamic_network_architectures."
logger = logging.getLogger(__name__)


def find_stage_option_problems(jobs: Sequence[Job], stages: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for ``--stages`` whose input no job has or makes."""
    if "train" not in stages and not any(job.is_trained for job in jobs):
        yield Problem(
            f"--stages {' '.join(stages)}", "none of the jobs is trained", "add the stage train"
        )
    if "train" in stages and "evaluate" in stages and "predict" not in stages:
        test_labels = jobs[0].folders.test_labels
        if test_labels and not all(job.is_tested for job in jobs):
            message = f"also measures predictions of imagesTs, because {test_labels} exists"
            yield Problem("--stages evaluate", message, "add the stage predict")


def find_empty_checkpoints(jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield final checkpoints of 0 bytes, which a crash of the machine may leave.

    Empty predictions and summaries are made again, and need no problem.
    """
    for job in jobs:
        if job.checkpoint.is_file() and not job.is_trained:
            fix = "remove it, and run the same command again; it continues from other checkpoints"
            yield Problem(str(job.checkpoint), "must hold a trained network, got 0 bytes", fix)


def find_pretraining_problems(jobs: Sequence[Job], plans: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield trainings that start from pre-trained weights which neither exist nor are scheduled.

    Each configuration is named once.
    """
    classes, scheduled, reported = settings_classes(), set(jobs), set[str]()
    for job in jobs:
        if job.trainer not in classes or not job.segments or job.has_checkpoint:
            continue
        settings = collect_given_settings(
            plans.get("semi", {}), SemiSettings, classes[job.trainer], job.trainer,
            job.configuration, list(plans["configurations"]), classes,
        )  # fmt: skip
        value, location = settings.get("pretrained", (None, ""))
        first = job.pretraining
        is_available = first in scheduled or first.is_trained
        if value != POOL or is_available or job.configuration in reported:
            continue
        reported.add(job.configuration)
        message = f"pretrained is 'pool', and {first.folder.parent.name} is not trained"
        yield Problem(location, message, f"add {first.trainer} to -tr")


def find_cascade_problems(jobs: Sequence[Job], folds: int) -> Iterator[Problem]:
    """Yield second stages of a cascade whose first stage is neither trained nor scheduled.

    A fold of the second stage trains on predictions of all cases. The first stages of all folds
    write them into one folder, each for its own validation cases; fold "all" predicts its training
    cases.
    """
    scheduled, is_complete = set(jobs), dict[Job, bool]()

    def is_ready(stage: Job, fold: str) -> bool:
        if stage not in is_complete:
            is_complete[stage] = stage.is_trained and stage.is_validated
        needs_test = stage.fold == fold and "predict" in stage.steps
        return is_complete[stage] and (not needs_test or stage.is_tested)

    numbered = [str(fold) for fold in range(folds)]
    for job in jobs:
        if (previous := job.previous_stage) is None:
            continue
        required, excluded = ([ALL], numbered) if job.fold == ALL else (numbered, [ALL])
        location, first = f"{job.trainer} {job.configuration}", previous.configuration
        stages = [replace(previous, fold=fold) for fold in required]
        if any(stage not in scheduled and not is_ready(stage, job.fold) for stage in stages):
            message = (
                f"needs {first} of fold {', '.join(required)} first, including predictions of "
                f"imagesTs"
            )
            yield Problem(
                location, message, f"-c {first} {job.configuration} -f {' '.join(required)}"
            )
        # the first stage of nnU-Net's own trainers predicts no pseudo-labelled cases
        is_stock_fold = job.trainer not in our_trainers() and job.fold != ALL
        if is_stock_fold and (cases := read_pseudo_labelled_cases(job.folders.preprocessed)):
            message = (
                f"as {first} predicts only the validation cases, not {len(cases)} pseudo-labelled"
            )
            yield Problem(job.trainer, message, "-tr SemiBaselineTrainer, or -f all")
        mixed = [replace(previous, fold=fold) for fold in excluded]
        if any(stage in scheduled or stage.is_trained for stage in mixed):
            message = (
                f"folds {' '.join(numbered)} and 'all' of {first} would overwrite each other's "
                f"predictions: a network that has seen a case would label it for the others"
            )
            yield Problem(
                location, message, "train them with plans of different names (plan --new-plans)"
            )


def find_description_changes(folders: Folders) -> Iterator[Problem]:
    """Yield the keys of dataset.json that changed after preprocessing and matter to results."""
    raw, preprocessed = (
        optional_json(folder / DATASET_JSON) for folder in (folders.raw, folders.preprocessed)
    )
    keys = [patients.PATIENT_KEY, annotated_classes.ANNOTATED_KEY, "labels"]
    keys += [LESIONS_KEY, ONE_PIECE_KEY]
    for key in keys if raw and preprocessed else ():
        values = raw.get(key), preprocessed.get(key)
        if values[0] == values[1]:
            continue
        message = f"{key!r} has changed since preprocessing"
        if key == patients.PATIENT_KEY:
            texts = ("absent" if value is None else repr(value) for value in values)
            message = "{!r} is {}, in the preprocessed data set {}".format(key, *texts)
        fix = suggest_command("preprocess", dataset=folders.raw.name)
        yield Problem(str(folders.raw / DATASET_JSON), message, fix)


def warn_about_partial_labels(folders: Folders, trainers: Sequence[str]) -> None:
    """Warn of trainers that ignore partial labels, if the data set has them."""
    description = optional_json(folders.preprocessed / DATASET_JSON)
    stock = [name for name in trainers if name not in our_trainers()]
    if stock and annotated_classes.has_partial_labels(description):
        logger.warning(
            f"WARNING: {', '.join(stock)} treats structures that a case does not annotate as "
            f"background. Fix: compare with {BASELINE}, nnU-Net's training with partial labels"
        )


def find_leaked_patients(jobs: Sequence[Job], patient_of: patients.PatientOf) -> Iterator[Problem]:
    """Yield finished trainings that saw patients whom their fold validates on now.

    A teacher passes on what it has seen, so the teachers of the jobs are checked, too.
    """
    folds = dict(enumerate(patients.load_folds(jobs[0].folders.preprocessed)))
    numbered = [job for job in jobs if job.fold != ALL and int(job.fold) in folds]
    candidates = {stage for job in numbered for stage in (job, job.teacher) if stage is not None}
    for job in sorted((job for job in candidates if job.is_trained), key=str):
        cases = optional_json(job.folder / SETTINGS_JSON).get("cases", {})
        fold = folds[int(job.fold)]
        learned = itertools.chain.from_iterable(cases.values())
        if leaked := patients.find_seen_patients(learned, fold["train"], fold["val"], patient_of):
            message = f"was trained on cases that {SPLITS_FILE} now uses for validation: "
            yield Problem(str(job), message + list_first(leaked), f"move {job.folder} away")


def find_raw_changes(folders: Folders, command: str | None = None) -> Iterator[Problem]:
    """Yield a problem if labelled or unlabelled files have changed since preprocessing.

    Args:
        command: that preprocesses what is needed (default: all configurations of the usual plans).
    """
    yield from find_unfinished_round(folders.raw)
    path = folders.preprocessed / CHECKED_FILE
    reports = read_reports(path)
    if not (reports and (folders.raw / DATASET_JSON).is_file()):
        return
    skipped = optional_json(folders.preprocessed / SKIPPED_FILE)
    cases = RawDataset.of(folders.raw).cases
    changed, refreshed = find_changed_cases(cases, reports, skipped)
    if changed:
        message = (
            f"{format_count(changed, 'case')} changed since preprocessing: {list_first(changed)}"
        )
        command = command or suggest_command("preprocess", dataset=folders.raw.name)
        yield Problem(str(folders.raw), message, command)
    elif refreshed != reports:
        with suppress(OSError, UserError):  # a folder that cannot be written stays as it is
            write_reports(path, refreshed.values())


def find_data_problems(
    folders: Folders,
    plans: dict[str, Any],
    plans_name: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
) -> Iterator[Problem]:
    """Yield configurations that are not or no longer preprocessed, or lack unlabelled images.

    Args:
        plans, plans_name: their content and identifier.
        trainers: class names; those of nnU-Net need no unlabelled images.
    """
    classes, dataset = our_trainers(), folders.preprocessed.name
    manager = PlansManager(plans)
    users = [name for name in trainers if name in classes and classes[name].uses_unlabelled]
    for name in configurations:
        configuration = manager.get_configuration(name)
        identifier = configuration.data_identifier
        command = suggest_preprocessing(dataset, plans_name, [name])
        folder = folders.preprocessed / identifier
        if not folder.is_dir():
            yield Problem(str(folder), f"{name} is not preprocessed", command)
            continue
        if description := optional_json(folders.preprocessed / DATASET_JSON):
            spec = PreprocessingSpec(plans, name, description)
            yield from find_outdated_problems(spec, folder, command)
            yield from find_stale_cases(folder, command)
            yield from find_missing_cases(folder, command)
            yield from find_network_problems(plans, plans_name, name, description)
            if damaged := Manifest(folder).list_damaged(folders.labelled_cases()):
                number, names = format_count(damaged, "case"), list_first(damaged)
                message = f"files of {number} are missing or cut: {names}"
                yield Problem(str(folder), message, command)
        for stock in sorted({*trainers} - {*classes}):
            # nnU-Net's trainers fail after the training if data of the next stage are missing
            for stage in configuration.next_stage_names or ():
                other = folders.preprocessed / manager.get_configuration(stage).data_identifier
                if not other.is_dir():
                    fix = suggest_preprocessing(dataset, plans_name, [stage])
                    yield Problem(str(other), f"{stock} also predicts for {stage}", fix)
        unlabelled = get_unlabelled_folder(folders.preprocessed, identifier)
        labelled = Manifest(folder).present()
        yield from find_ignored_labels(labelled)
        has_unlabelled = Manifest(unlabelled).present() or list_partly_labelled(labelled)
        if users and not has_unlabelled:
            message = f"{', '.join(users)} needs unlabelled images, found none"
            yield Problem(str(unlabelled), message, f"put them into imagesUn and run {command}")


def find_missing_cases(folder: Path, command: str) -> Iterator[Problem]:
    """Yield a problem if cases that ``preprocess`` has checked are missing in a configuration.

    It was last run for other plans or configurations then.

    Args:
        folder: of the labelled cases of a configuration.
        command: that preprocesses the others.
    """
    checked = read_checked_sources(folder.parent)
    skipped = optional_json(folder.parent / SKIPPED_FILE)
    unlabelled = get_unlabelled_folder(folder.parent, folder.name)
    for subset, cases in (("labelled", folder), ("unlabelled", unlabelled)):
        entries = Manifest(cases).present()
        missing = [
            case
            for kind, case in (checked if entries else ())
            if kind == subset and case not in entries
            if subset == "labelled" or case not in skipped
        ]
        if missing:
            message = f"{format_count(missing, 'case')} not preprocessed: {list_first(missing)}"
            yield Problem(str(cases), message, command)


def find_network_problems(
    plans: dict[str, Any], plans_name: str, configuration: str, description: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield a problem if a planned network of nnU-Net cannot be built; others are not tried."""
    manager = PlansManager(plans)
    planned = manager.get_configuration(configuration).configuration
    if not str(planned["architecture"]["network_class_name"]).startswith(NNUNET_NETWORKS):
        return
    try:
        heads = manager.get_label_manager(dict(description)).num_segmentation_heads
        channels = determine_num_input_channels(manager, configuration, dict(description))
        with torch.device("meta"):
            build_planned_network(planned, channels, heads, allow_init=False)
    except Exception as error:  # of the network's library
        message = f"describes a network that cannot be built ({shorten_reason(error)})"
        fix = "correct its 'architecture', or plan again"
        yield Problem(f"{plans_name}.json, {configuration}", message, fix)


def find_test_label_problems(folders: Folders) -> Iterator[Problem]:
    """Yield a problem if some test cases have no label, or a label's grid is not its image's.

    Only headers are compared, and only of formats that store a position. Readers that reorient
    images are not checked.
    """
    labels, ending = folders.test_labels, folders.file_ending
    if labels is None or folders.test_images is None:
        return
    if missing := folders.test_cases_without_labels():
        message = (
            f"holds no labels of {format_count(missing, 'case')} of imagesTs: {list_first(missing)}"
        )
        fix = "add them, move these images elsewhere, or all of labelsTs to predict without metrics"
        yield Problem(str(labels), message, fix)
    reader = optional_json(folders.raw / DATASET_JSON).get("overwrite_image_reader_writer", "")
    if ending not in PLACED_ENDINGS or reader.startswith("Nibabel") or "Reorient" in reader:
        return
    for case, images in find_cases(folders.test_images, ending).items():
        label = labels / f"{case}{ending}"
        image = Path(images[0])
        place = read_header(label) if label.is_file() else None
        place_of_image = read_header(image)
        if place and place_of_image:
            names = f"labelsTs/{label.name}", f"imagesTs/{image.name}"
            yield from find_misplaced_label(place, place_of_image, *names)


def collect_warnings(
    preprocessed: Path, plans: Mapping[str, Any], configuration: str, trainers: Sequence[str]
) -> list[Problem]:
    """Return a warning for every case or setting that has no effect on the training.

    Args:
        preprocessed: folder of the data set; the configuration is preprocessed with these plans.
        trainers: class names; those that use no unlabelled images are not checked.
    """
    classes, facts = settings_classes(), our_trainers()
    names = [name for name in trainers if name in facts and facts[name].uses_unlabelled]
    settings = dict[str, SemiSettings]()
    if names:
        description = read_json(preprocessed / DATASET_JSON)
        properties = collect_properties(plans, configuration, description, preprocessed)
    for name in names:
        resolved = resolve_settings(classes[name], name, configuration, plans, properties, classes)
        settings[name] = resolved.settings
    return collect_idle_inputs(preprocessed, plans, configuration, settings)


def examine_dataset(name_or_id: str) -> tuple[list[Finding], list[str]]:
    """Examine a data set up to the start of a training, without writing or verifying images.

    Returns:
        Findings on the cases and on the configurations of all plans; and the next commands: those
        that prepare what is missing (for the last of the plans, if none is prepared), or train.

    Raises:
        UserError: there is no such raw data set, or nnU-Net's folders are not set.
    """
    raw = find_raw_dataset(name_or_id)
    folders = find_folders(raw.name)
    cases = dataset(raw, folders.preprocessed)
    preprocess = suggest_command("preprocess", dataset=name_or_id)
    paths = list_plans_files(folders.preprocessed)
    if not paths:
        if (cases.fix or "").startswith("semi_nnunet preprocess"):  # says the same
            return [replace(cases, fix=preprocess)], [preprocess]
        return [cases, Finding("plans", "there are none", preprocess)], [preprocess]
    findings, ready = [cases], list[tuple[str, str]]()
    changes = list[Problem]()
    with collect_errors(changes, str(raw)):
        changes += [*find_description_changes(folders), *find_raw_changes(folders)]
    findings += [Finding("files", change.what, change.fix) for change in changes]
    for facts in load_domain_facts(folders.preprocessed):
        state = f"{facts.describe_cases()}; {facts.describe_distance()}"
        findings.append(Finding(f"domain {facts.name}", state))
    for path in paths:
        finding, configurations = examine_plans(folders, path)
        findings.append(finding)
        ready += [(path.stem, configuration) for configuration in configurations]
        findings += examine_teaching(folders, path, configurations)
    if cases.fix is not None:
        return findings, [cases.fix]
    if changes:
        return findings, [preprocess]
    if not ready:
        return findings, [str(findings[-1].fix)]
    if following := suggest_for_dataset(folders):
        return findings, following
    plans, configuration = max(ready, key=lambda pair: pair[0].endswith("_cpu"))
    return findings, suggest_training(raw.name, plans, configuration)


def examine_teaching(
    folders: Folders, path: Path, configurations: Sequence[str]
) -> Iterator[Finding]:
    """Yield findings on what teaches nothing, each once for the ready configurations of plans."""
    content = read_json(path) if configurations else {}
    problems = [
        problem
        for name in configurations
        for problem in collect_warnings(folders.preprocessed, content, name, [RECOMMENDED])
    ]
    for problem in dict.fromkeys(problems):
        if isinstance(problem, Suggestion):
            yield Finding(path.stem, str(problem))
        else:
            yield Finding(path.stem, f"{problem.where}: {problem.what}", problem.fix)


def examine_plans(folders: Folders, path: Path) -> tuple[Finding, list[str]]:
    """Return the configurations of plans that are ready, or the first missing thing.

    Returns:
        The finding, which is good if one configuration is ready, as users rarely train all; and
        the configurations that are ready.
    """
    content = read_json(path)
    for problem in find_plans_name_problems(path, content):
        return Finding(path.stem, problem.what, problem.fix), []
    ready, missing = list[str](), list[Problem]()
    for name in content["configurations"]:
        problems = [*find_data_problems(folders, content, path.stem, [name], [RECOMMENDED])]
        missing += problems
        ready += [] if problems else [name]
    if ready:
        return Finding(path.stem, f"ready to train: {', '.join(ready)}"), ready
    return Finding(path.stem, missing[0].what, missing[0].fix), ready
