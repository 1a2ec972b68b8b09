"""The content of ``plans["semi"]``, and plans with another size, spacing, patch or network."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.planning.architecture import replace_architecture
from semi_nnunet.planning.budget import (
    CPU_SIZES,
    KeepsLabels,
    NetworkSize,
    accept_any_spacing,
    find_size_within,
    fit_to_size,
)
from semi_nnunet.planning.properties import build_settings_resolver
from semi_nnunet.planning.topology import plan_for_spacing, replace_patch, spell_spacing
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.schema import Resolved, find_topic
from semi_nnunet.util.errors import Problem, UserError, raise_if_any

Trainers = Mapping[str, type[SemiSettings]]
EVERY_TRAINER = "every trainer"


@dataclasses.dataclass(frozen=True)
class PlannedRow:
    """A setting of a trainer and configuration.

    Args:
        trainer: class name, or :data:`EVERY_TRAINER` if all trainers have the same value.
        configuration: such as "2d".
        setting: name of the setting.
        value: in its own type.
        reason: of the value, or the layer in which the user gave it.
        topic: one of :data:`~semi_nnunet.settings.common.TOPICS`.
        is_given: whether the user gave the value.
        is_planned: whether a rule computes the value if the user gives none.
    """

    trainer: str
    configuration: str
    setting: str
    value: Any
    reason: str
    topic: str
    is_given: bool
    is_planned: bool


def find_budget_sizes(
    plans: Mapping[str, Any], dataset_json: Mapping[str, Any], budget: str, device: torch.device
) -> dict[str, NetworkSize]:
    """Return the largest size of each configuration's network and input within a budget.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        budget: "cpu", or a number of seconds per supervised step.
        device: on which the seconds are measured.

    Raises:
        UserError: the budget is invalid.
    """
    if budget != "cpu" and not _is_positive_number(budget):
        raise UserError(f"--budget must be cpu or a number of seconds per step, got {budget!r}")
    manager = PlansManager(copy.deepcopy(dict(plans)))
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    sizes = {}
    for key, configuration in list_own_configurations(plans).items():
        if budget == "cpu":
            sizes[key] = CPU_SIZES[len(configuration["patch_size"])]
        else:
            channels = determine_num_input_channels(manager, key, dict(dataset_json))
            sizes[key] = find_size_within(configuration, float(budget), channels, heads, device)
    return sizes


def list_own_configurations(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configurations that do not inherit from another."""
    configurations = plans["configurations"].items()
    return {key: value for key, value in configurations if "inherits_from" not in value}


def apply_budget(
    plans: Mapping[str, Any],
    sizes: Mapping[str, NetworkSize],
    name: str,
    keeps_labels: KeepsLabels = accept_any_spacing,
) -> dict[str, Any]:
    """Return a copy of ``plans`` with networks and inputs of at most these sizes.

    Args:
        plans: nnU-Net's plans.
        sizes: see :func:`find_budget_sizes`.
        name: of the new plans.
        keeps_labels: whether the labels survive a spacing; images get no coarser than that.
    """
    shrunken = copy.deepcopy(dict(plans))
    for key, configuration in list_own_configurations(plans).items():
        smaller = fit_to_size(configuration, sizes[key], keeps_labels)
        shrunken["configurations"][key] = name_resampled_data(name, key, configuration, smaller)
    shrunken["plans_name"] = name
    return shrunken


def name_resampled_data(
    name: str, key: str, original: Mapping[str, Any], configuration: dict[str, Any]
) -> dict[str, Any]:
    """Return the configuration, with a new name for its data if the spacing has changed."""
    if configuration["spacing"] != original["spacing"]:
        spacing = spell_spacing(configuration["spacing"])
        configuration["data_identifier"] = f"{name}_{key}_{spacing}"
    return configuration


