"""Write ``plans["semi"]``: each planned setting of each trainer and configuration, with reason."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.planning.architecture import with_architecture
from semi_nnunet.planning.budget import (
    CPU_SIZES,
    KeepsLabels,
    Size,
    accept_any_spacing,
    find_size_within,
    fit_to_size,
)
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.planning.topology import plan_for_spacing, replace_patch, spell_spacing
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.schema import Resolved, topic_of
from semi_nnunet.util.errors import UserError

Trainers = Mapping[str, type[SemiSettings]]
EVERY_TRAINER = "every trainer"


@dataclasses.dataclass(frozen=True)
class PlannedRow:
    """One setting of one configuration.

    Args:
        trainer: class name, or :data:`EVERY_TRAINER` where all trainers have the same.
        configuration: such as "2d".
        setting: its name.
        value: in its own type.
        reason: of the value, or where a person gave it.
        topic: that it belongs to, one of :data:`~semi_nnunet.settings.common.TOPICS`.
        is_given: a person gave it.
        is_planned: a rule computes it, unless it is given.
    """

    trainer: str
    configuration: str
    setting: str
    value: Any
    reason: str
    topic: str
    is_given: bool
    is_planned: bool


def sizes_of_budget(
    plans: Mapping[str, Any], dataset_json: Mapping[str, Any], budget: str, device: torch.device
) -> dict[str, Size]:
    """How large each configuration's network and input may be.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        budget: "cpu", or a number of seconds per supervised step.
        device: to measure the seconds on.

    Raises:
        UserError: the budget is neither.
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
    """Those that do not inherit from another."""
    every = plans["configurations"].items()
    return {key: one for key, one in every if "inherits_from" not in one}


