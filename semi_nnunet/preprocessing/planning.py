"""nnU-Net's plans of a data set: check existing ones, make missing ones, select configurations.

nnU-Net uses any plans that exist. With plans that were copied from another data set or written by
another version, a training ends in a traceback much later, or uses wrongly preprocessed images.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nnunetv2
import numpy as np
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.preprocessing.cases import log_stage
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import RawDataset, without_own_keys
from semi_nnunet.raw.layout import DATASET_JSON, FINGERPRINT_FILE, PLANNED_FROM
from semi_nnunet.raw.plans import held_plans, is_plans
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import Problem, UserError, raise_if_any, shorten_reason
from semi_nnunet.util.files import (
    optional_json,
    read_json,
    sha256_of_file,
    sha256_of_json,
    undo,
    undone_on_failure,
    write_json,
    writing,
)
from semi_nnunet.util.names import list_first

logger = logging.getLogger(__name__)
ORIGINS = "plans"  # key of the record: plans -> what they come from
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
REQUIRED_KEYS = (
    "dataset_name", "plans_name", "configurations", "transpose_forward", "image_reader_writer",
    "experiment_planner_used",
)  # fmt: skip
PLANNING_KEYS = (  # of dataset.json
    "channel_names", "modality", "labels", "regions_class_order", "file_ending",
    "overwrite_image_reader_writer",
)  # fmt: skip
INTENSITIES = (  # of the foreground: the present name, and that of nnU-Net 2.0
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
)


def plan_if_needed(
    raw_dataset: Path | RawDataset,
    preprocessed: Path,
    plans_name: str,
    planner: str,
    num_processes: int,
    gpu_memory_gb: float | None = None,
) -> dict[str, Any]:
    """Return the plans; make nnU-Net's fingerprint and plans if they are missing or outdated.

    Plans that are made again keep the settings of this package
    (``semi``, ``semi_planned``). ``gpu_memory_gb`` is the memory that nnU-Net plans for; existing
    plans are used as they are.

    Raises:
        UserError: the existing plans belong to another data set or version, or are derived from
            others (see :mod:`semi_nnunet.workflows.plan`) and outdated.
    """
    raw, plans_file = RawDataset.of(raw_dataset), preprocessed / f"{plans_name}.json"
    with held_plans(preprocessed, plans_name):
        undo(list_planned_files(preprocessed, plans_name))
        is_described = fingerprint_fits(raw, preprocessed)
        existing = read_existing_plans(plans_file, raw)
        if existing and is_described and is_up_to_date(existing, plans_file):
            if gpu_memory_gb is not None:
                fix = "another name (-p) makes new plans"
                logger.warning(f"{plans_file} exists: -gpu_memory_target is not used; {fix}")
            return existing
        require_not_derived(existing, plans_file, raw)
        if not existing and (others := sorted(collect_origins(preprocessed))):
            logger.warning(
                f"WARNING: there are no plans {plans_name} yet, only {list_first(others)}: "
                f"nnU-Net makes them"
            )
        log_stage(f"planning {plans_name}")
        if existing and planner != existing["experiment_planner_used"]:
            planner = existing["experiment_planner_used"]
            logger.info(f"{plans_name} is planned again by its own planner, {planner}")
        get_default_plans_name(planner)  # raises if there is no such planner
        kept = {key: existing[key] for key in ("semi", "semi_planned") if key in existing}
        with (
            variable("nnUNet_n_proc_DA", None),  # nnU-Net's planner fails if it is 0
            writing(f"{plans_name}.json and fingerprint to {preprocessed}", preprocessed),
        ):
            preprocessed.mkdir(parents=True, exist_ok=True)
            with undone_on_failure(list_planned_files(preprocessed, plans_name)):
                origins = collect_origins(preprocessed)
                if not is_described:
                    # the new fingerprint may equal the old one, as it ignores background voxels
                    write_json(preprocessed / PLANNED_FROM, {ORIGINS: origins})
                extract_fingerprints(
                    [raw.number], num_processes=num_processes, clean=not is_described, verbose=False
                )
                plan_experiments(
                    [raw.number], planner, gpu_memory_gb, overwrite_plans_name=plans_name
                )
                plans = {**read_json(plans_file), **kept}
                if kept:
                    write_json(plans_file, plans)
                record_origin(plans_file, origins)
        if changes := list(describe_changes(existing, plans)):
            logger.warning(
                f"{plans_name} are planned again, as the labelled cases or dataset.json have "
                f"changed. These values changed (edits by hand are lost): {'; '.join(changes)}"
            )
        return plans


def list_planned_files(preprocessed: Path, plans_name: str) -> list[Path]:
    """Return the files that planning writes."""
    names = (PLANNED_FROM, f"{plans_name}.json", FINGERPRINT_FILE, DATASET_JSON)
    return [preprocessed / name for name in names]


def require_not_derived(existing: Mapping[str, Any], plans_file: Path, raw: RawDataset) -> None:
    """Raise a UserError if outdated plans were derived from others, so nnU-Net cannot make them."""
    if not (existing and is_derived(existing)):
        return
    described_by = (FINGERPRINT_FILE, DATASET_JSON)
    gone = [name for name in described_by if not (plans_file.parent / name).is_file()]
    reason = "the labelled cases or dataset.json have changed since"
    if gone:
        reason = f"{' and '.join(gone)} in its folder cannot be found"
    raise UserError(
        f"{plans_file} was derived from other plans, and {reason}",
        fix=f"semi_nnunet preprocess -d {raw.number} without -p, "
        f"then make these plans again (semi_nnunet plan)",
    )


def record_origin(plans_file: Path, origins: Mapping[str, Any]) -> None:
    """Record from which fingerprint new plans were made.

    Args:
        plans_file: the new plans.
        origins: those of the other plans, from before.
    """
    origin = {**describe_origin(plans_file.parent), "file": sha256_of_file(plans_file)}
    record = plans_file.parent / PLANNED_FROM
    write_json(record, optional_json(record) | {ORIGINS: {**origins, plans_file.stem: origin}})


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield which values of each configuration differ between plans.

    >>> before = {"configurations": {"2d": {"batch_size": 7, "spacing": [1, 1]}}}
    >>> after = {"configurations": {"2d": {"batch_size": 12, "spacing": [1, 1]}}}
    >>> [*describe_changes(before, after), *describe_changes({}, after)]
    ['2d batch_size 7, now 12']
    """
    first, second = before.get("configurations", {}), after["configurations"]
    for name in first:
        earlier, later = first[name], second.get(name, {})
        for key, old in earlier.items():
            new = later.get(key)
            if old == new or key == "median_image_size_in_voxels":
                continue
            yield f"{name} network" if key == "architecture" else f"{name} {key} {old}, now {new}"