def apply_spacing(
    plans: Mapping[str, Any],
    configurations: Sequence[str] | None,
    spacing: Sequence[float],
    name: str,
) -> dict[str, Any]:
    """Return a copy of ``plans`` with another spacing in every configuration with as many axes.

    Args:
        plans: nnU-Net's plans.
        configurations: to be changed; None: all.
        spacing: mm along each axis, in the order of the plans.
        name: of the new plans.

    Raises:
        UserError: no configuration has as many axes, or the spacing is invalid for one.
    """
    changed, by_name = copy.deepcopy(dict(plans)), list_own_configurations(plans)
    for key in find_configurations_by_axes("--spacing", spacing, by_name, configurations):
        resampled = plan_for_spacing(key, by_name[key], spacing)
        changed["configurations"][key] = name_resampled_data(name, key, by_name[key], resampled)
    return changed


def find_configurations_by_axes(
    option: str,
    numbers: Sequence[float],
    by_name: Mapping[str, Any],
    configurations: Sequence[str] | None,
) -> list[str]:
    """Return the names of the configurations that have as many axes as an option has numbers.

    Raises:
        UserError: there are none.
    """
    matching = [
        key
        for key, configuration in by_name.items()
        if len(configuration["patch_size"]) == len(numbers) and key in (configurations or by_name)
    ]
    if not matching:
        axes = ", ".join(f"{key}: {len(value['patch_size'])}" for key, value in by_name.items())
        raise UserError(
            f"{option} must have a number for each axis of a configuration ({axes}), got "
            f"{list(numbers)}",
            fix="give as many, or choose the configuration by -c",
        )
    return matching


def apply_patch(
    plans: Mapping[str, Any], configurations: Sequence[str] | None, patch: Sequence[int]
) -> dict[str, Any]:
    """Return a copy of ``plans`` with another patch in every configuration with as many axes.

    Args:
        plans: nnU-Net's plans.
        configurations: to be changed; None: all.
        patch: edges in voxels, in the order of the plans.

    Raises:
        UserError: no configuration has as many axes, or the patch is invalid for one.
    """
    changed, by_name = copy.deepcopy(dict(plans)), list_own_configurations(plans)
    for key in find_configurations_by_axes("--patch", patch, by_name, configurations):
        changed["configurations"][key] = replace_patch(key, by_name[key], patch)
    return changed


def replace_patch_sizes(
    plans: Mapping[str, Any], sizes: Mapping[str, NetworkSize], patch: Sequence[int]
) -> dict[str, NetworkSize]:
    """Return the sizes of a budget, with the given patch where the number of axes matches."""
    by_name, voxels = list_own_configurations(plans), math.prod(patch)
    return {
        key: dataclasses.replace(size, patch_voxels=voxels)
        if len(by_name[key]["patch_size"]) == len(patch)
        else size
        for key, size in sizes.items()
    }


def reuse_measured_sizes(
    earlier: Mapping[str, Any], plans: Mapping[str, Any], options: Mapping[str, str]
) -> dict[str, NetworkSize] | None:
    """Return the sizes in earlier plans of the same options and origin, or None.

    Measured again, they could differ, and existing trainings would no longer fit the plans.

    Args:
        earlier: plans of the same name.
        plans: from which the sizes would be measured.
        options: of this call, as stored in ``semi_planned``.
    """
    planned = earlier.get("semi_planned", {})
    sizes = planned.get("sizes", {})
    matches = planned.get("from") == plans["plans_name"]
    matches = matches and all(planned.get(key) == value for key, value in options.items())
    if not matches or sizes.keys() != list_own_configurations(plans).keys():
        return None
    return {key: NetworkSize(**size) for key, size in sizes.items()}