def apply_budget(
    plans: Mapping[str, Any],
    sizes: Mapping[str, Size],
    name: str,
    keeps_labels: KeepsLabels = accept_any_spacing,
) -> dict[str, Any]:
    """A copy of ``plans`` with networks and inputs of at most these sizes.

    Args:
        plans: nnU-Net's plans.
        sizes: see :func:`sizes_of_budget`.
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
    name: str, key: str, before: Mapping[str, Any], configuration: dict[str, Any]
) -> dict[str, Any]:
    """The configuration; data of another spacing than before is named after it and the plans."""
    if configuration["spacing"] != before["spacing"]:
        spacing = spell_spacing(configuration["spacing"])
        configuration["data_identifier"] = f"{name}_{key}_{spacing}"
    return configuration


def apply_spacing(
    plans: Mapping[str, Any],
    configurations: Sequence[str] | None,
    spacing: Sequence[float],
    name: str,
) -> dict[str, Any]:
    """A copy of ``plans`` with another spacing in every configuration that has as many axes.

    Args:
        plans: nnU-Net's plans.
        configurations: only these.
        spacing: mm along each axis, in the order of the plans.
        name: of the new plans.

    Raises:
        UserError: none has as many axes, or the spacing does not suit one.
    """
    changed, own = copy.deepcopy(dict(plans)), list_own_configurations(plans)
    for key in find_configurations_by_axes("--spacing", spacing, own, configurations):
        other = plan_for_spacing(key, own[key], spacing)
        changed["configurations"][key] = name_resampled_data(name, key, own[key], other)
    return changed


def find_configurations_by_axes(
    option: str,
    given: Sequence[float],
    own: Mapping[str, Any],
    configurations: Sequence[str] | None,
) -> list[str]:
    """The configurations that have as many axes as ``option`` has numbers.

    Raises:
        UserError: there are none.
    """
    found = [
        key
        for key, configuration in own.items()
        if len(configuration["patch_size"]) == len(given) and key in (configurations or own)
    ]
    if not found:
        axes = ", ".join(f"{key}: {len(one['patch_size'])}" for key, one in own.items())
        raise UserError(
            f"{option} must have a number for each axis of a configuration ({axes}), got "
            f"{list(given)}",
            fix="give as many, or choose the configuration by -c",
        )
    return found


def apply_patch(
    plans: Mapping[str, Any], configurations: Sequence[str] | None, patch: Sequence[int]
) -> dict[str, Any]:
    """A copy of ``plans`` with another patch in every configuration that has as many axes.

    Args:
        plans: nnU-Net's plans.
        configurations: only these.
        patch: edges in voxels, in the order of the plans.

    Raises:
        UserError: none has as many axes, or the patch does not suit one.
    """
    changed, own = copy.deepcopy(dict(plans)), list_own_configurations(plans)
    for key in find_configurations_by_axes("--patch", patch, own, configurations):
        changed["configurations"][key] = replace_patch(key, own[key], patch)
    return changed


def sizes_for_patch(
    plans: Mapping[str, Any], sizes: Mapping[str, Size], patch: Sequence[int]
) -> dict[str, Size]:
    """The sizes of a budget, of which those with as many axes have a patch that is given."""
    own, voxels = list_own_configurations(plans), math.prod(patch)
    return {
        key: dataclasses.replace(size, patch_voxels=voxels)
        if len(own[key]["patch_size"]) == len(patch)
        else size
        for key, size in sizes.items()
    }


def sizes_measured_before(
    earlier: Mapping[str, Any], plans: Mapping[str, Any], asked: Mapping[str, str]
) -> dict[str, Size] | None:
    """The sizes of plans that were made for what is asked, from the same plans; else None.

    Measured anew, they could be others, and what was trained with them would not fit any more.
    """
    planned = earlier.get("semi_planned", {})
    sizes = planned.get("sizes", {})
    same = planned.get("from") == plans["plans_name"]
    same = same and all(planned.get(key) == value for key, value in asked.items())
    if not same or sizes.keys() != list_own_configurations(plans).keys():
        return None
    return {key: Size(**size) for key, size in sizes.items()}


def apply_architecture(
    plans: dict[str, Any],
    configurations: Sequence[str] | None,
    name: str,
    encoder: str,
    weights: str | None,
) -> list[str]:
    """Put another network into plans; returns the configurations that have it now.

    Args:
        plans: to be changed.
        configurations: which; None: all that the network is for.
        name, encoder, weights: see :func:`~semi_nnunet.planning.architecture.with_architecture`.

    Raises:
        UserError: there is no such network, or it is for none of them.
    """
    changed = []
    for key, configuration in plans["configurations"].items():
        if "architecture" in configuration and (not configurations or key in configurations):
            other = with_architecture(configuration, name, encoder, weights)
            if other is not None:
                plans["configurations"][key] = other
                changed.append(key)
    for key, configuration in plans["configurations"].items():  # a cascade's second stage
        if "architecture" not in configuration and configuration.get("inherits_from") in changed:
            changed.append(key)
    if not changed:
        where = ", ".join(configurations or plans["configurations"])
        raise UserError(
            f"--architecture {name} is not for images of the dimension of {where}",
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
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], list[PlannedRow]]:
    """Work out ``plans["semi"]``.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        preprocessed: its preprocessed folder.
        trainers: trainer name -> its settings class.
        given: the layers of :func:`~semi_nnunet.settings.assignments.parse_assignments`; they win
            over the rules.

    Returns:
        The content of ``plans["semi"]``, and every value with its reason.

    Raises:
        UserError: unknown trainers or settings, values out of range.
    """
    unknown = [key for key in given if key.endswith("Trainer") and key not in trainers]
    if unknown:
        raise UserError(
            f"there is no trainer {', '.join(unknown)}", fix=f"choose from {', '.join(trainers)}"
        )
    semi: dict[str, Any] = copy.deepcopy(dict(given))
    rows: list[PlannedRow] = []
    asked = {**plans, "semi": given, "semi_planned": {}}
    common = {field.name for field in dataclasses.fields(SemiSettings)}
    for configuration in plans["configurations"]:
        properties = collect_properties(plans, configuration, dataset_json, preprocessed)
        resolved = {
            trainer: resolve_settings(
                settings_class, trainer, configuration, asked, properties, trainers
            )
            for trainer, settings_class in trainers.items()
        }
        shared = {name for name in common if _is_shared(name, list(resolved.values()))}
        for trainer, result in resolved.items():
            for name, value in _planned_values(result):
                section = semi if name in shared else semi.setdefault(trainer, {})
                section.setdefault(configuration, {})[name] = value
            rows += _rows(trainer, configuration, result, shared)
    return semi, rows


def _is_shared(name: str, resolved: Sequence[Resolved]) -> bool:
    """Whether all trainers have the same value of a setting for the same reason.

    Not so if one of them was given its own, or another value that the rule depends on.
    """
    first = resolved[0]
    return all(
        getattr(one.settings, name) == getattr(first.settings, name)
        and one.reasons[name] == first.reasons[name]
        for one in resolved
    )


def _planned_values(resolved: Resolved) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(resolved.settings):
        if "rule" in field.metadata and not resolved.reasons[field.name].startswith("given in"):
            yield field.name, getattr(resolved.settings, field.name)


def _rows(
    trainer: str, configuration: str, resolved: Resolved, shared: set[str]
) -> Iterator[PlannedRow]:
    for field in dataclasses.fields(resolved.settings):
        name = field.name
        reason = resolved.reasons[name]
        yield PlannedRow(
            trainer=EVERY_TRAINER if name in shared else trainer,
            configuration=configuration,
            setting=name,
            value=getattr(resolved.settings, name),
            reason=reason,
            topic=topic_of(type(resolved.settings), name),
            is_given=reason.startswith("given in"),
            is_planned="rule" in field.metadata,
        )