def select_configurations(
    plans: Mapping[str, Any], configurations: Sequence[str] | None
) -> list[str]:
    """Return the configurations to preprocess, one for each kind of data.

    A cascade's second stage, for example, uses the data of 3d_fullres.

    Args:
        configurations: names; None selects nnU-Net's three, as far as the plans have them, or all
            if they have none of these.

    Raises:
        UserError: the plans lack one.
    """
    available = plans["configurations"]
    if configurations is None:
        configurations = [name for name in CONFIGURATIONS if name in available] or [*available]
    if unknown := [name for name in configurations if name not in available]:
        raise UserError(
            f"the plans have no configuration {', '.join(unknown)}",
            fix=f"choose from {', '.join(available)}",
        )
    manager = PlansManager(dict(plans))
    identifiers = {name: manager.get_configuration(name).data_identifier for name in available}
    owners: dict[str, str] = {}  # a configuration comes after its parent
    for name, identifier in identifiers.items():
        owners.setdefault(identifier, name)
    return list(dict.fromkeys(owners[identifiers[name]] for name in configurations))


# ---- do existing plans fit? ----


def read_existing_plans(path: Path, raw: RawDataset) -> dict[str, Any]:
    """Return the plans in a file, {} if it does not exist.

    Raises:
        UserError: with every reason why the plans do not fit the data set or this nnU-Net.
    """
    if not path.is_file():
        return {}
    plans = read_json(path)
    raise_if_any(f"{path} cannot be used:", find_existing_plans_problems(plans, raw, path.name))
    return dict(plans)