def apply_architecture(
    plans: dict[str, Any],
    configurations: Sequence[str] | None,
    name: str,
    encoder: str,
    weights: str | None,
) -> list[str]:
    """Put another network into plans; return the names of the changed configurations.

    Args:
        plans: changed in place.
        configurations: to be changed; None: all of a suitable dimension.
        name, encoder, weights: see :func:`~semi_nnunet.planning.architecture.replace_architecture`.

    Raises:
        UserError: the network does not exist, or not for these configurations.
    """
    changed = []
    for key, configuration in plans["configurations"].items():
        if "architecture" in configuration and (not configurations or key in configurations):
            replaced = replace_architecture(configuration, name, encoder, weights)
            if replaced is not None:
                plans["configurations"][key] = replaced
                changed.append(key)
    for key, configuration in plans["configurations"].items():  # a cascade's second stage
        if "architecture" not in configuration and configuration.get("inherits_from") in changed:
            changed.append(key)
    if not changed:
        names = ", ".join(configurations or plans["configurations"])
        raise UserError(
            f"--architecture {name} does not support images of the dimension of {names}",
            fix="smp.* are for 2d, primus.* for 3d, monai.* for both",
        )
    return changed


def _is_positive_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def plan_semi(
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    preprocessed: Path,
    trainers: Trainers,
    user_layers: Mapping[str, Any],
    origin: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[PlannedRow]]:
    """Plan the content of ``plans["semi"]``.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        preprocessed: its preprocessed folder.
        trainers: trainer name -> its settings class.
        user_layers: see :func:`~semi_nnunet.settings.assignments.parse_assignments`; they override
            the rules.
        origin: the plans that these are derived from, see :func:`collect_properties`.

    Returns:
        The content of ``plans["semi"]``, and every value with its reason.

    Raises:
        UserError: unknown trainers or settings, values out of range.
    """
    unknown = [key for key in user_layers if key.endswith("Trainer") and key not in trainers]
    if unknown:
        raise UserError(
            f"there is no trainer {', '.join(unknown)}", fix=f"choose from {', '.join(trainers)}"
        )
    semi: dict[str, Any] = copy.deepcopy(dict(user_layers))
    rows: list[PlannedRow] = []
    unplanned = {**plans, "semi": user_layers, "semi_planned": {}}
    common = {field.name for field in dataclasses.fields(SemiSettings)}
    resolve = build_settings_resolver(unplanned, dataset_json, preprocessed, trainers, origin)
    problems = list[Problem]()
    for configuration, trainer in itertools.product(plans["configurations"], trainers):
        try:
            resolve(trainer, configuration)
        except UserError as error:
            if not error.problems:
                raise
            problems += error.problems
    raise_if_any("Some settings are wrong:", dict.fromkeys(problems))
    for configuration in plans["configurations"]:
        resolved = {trainer: resolve(trainer, configuration) for trainer in trainers}
        shared = {name for name in common if _is_shared(name, list(resolved.values()))}
        for trainer, result in resolved.items():
            for name, value in _planned_values(result):
                section = semi if name in shared else semi.setdefault(trainer, {})
                section.setdefault(configuration, {})[name] = value
            rows += _list_rows(trainer, configuration, result, shared)
    return semi, rows


def _is_shared(name: str, resolved: Sequence[Resolved]) -> bool:
    """Return whether all trainers have the same value of a setting for the same reason.

    They do not if the user gave one of them its own value, or another value that the rule uses.
    """
    values = [(getattr(result.settings, name), result.reasons[name]) for result in resolved]
    return all(value == values[0] for value in values)


def _planned_values(resolved: Resolved) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(resolved.settings):
        if "rule" in field.metadata and field.name not in resolved.user_given:
            yield field.name, getattr(resolved.settings, field.name)


def _list_rows(
    trainer: str, configuration: str, resolved: Resolved, shared: set[str]
) -> Iterator[PlannedRow]:
    for field in dataclasses.fields(resolved.settings):
        name = field.name
        yield PlannedRow(
            trainer=EVERY_TRAINER if name in shared else trainer,
            configuration=configuration,
            setting=name,
            value=getattr(resolved.settings, name),
            reason=resolved.reasons[name],
            topic=find_topic(type(resolved.settings), name),
            is_given=name in resolved.user_given,
            is_planned="rule" in field.metadata,
        )
