"""Properties of a data set for the rules, and a trainer's settings from plans and rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.preprocessing.case_facts import (
    compute_foreground_slices,
    find_lookalike_classes,
    list_partly_labelled,
)
from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.raw.layout import get_unlabelled_folder
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import (
    collect_given_settings,
    collect_user_layers,
    use_current_names,
)
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import OURS, Resolved, find_variant_values, resolve
from semi_nnunet.util.errors import UserError

NOT_FOLLOWED = "planned before you edited another setting; the rule would now give"


def collect_properties(
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    preprocessed: Path | None,
    origin: Mapping[str, Any] | None = None,
) -> DatasetProperties:
    """Collect the properties of a data set and configuration for the planning rules.

    Args:
        plans: nnU-Net's plans.
        configuration: for example "2d".
        dataset_json: nnU-Net's data set description.
        preprocessed: the data set's preprocessed folder. If it is None or does not exist (as when
            predicting), there are no preprocessed cases.
        origin: plans that these are derived from. Their cases, or those of the plans from which
            they were derived, are looked at if none is preprocessed with ``plans`` yet.
    """
    plans_manager = PlansManager(dict(plans))
    manager = plans_manager.get_configuration(configuration)
    labels = plans_manager.get_label_manager(dict(dataset_json))
    managers = [manager]
    for earlier in [] if preprocessed is None else list_origins(preprocessed, origin):
        if configuration in earlier["configurations"]:
            managers.append(PlansManager(dict(earlier)).get_configuration(configuration))
    for candidate in managers:
        labelled, unlabelled = list_preprocessed(preprocessed, candidate.data_identifier)
        if labelled:
            break
    patch = tuple(int(size) for size in manager.patch_size)
    median = tuple(float(size) for size in manager.median_image_size_in_voxels)[-len(patch) :]
    lookalikes = None
    if not labels.has_regions and (pair := find_lookalike_classes(labelled.values(), len(patch))):
        names = {value: name for name, value in dataset_json["labels"].items()}
        lookalikes = names[pair[0]], names[pair[1]]
    return DatasetProperties(
        labelled_cases=int(dataset_json.get("numTraining", len(labelled))),
        unlabelled_cases=len(unlabelled),
        batch_size=int(manager.batch_size),
        patch_size=patch,
        median_shape=median,
        foreground_slices=compute_foreground_slices(labelled.values()),
        foreground_classes=labels.num_segmentation_heads - (0 if labels.has_regions else 1),
        lookalike_classes=lookalikes,
        partly_labelled_cases=len(list_partly_labelled(labelled)),
    )


def list_preprocessed(
    preprocessed: Path | None, data_identifier: str
) -> tuple[dict[str, ManifestEntry], dict[str, ManifestEntry]]:
    """Return the labelled and the unlabelled cases whose preprocessed files exist."""
    if preprocessed is None:
        return {}, {}
    pool = get_unlabelled_folder(preprocessed, data_identifier)
    return Manifest(preprocessed / data_identifier).present(), Manifest(pool).present()


def list_origins(preprocessed: Path, plans: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return plans, those from which they were derived, and so on, as far as they can be read."""
    found, names = list[Mapping[str, Any]](), set[str | None]()
    while plans:
        found.append(plans)
        names.add(plans["plans_name"])
        name = plans.get("semi_planned", {}).get("from")
        exists = name not in names and (preprocessed / f"{name}.json").is_file()
        plans = None
        if exists:
            with suppress(UserError):  # only hints are taken from them
                plans = read_plans(preprocessed, name)
    return found


def build_settings_resolver(
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    preprocessed: Path,
    trainers: Mapping[str, type[SemiSettings]],
    origin: Mapping[str, Any] | None = None,
) -> Callable[[str, str], Resolved]:
    """Return the function that maps a trainer and a configuration to the settings it would use now.

    Args:
        plans, dataset_json, preprocessed, origin: see :func:`collect_properties`.
        trainers: trainer name -> its settings class.
    """

    @cache
    def collect(configuration: str) -> DatasetProperties:
        return collect_properties(plans, configuration, dataset_json, preprocessed, origin)

    @cache
    def resolve_trainer(trainer: str, configuration: str) -> Resolved:
        properties = collect(configuration)
        return resolve_settings(
            trainers[trainer], trainer, configuration, plans, properties, trainers
        )

    return resolve_trainer


def resolve_settings(
    settings_class: type[SemiSettings],
    trainer: str,
    configuration: str,
    plans: Mapping[str, Any],
    properties: DatasetProperties,
    trainers: Mapping[str, type] = MappingProxyType({}),
) -> Resolved:
    """Resolve the settings of a trainer: values of ``plans["semi"]``, and rules for the rest.

    Raises:
        UserError: unknown settings or values out of range, all of them.
    """

    def collect(semi: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
        configurations = list(plans["configurations"])
        return collect_given_settings(
            semi, SemiSettings, settings_class, trainer, configuration, configurations, trainers
        )

    by_user = collect(collect_user_layers(plans))
    variant, _ = by_user.get("variant", (OURS, ""))
    variant_values = find_variant_values(settings_class, variant)
    common_rules, trainer_rules = (
        {field.name for field in fields(cls) if "rule" in field.metadata}
        for cls in (SemiSettings, settings_class)
    )
    written = {
        name: (value, layer)
        for name, (value, layer) in collect(plans.get("semi", {})).items()
        # a value planned for all trainers does not replace this trainer's own default
        if name in by_user
        or (
            name not in variant_values
            and (name not in common_rules - trainer_rules or trainer in layer)
        )
    }
    resolved = resolve(settings_class, properties, written)
    planned = resolve(settings_class, properties, by_user)
    reasons, differing = dict(resolved.reasons), list[str]()
    for name in resolved.user_given.difference(by_user):  # semi_nnunet plan wrote the value
        if getattr(planned.settings, name) == getattr(resolved.settings, name):
            reasons[name] = planned.reasons[name]
        else:
            differing.append(name)
    if differing:
        given = use_current_names(plans.get("semi_planned", {}).get("given", {}))
        before_edits = resolve(settings_class, properties, collect(given)).settings
    for name in differing:
        by_rule = getattr(planned.settings, name)
        is_edited = by_rule != getattr(before_edits, name)
        reasons[name] = f"{NOT_FOLLOWED} {by_rule}" if is_edited else "planned for earlier data"
    return Resolved(resolved.settings, reasons, resolved.user_given.intersection(by_user))
