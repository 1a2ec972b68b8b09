"""What the user changed: the layers of ``plans["semi"]``, the more specific one winning::

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

from semi_nnunet.settings.schema import value_problems
from semi_nnunet.util.errors import Problem, UserError


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of layers as one; where both give a setting, the second wins."""
    result = copy.deepcopy(dict(first))
    for key, value in second.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def given_before(plans: Mapping[str, Any]) -> dict[str, Any]:
    """What a person gave these plans: by ``--set`` earlier, or by editing ``plans["semi"]``.

    :func:`plan_semi`'s result is kept under ``plans["semi_planned"]`` beside what it was given, so
    that an edited value differs from it.
    """
    planned = plans.get("semi_planned", {})
    edited = _differing(plans.get("semi", {}), planned.get("semi", {}))
    return merged(planned.get("given", {}), edited)


def without_new_rules(
    semi: Mapping[str, Any], before: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """``semi`` without what no person gave and ``before`` does not have: a newer rule's values."""
    result = {}
    for key, value in semi.items():
        if isinstance(value, Mapping):
            inner = without_new_rules(value, before.get(key, {}), given.get(key, {}))
            if inner or not value:
                result[key] = inner
        elif key in before or key in given:
            result[key] = value
    return result


def _differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``now`` that ``before`` does not have."""
    result: dict[str, Any] = {}
    for key, value in now.items():
        if isinstance(value, Mapping) and isinstance(before.get(key), Mapping):
            inner = _differing(value, before[key])
            if inner:
                result[key] = inner
        elif key not in before or before[key] != value:
            result[key] = copy.deepcopy(value)
    return result


def given_settings(
    semi: Mapping[str, Any],
    common: type,
    settings_class: type,
    trainer: str,
    configuration: str,
    configurations: Sequence[str],
    trainers: Mapping[str, type] = types.MappingProxyType({}),
) -> dict[str, tuple[Any, str]]:
    """Collect what ``plans["semi"]`` says for one trainer and configuration.

    Args:
        semi: ``plans["semi"]``.
        common: the settings class shared by all trainers; only its keys may stand in the shared
            layers.
        settings_class: the trainer's own settings class.
        trainer: the trainer's class name.
        configuration: for example "3d_fullres".
        configurations: every configuration of the plans.
        trainers: name -> settings class of the trainers there are, to tell a misspelt section from
            another trainer's, and an unknown key from another trainer's.

    Raises:
        UserError: every unknown key, with the nearest valid one; and with them the wrong values.
    """
    problems = list(_misspelt_trainers(semi, trainers))
    owners = {trainer: settings_class, **trainers}
    given: dict[str, tuple[Any, str]] = {}
    for layer, where, known, is_section in _layers(
        semi, common, settings_class, trainer, configuration, configurations
    ):
        if not isinstance(layer, Mapping):
            wrong = f"must be a JSON object, got {layer!r}"
            problems.append(Problem(where, wrong, "write {...} there"))
            continue
        names = [field.name for field in dataclasses.fields(known)]
        for key, value in layer.items():
            if is_section(key):
                continue
            if key in names:
                given[key] = (value, where)
            else:
                problems.append(_unknown_key(key, where, names, owners))
    if problems:
        problems += value_problems(settings_class, given)
        raise UserError("plans['semi'] holds something that is no setting:", problems)
    return given


def _misspelt_trainers(semi: Any, trainers: Collection[str]) -> Iterator[Problem]:
    """Sections that are nearly a trainer's name; those of other packages are left alone."""
    for key in semi if isinstance(semi, Mapping) else ():
        near = difflib.get_close_matches(key, trainers, n=1, cutoff=0.85)
        if key.endswith("Trainer") and key not in trainers and near:
            fix = f"did you mean {near[0]!r}?"
            yield Problem(f"plans['semi'][{key!r}]", "there is no such trainer", fix)


def _layers(
    semi: Any,
    common: type,
    settings_class: type,
    trainer: str,
    configuration: str,
    configurations: Sequence[str],
) -> Iterator[tuple[Any, str, type, Callable[[str], bool]]]:
    """Each layer's content, its name, the class of its settings, and which keys are sections."""

    def section(layer: Any, key: str) -> Any:
        return layer.get(key, {}) if isinstance(layer, Mapping) else {}

    def is_any_section(key: str) -> bool:
        return key in configurations or key == trainer or key.endswith("Trainer")

    def is_configuration(key: str) -> bool:
        return key in configurations

    def is_none(key: str) -> bool:
        return False

    root, own = "plans['semi']", section(semi, trainer)
    in_own = f"{root}[{trainer!r}]"
    yield semi, root, common, is_any_section
    yield section(semi, configuration), f"{root}[{configuration!r}]", common, is_none
    yield own, in_own, settings_class, is_configuration
    yield section(own, configuration), f"{in_own}[{configuration!r}]", settings_class, is_none


def _unknown_key(
    key: str, where: str, names: Sequence[str], trainers: Mapping[str, type]
) -> Problem:
    owners = [
        name
        for name, kind in trainers.items()
        if key in (field.name for field in dataclasses.fields(kind))
    ]
    if owners:
        return Problem(
            f"{where}[{key!r}]",
            f"is a setting of {', '.join(owners)} alone",
            f"move it to plans['semi'][{owners[0]!r}] (plan --set {owners[0]}.{key}=...)",
        )
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
    fix = (
        f"did you mean {near[0]!r}?" if near else f"remove it; the settings are {', '.join(names)}"
    )
    return Problem(f"{where}[{key!r}]", "unknown setting", fix)