def find_existing_plans_problems(plans: Any, raw: RawDataset, file_name: str) -> Iterator[Problem]:
    """Yield every reason why plans do not fit a data set or this nnU-Net."""
    fix = f"move it away and run semi_nnunet preprocess -d {raw.number}, which plans again"
    if not isinstance(plans, dict):
        yield Problem(file_name, f"must be an object, got {type(plans).__name__}", fix)
        return
    missing = [key for key in REQUIRED_KEYS if key not in plans]
    missing += [] if any(key in plans for key in INTENSITIES) else INTENSITIES[:1]
    if missing:
        defect = f"must have all keys of nnU-Net's planner, but lacks {', '.join(missing)}"
        yield Problem(file_name, f"{defect}: another version wrote it", fix)
        return
    if (name := file_name.removesuffix(".json")) != plans["plans_name"]:
        defect = f"'plans_name' must be {name!r}, got {plans['plans_name']!r}"
        yield Problem(file_name, defect, f'write "plans_name": "{name}" into it, or {fix}')
    if plans["dataset_name"] != raw.folder.name:
        defect = f"must be of {raw.folder.name}, got plans of {plans['dataset_name']}"
        yield Problem(file_name, defect, f"{fix}, or nnUNetv2_move_plans_between_datasets")
    try:
        recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    except Exception as error:  # nnU-Net may raise anything for an unknown name
        defect = f"must name a reader of this nnU-Net, got {plans['image_reader_writer']!r}"
        yield Problem(file_name, f"{defect} ({shorten_reason(error)})", fix)
    manager = PlansManager(dict(plans))
    for name in plans["configurations"]:
        try:
            channels = len(manager.get_configuration(name).normalization_schemes)
        except (
            Exception
        ) as error:  # nnU-Net may raise anything for a configuration it did not write
            reason = f"{type(error).__name__}: {shorten_reason(error)}"
            defect = f"its configuration {name} does not fit this nnU-Net ({reason})"
            yield Problem(file_name, defect, fix)
            continue
        if channels != len(raw.channels):
            defect = f"its configuration {name} must have {len(raw.channels)} channels, as "
            yield Problem(file_name, f"{defect}dataset.json declares, got {channels}", fix)


def get_default_plans_name(planner: str) -> str:
    """Return the name under which one of nnU-Net's planners writes its plans.

    >>> get_default_plans_name("ExperimentPlanner")
    'nnUNetPlans'

    Raises:
        UserError: there is no such planner.
    """
    folder = os.path.join(nnunetv2.__path__[0], "experiment_planning")
    planner_class = recursive_find_python_class(folder, planner, "nnunetv2.experiment_planning")
    parameters = {} if planner_class is None else inspect.signature(planner_class).parameters
    if "plans_name" not in parameters:
        raise UserError(
            f"nnU-Net has no planner {planner!r}", fix="for example -pl nnUNetPlannerResEncM"
        )
    return str(parameters["plans_name"].default)


def describe_origin(preprocessed: Path) -> dict[str, str]:
    """Return checksums of what plans are made from: the fingerprint, and keys of dataset.json.

    The checksum of a missing fingerprint is "". The number of cases does not count, because
    ``semi_nnunet accept`` raises it and keeps plans.
    """
    fingerprint = preprocessed / FINGERPRINT_FILE
    description = optional_json(preprocessed / DATASET_JSON)
    return {
        "fingerprint": sha256_of_file(fingerprint) if fingerprint.is_file() else "",
        "description": sha256_of_json({key: description.get(key) for key in PLANNING_KEYS}),
    }


def is_up_to_date(plans: Mapping[str, Any], path: Path) -> bool:
    """Return whether plans come from the present fingerprint and dataset.json.

    Plans of earlier versions, which have no record of it, count as up to date.

    Args:
        plans: their content; derived plans hold the record themselves.
        path: of the file; the record of other plans is in its folder.
    """
    preprocessed, origin = path.parent, describe_origin(path.parent)
    if is_derived(plans):
        planned = plans.get("semi_planned", {})
        return all(planned.get(key) in (None, digest) for key, digest in origin.items())
    recorded = optional_json(preprocessed / PLANNED_FROM).get(ORIGINS, {}).get(path.stem)
    if not recorded or all(recorded[key] == digest for key, digest in origin.items()):
        return True
    if recorded["description"] != origin["description"]:
        return False
    # after our record, nnU-Net's own command may have planned
    is_other_file = recorded["file"] != sha256_of_file(path)
    return is_other_file and are_of_fingerprint(plans, preprocessed)


