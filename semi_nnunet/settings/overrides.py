"""The user's settings: layers of ``plans["semi"]``; the more specific layer wins::

"semi": {
    "seed": 1,                                              every trainer, every configuration
    "2d": {"epochs": 100},                                  every trainer, this configuration
    "SemiMeanTeacherTrainer": {"consistency_weight": 5,     this trainer, every configuration
                               "2d": {"ema_decay": 0.99}}   this trainer, this configuration
}
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from semi_nnunet.settings.schema import find_value_problems
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.names import find_nearest

RENAMED = {"follow_trust": "follow_reliability"}  # earlier name of a setting -> current name


def use_current_names(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of layers in which renamed settings have their current names.

    >>> use_current_names({"2d": {"follow_trust": False}})
    {'2d': {'follow_reliability': False}}
    """
    current = {}
    for key, value in layers.items():
        name = RENAMED.get(key, key)
        if name == key or name not in layers:  # the current name wins over an earlier one
            is_layer = isinstance(value, Mapping)
            current[name] = use_current_names(value) if is_layer else copy.deepcopy(value)
    return current


def merge_layers(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two sets of layers; the second wins.

    >>> merge_layers({"seed": 1, "2d": {"epochs": 5}}, {"2d": {"epochs": 7}})
    {'seed': 1, '2d': {'epochs': 7}}
    """
    result = copy.deepcopy(dict(first))
    for key, value in second.items():
        are_layers = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge_layers(result[key], value) if are_layers else copy.deepcopy(value)
    return result


def collect_user_layers(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the user's settings of plans: from ``--set``, or edited in ``plans["semi"]``.

    The result of :func:`plan_semi` and what it was given are kept in ``plans["semi_planned"]``, so
    that edited values differ from it.
    """
    planned = plans.get("semi_planned", {})
    edited = _find_differences(plans.get("semi", {}), planned.get("semi", {}))
    return merge_layers(use_current_names(planned.get("given", {})), use_current_names(edited))


def drop_new_rules(
    semi: Mapping[str, Any], previous: Mapping[str, Any], user_layers: Mapping[str, Any]
) -> dict[str, Any]:
    """Drop values that neither the user nor earlier plans have: those of newer rules.

    Args:
        semi: the layers to reduce.
        previous: the layers of earlier plans.
        user_layers: the layers that the user gave.
    """
    result = {}
    for key, value in semi.items():
        if isinstance(value, Mapping):
            layer = drop_new_rules(value, previous.get(key, {}), user_layers.get(key, {}))
            if layer or not value:
                result[key] = layer
        elif key in previous or key in user_layers:
            result[key] = value
    return result


def _find_differences(current: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of ``current`` that ``previous`` does not have."""
    result: dict[str, Any] = {}
    for key, value in current.items():
        if isinstance(value, Mapping) and isinstance(previous.get(key), Mapping):
            layer = _find_differences(value, previous[key])
            if layer:
                result[key] = layer
        elif key not in previous or previous[key] != value:
            result[key] = copy.deepcopy(value)
    return result


def collect_given_settings(
    semi: Mapping[str, Any],
    common: type,
    settings_class: type,
    trainer: str,
    configuration: str,
    configurations: Sequence[str],
    trainers: Mapping[str, type] = types.MappingProxyType({}),
) -> dict[str, tuple[Any, str]]:
    """Collect the settings that ``plans["semi"]`` gives for one trainer and configuration.

    Args:
        semi: ``plans["semi"]``.
        common: the settings class shared by all trainers; the shared layers may only have its keys.
        settings_class: the trainer's own settings class.
        trainer: the trainer's class name.
        configuration: for example "3d_fullres".
        configurations: every configuration of the plans.
        trainers: name -> settings class of all trainers, to recognise misspelt sections and keys
            of other trainers.

    Returns:
        setting -> (value, the layer that gives it).

    Raises:
        UserError: unknown keys, each with the nearest valid one, and invalid values.
    """
    problems = list(_find_misspelt_trainers(semi, trainers))
    owners = {trainer: settings_class, **trainers}
    values: dict[str, tuple[Any, str]] = {}
    layers = _list_layers(semi, common, settings_class, trainer, configuration, configurations)
    for layer, layer_name, layer_class, is_section in layers:
        if not isinstance(layer, Mapping):
            problem = f"must be a JSON object, got {layer!r}"
            problems.append(Problem(layer_name, problem, "write {...} instead"))
            continue
        names = [field.name for field in dataclasses.fields(layer_class)]
        for key, value in layer.items():
            name = RENAMED.get(key, key)
            if is_section(key) or (name != key and name in layer):
                continue
            if name in names:
                values[name] = (value, layer_name)
            else:
                problems.append(_describe_unknown_key(key, layer_name, names, owners))
    if problems:
        problems += find_value_problems(settings_class, values)
        raise UserError("plans['semi'] has unknown or invalid settings:", problems)
    return values


def _find_misspelt_trainers(semi: Any, trainers: Collection[str]) -> Iterator[Problem]:
    """Yield a problem for sections that are nearly a trainer's name; ignore other packages'."""
    for key in semi if isinstance(semi, Mapping) else ():
        near = difflib.get_close_matches(key, trainers, n=1, cutoff=0.85)
        if key.endswith("Trainer") and key not in trainers and near:
            fix = f"did you mean {near[0]!r}?"
            yield Problem(f"plans['semi'][{key!r}]", "there is no such trainer", fix)


def _list_layers(
    semi: Any,
    common: type,
    settings_class: type,
    trainer: str,
    configuration: str,
    configurations: Sequence[str],
) -> Iterator[tuple[Any, str, type, Callable[[str], bool]]]:
    """Yield each layer, its name, its settings class, and a test whether a key is a section."""

    def section(layer: Any, key: str) -> Any:
        return layer.get(key, {}) if isinstance(layer, Mapping) else {}

    def is_any_section(key: str) -> bool:
        return key in configurations or key == trainer or key.endswith("Trainer")

    def is_configuration(key: str) -> bool:
        return key in configurations

    def is_never(key: str) -> bool:
        return False

    root, trainer_layer = "plans['semi']", section(semi, trainer)
    trainer_name = f"{root}[{trainer!r}]"
    innermost = section(trainer_layer, configuration)
    yield semi, root, common, is_any_section
    yield section(semi, configuration), f"{root}[{configuration!r}]", common, is_never
    yield trainer_layer, trainer_name, settings_class, is_configuration
    yield innermost, f"{trainer_name}[{configuration!r}]", settings_class, is_never


def _describe_unknown_key(
    key: str, layer: str, names: Sequence[str], trainers: Mapping[str, type]
) -> Problem:
    owners = [
        name
        for name, settings_class in trainers.items()
        if key in (field.name for field in dataclasses.fields(settings_class))
    ]
    if owners:
        return Problem(
            f"{layer}[{key!r}]",
            f"is a setting of {', '.join(owners)} only",
            f"move it to plans['semi'][{owners[0]!r}] (plan --set {owners[0]}.{key}=...)",
        )
    near = find_nearest(key, names)
    fix = f"did you mean {near!r}?" if near else f"remove it; the settings are {', '.join(names)}"
    return Problem(f"{layer}[{key!r}]", "unknown setting", fix)
