"""Plans and the fingerprint that are there before a data set is planned: do they fit it?

nnU-Net takes what it finds: plans that were copied from another data set, or that another version
of it wrote, end in a traceback much later, or train on wrongly preprocessed images.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data import annotated_classes, patients
from semi_nnunet.data.file_bytes import short_reason
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.raw_description import UNLABELLED_DOMAIN, RawDataset
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json

NEEDED = (
    "dataset_name", "plans_name", "configurations", "transpose_forward", "image_reader_writer",
    "experiment_planner_used",
)  # fmt: skip
INTENSITIES = (  # of the foreground: its name now, and in nnU-Net 2.0
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
)


def plans_there(path: Path, raw: RawDataset) -> dict[str, Any]:
    """The plans in a file, {} if it is not there.

    Args:
        path: of the plans.
        raw: the data set that they are meant for.

    Raises:
        UserError: naming all for which they cannot be of this data set and this nnU-Net.
    """
    if not path.is_file():
        return {}
    plans = read_json(path)
    raise_if_any(f"{path} cannot be used:", plans_problems(plans, raw, path.name))
    return dict(plans)


def plans_problems(plans: Any, raw: RawDataset, where: str) -> Iterator[Problem]:
    """What is wrong with plans for a data set; arguments as of :func:`plans_there`."""
    anew = f"move it away, then semi_nnunet preprocess -d {raw.number} plans anew"
    if not isinstance(plans, dict):
        yield Problem(where, f"must be an object, got {type(plans).__name__}", anew)
        return
    missing = [key for key in NEEDED if key not in plans]
    missing += [] if any(key in plans for key in INTENSITIES) else INTENSITIES[:1]
    if missing:
        what = f"must have what nnU-Net's planner writes, but lacks {', '.join(missing)}"
        yield Problem(where, f"{what}: another version wrote it", anew)
        return
    if plans["dataset_name"] != raw.folder.name:
        what = f"must be of {raw.folder.name}, got plans of {plans['dataset_name']}"
        yield Problem(where, what, f"{anew}, or nnUNetv2_move_plans_between_datasets")
    try:
        recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    except Exception as error:  # whatever nnU-Net makes of a strange name
        what = f"must name a reader of this nnU-Net, got {plans['image_reader_writer']!r}"
        yield Problem(where, f"{what} ({short_reason(error)})", anew)
    manager = PlansManager(dict(plans))
    for name in plans["configurations"]:
        try:
            found = len(manager.get_configuration(name).normalization_schemes)
        except Exception as error:  # whatever nnU-Net makes of what it did not write
            reason = f"{type(error).__name__}: {short_reason(error)}"
            what = f"its configuration {name} is none of this nnU-Net ({reason})"
            yield Problem(where, what, anew)
            continue
        if found != len(raw.channels):
            what = f"its configuration {name} must be of the {len(raw.channels)} channels that "
            yield Problem(where, f"{what}dataset.json declares, got {found}", anew)


def default_plans_name(planner: str) -> str:
    """The name under which a planner of nnU-Net's writes its plans.

    Raises:
        UserError: there is no such planner.
    """
    folder = os.path.join(nnunetv2.__path__[0], "experiment_planning")
    found = recursive_find_python_class(folder, planner, "nnunetv2.experiment_planning")
    parameters = {} if found is None else inspect.signature(found).parameters
    if "plans_name" not in parameters:
        raise UserError(
            f"nnU-Net has no planner {planner!r}", fix="for example -pl nnUNetPlannerResEncM"
        )
    return str(parameters["plans_name"].default)


def is_derived(plans: Mapping[str, Any]) -> bool:
    """Whether plans were made from others: they say so, or use the data of another name."""
    if plans.get("semi_planned", {}).get("from", plans["plans_name"]) != plans["plans_name"]:
        return True
    if plans["plans_name"] == default_plans_name(plans["experiment_planner_used"]):
        return False  # the residual encoders' planners use the data of nnUNetPlans
    identifiers = [c.get("data_identifier") for c in plans["configurations"].values()]
    own = f"{plans['plans_name']}_"
    return any(identifier and not identifier.startswith(own) for identifier in identifiers)


def fingerprint_fits(raw_dataset: Path | RawDataset, preprocessed: Path) -> bool:
    """Whether nnU-Net's fingerprint is of the labelled cases there are now.

    It is not if their number or dataset.json has changed, or if a case that was labelled is none
    any more: its hidden label would live on in the intensities of the plans.
    """
    fingerprint, description = (
        preprocessed / name for name in ("dataset_fingerprint.json", "dataset.json")
    )
    if not (fingerprint.is_file() and description.is_file()):
        return False
    raw = RawDataset.of(raw_dataset)
    known = len(read_json(fingerprint)["spacings"])
    same_cases = preprocessed_as_labelled(preprocessed) <= raw.labelled
    same_description = of_plans(read_json(description)) == of_plans(raw.content)
    return bool(known == raw.content["numTraining"] and same_description and same_cases)


def of_plans(description: Mapping[str, Any]) -> dict[str, Any]:
    """What of dataset.json matters to plans; this package's own keys do not."""
    ours = (patients.KEY, UNLABELLED_DOMAIN, annotated_classes.KEY)
    return {key: value for key, value in description.items() if key not in ours}


def preprocessed_as_labelled(preprocessed: Path) -> set[str]:
    """Every case that some configuration has preprocessed with its label."""
    names = (path.name for path in preprocessed.glob("*.manifest.jsonl"))
    folders = [preprocessed / name.removesuffix(".manifest.jsonl") for name in names]
    return {
        case
        for folder in folders
        if not folder.name.endswith("_unlabeled")
        for case in Manifest(folder).present()
    }