def are_of_fingerprint(plans: Mapping[str, Any], preprocessed: Path) -> bool:
    """Return whether the values that nnU-Net's planner copies are those of the fingerprint."""
    fingerprint = optional_json(preprocessed / FINGERPRINT_FILE)
    try:
        order = plans["transpose_forward"]
        spacing = np.median(fingerprint["spacings"], 0)[order]
        shape = np.median(fingerprint["shapes_after_crop"], 0)[order]
        return (
            fingerprint[INTENSITIES[0]] in [plans.get(key) for key in INTENSITIES]
            and np.allclose(spacing, plans["original_median_spacing_after_transp"])
            and np.allclose(shape, plans["original_median_shape_after_transp"], atol=0.5)
        )
    except (KeyError, IndexError, TypeError, ValueError):  # of another version
        return False


def collect_origins(preprocessed: Path) -> dict[str, dict[str, str]]:
    """Return plans -> the checksums of their origin and of their file, before it changes.

    Plans without a record get the present origin if they were made from it. Plans from elsewhere,
    such as another data set, get none, and derived plans hold their own.
    """
    record = optional_json(preprocessed / PLANNED_FROM)
    origins = {k: v for k, v in record.get(ORIGINS, {}).items() if isinstance(v, dict)}
    origin = describe_origin(preprocessed)
    for path in sorted(preprocessed.glob("*.json")):
        try:
            plans = read_json(path)
            is_made_by_nnunet = is_plans(plans) and not is_derived(plans)
        except (UserError, KeyError):
            continue  # a command that uses a damaged file, or one of another version, names it
        if path.stem in origins or not is_made_by_nnunet:
            continue
        if not origin["fingerprint"] or are_of_fingerprint(plans, preprocessed):
            origins[path.stem] = {**origin, "file": sha256_of_file(path)}
    return origins


def is_derived(plans: Mapping[str, Any]) -> bool:
    """Return whether plans were made from others: they say so, or use data of another name."""
    if plans.get("semi_planned", {}).get("from", plans["plans_name"]) != plans["plans_name"]:
        return True
    if plans["plans_name"] == get_default_plans_name(plans["experiment_planner_used"]):
        return False  # the residual encoders' planners use the data of nnUNetPlans
    identifiers = [c.get("data_identifier") for c in plans["configurations"].values()]
    prefix = f"{plans['plans_name']}_"
    return any(identifier and not identifier.startswith(prefix) for identifier in identifiers)


def fingerprint_fits(raw_dataset: Path | RawDataset, preprocessed: Path) -> bool:
    """Return whether nnU-Net's fingerprint was made from the present labelled cases.

    It was not if their number or dataset.json has changed, or if a preprocessed labelled case has
    lost its label: the hidden label would still affect the intensities in the plans. Cases that
    ``semi_nnunet accept`` added later do not count, because it keeps the plans.
    """
    fingerprint, description = preprocessed / FINGERPRINT_FILE, preprocessed / DATASET_JSON
    if not (fingerprint.is_file() and description.is_file()):
        return False
    raw = RawDataset.of(raw_dataset)
    record = optional_json(preprocessed / PLANNED_FROM)
    is_current = record.get("fingerprint") == sha256_of_file(fingerprint)
    accepted = len(record.get("accepted", ())) if is_current else 0  # semi_nnunet accept
    described = len(optional_json(fingerprint).get("spacings", ())) + accepted
    same_number = described == raw.content["numTraining"]
    old_keys, new_keys = (
        without_own_keys(content) for content in (read_json(description), raw.content)
    )
    hidden = list_preprocessed(preprocessed) - raw.labelled
    if is_current and record.get("cases"):  # only these are in the fingerprint
        hidden &= {*record["cases"]}
    return same_number and old_keys == new_keys and not hidden


def list_preprocessed(preprocessed: Path) -> set[str]:
    """Return the cases that any configuration has preprocessed with their label."""
    names = (path.name for path in preprocessed.glob("*.manifest.jsonl"))
    folders = [preprocessed / name.removesuffix(".manifest.jsonl") for name in names]
    return {
        case
        for folder in folders
        if not folder.name.endswith("_unlabeled")
        for case in Manifest(folder).present()
    }
