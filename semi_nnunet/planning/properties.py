"""Collect what the rules need to know, and resolve a trainer's settings from plans and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.fingerprint import foreground_slices, intensity_shift, told_by_place
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import given_before, given_settings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import OURS, Resolved, resolve, values_of_variant


def collect_properties(
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    preprocessed: Path | None,
) -> DatasetProperties:
    """Look up what the planning rules need to know of a data set and configuration.

    Args:
        plans: nnU-Net's plans.
        configuration: for example "2d".
        dataset_json: nnU-Net's data set description.
        preprocessed: the data set's preprocessed folder; None, or not there (as when predicting):
            no cases are known.
    """
    plans_manager = PlansManager(dict(plans))
    manager = plans_manager.get_configuration(configuration)
    labels = plans_manager.get_label_manager(dict(dataset_json))
    labelled, unlabelled = {}, {}
    if preprocessed is not None:
        labelled = Manifest(preprocessed / manager.data_identifier).present()
        unlabelled = Manifest(unlabelled_folder(preprocessed, manager.data_identifier)).present()
    patch = tuple(int(size) for size in manager.patch_size)
    median = tuple(float(size) for size in manager.median_image_size_in_voxels)[-len(patch) :]
    alike = None
    if not labels.has_regions and (pair := told_by_place(labelled.values(), len(patch))):
        names = {value: name for name, value in dataset_json["labels"].items()}
        alike = names[pair[0]], names[pair[1]]
    return DatasetProperties(
        labelled_cases=int(dataset_json.get("numTraining", len(labelled))),
        unlabelled_cases=len(unlabelled),
        batch_size=int(manager.batch_size),
        patch_size=patch,
        median_shape=median,
        intensity_shift=intensity_shift(labelled.values(), unlabelled.values()),
        foreground_slices=foreground_slices(labelled.values()),
        foreground_classes=labels.num_segmentation_heads - (0 if labels.has_regions else 1),
        told_by_place=alike,
    )


def resolve_settings(
    settings_class: type[SemiSettings],
    trainer: str,
    configuration: str,
    plans: Mapping[str, Any],
    properties: DatasetProperties,
    trainers: Mapping[str, type] = MappingProxyType({}),
) -> Resolved:
    """The settings of ``trainer``: what ``plans["semi"]`` gives, the rules for the rest.

    Raises:
        UserError: unknown settings or values out of range, all of them.
    """

    def given_in(semi: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
        configurations = list(plans["configurations"])
        return given_settings(
            semi, SemiSettings, settings_class, trainer, configuration, configurations, trainers
        )

    by_people = given_in(given_before(plans))
    variant, _ = by_people.get("variant", (OURS, ""))
    of_variant = values_of_variant(settings_class, variant)
    ruled, own = (
        {field.name for field in fields(kind) if "rule" in field.metadata}
        for kind in (SemiSettings, settings_class)
    )
    written = {
        name: (value, where)
        for name, (value, where) in given_in(plans.get("semi", {})).items()
        # what was planned for all trainers, this one may have a value of its own for
        if name in by_people
        or (name not in of_variant and (name not in ruled - own or trainer in where))
    }
    found = resolve(settings_class, properties, written)
    planned = resolve(settings_class, properties, by_people)
    reasons = dict(found.reasons)
    for name, reason in reasons.items():
        if reason.startswith("given in") and name not in by_people:  # semi_nnunet plan wrote it
            same = getattr(planned.settings, name) == getattr(found.settings, name)
            reasons[name] = planned.reasons[name] if same else "planned when the data were others"
    return Resolved(found.settings, reasons)
