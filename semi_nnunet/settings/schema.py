"""The settings of a method: frozen dataclasses, filled in by rules where the user gave no value.

A field is declared with :func:`setting` (a constant default) or :func:`planned` (a rule computes it
from :class:`~semi_nnunet.settings.rules.DatasetProperties`). Both carry the reason of the default,
which ``semi_nnunet plan`` prints, and the topic under which the setting is listed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.validation import fits

Rule = Callable[[Any, Mapping[str, Any]], tuple[Any, str]]

# Scopes: the trainings that a setting affects.
MATCHED = "matched"  # every training; a method and its baseline must have the same value
SUPERVISED = "supervised"  # every training; the baseline may have another value
UNLABELLED = "unlabelled"  # only trainings with unlabelled images
OWN = "own"  # every training; two otherwise equal trainings may have different values
METHOD = "method"  # the trainings of one method
OURS = "ours"  # the variant of a method that is not a publication's
SCOPES = (MATCHED, SUPERVISED, UNLABELLED, OWN, METHOD)


def setting(
    default: Any,
    why: str,
    *,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    before: Any = None,
    topic: str = "method",
    scope: str = METHOD,
) -> Any:
    """Declare a setting with a constant default.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     temperature: float = setting(0.5, "the paper's", low=0, high=1)
    >>> resolve(Example, None, {}).reasons
    {'temperature': "the paper's"}

    Args:
        default: value if the user gives none.
        why: reason of the default.
        low, high, below: range, [low, high] or [low, below).
        choices: allowed values.
        before: value of trainings that began before the setting existed, and that continue with
            it; None: the default.
        topic: under which the setting is listed.
        scope: one of :data:`SCOPES`.
    """
    metadata = {"why": why, "low": low, "high": high, "below": below, "choices": choices}
    metadata |= {"before": before, "topic": topic, "scope": scope}
    return dataclasses.field(default=default, metadata=metadata)


def planned(rule: Rule, *, kept_unless: Sequence[str] | None = None, **limits: Any) -> Any:
    """Declare a setting that ``rule(properties, values) -> (value, reason)`` computes.

    The values are the given and constant ones, and those planned before this setting.

    Args:
        rule: see above.
        kept_unless: a training that continues keeps the value that it began with, unless the user
            has changed one of these settings since; None: the rule decides again.
        limits: range, topic and scope as in :func:`setting`.
    """
    metadata: dict[str, Any] = {"rule": rule, "topic": "method", "scope": METHOD}
    metadata["kept_unless"] = kept_unless
    metadata |= dict.fromkeys(("low", "high", "below", "choices")) | limits
    return dataclasses.field(kw_only=True, default=None, metadata=metadata)


def published(**variants: Mapping[str, Any]) -> Any:
    """Declare the setting ``variant``: the values of publications, or of earlier defaults.

    Values that the user gives take precedence.

    Args:
        variants: name -> setting -> value.
    """
    names = (OURS, *variants)
    why = "the defaults of this package; the others are published ones, or earlier ones of ours"
    declared = setting(OURS, why, choices=names)
    return dataclasses.field(default=OURS, metadata={**declared.metadata, "variants": variants})


def find_variant_values(settings_class: type, name: str) -> Mapping[str, Any]:
    """Return the values of one of the :func:`published` variants; empty for this package's own."""
    for field in dataclasses.fields(settings_class):
        if field.name == "variant":
            values: Mapping[str, Any] = field.metadata["variants"].get(name, {})
            return values
    return {}


def list_settings_of_scope(settings_class: type, *scopes: str) -> tuple[str, ...]:
    """Return the names of the settings with one of the scopes, in order."""
    fields = dataclasses.fields(settings_class)
    return tuple(field.name for field in fields if field.metadata["scope"] in scopes)


def find_topic(settings_class: type, name: str) -> str:
    """Return the topic of a setting, as declared in its first class."""
    for base in reversed(settings_class.__mro__):
        field = getattr(base, "__dataclass_fields__", {}).get(name)
        if field is not None:
            return str(field.metadata["topic"])
    raise KeyError(name)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The settings of one trainer and configuration, with the reason of every value.

    Args:
        settings: the dataclass of the method.
        reasons: setting -> reason.
        user_given: settings whose value the user gave.
    """

    settings: Any
    reasons: dict[str, str]
    user_given: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain JSON types."""
        return dataclasses.asdict(self.settings)


def resolve(
    settings_class: type, properties: Any, user_values: Mapping[str, tuple[Any, str]]
) -> Resolved:
    """Fill in the settings: the given value, else the variant's, the rule's or the default.

    Args:
        settings_class: the dataclass of the method.
        properties: input of the rules.
        user_values: setting -> (value, where it was given).

    Raises:
        UserError: values of the wrong type or outside their range, all of them.
    """
    raise_if_any(
        "Some settings are out of range:", find_value_problems(settings_class, user_values)
    )
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    fields = dataclasses.fields(settings_class)
    variant, _ = user_values.get("variant", (OURS, ""))
    variant_values = find_variant_values(settings_class, variant)
    for field in fields:
        if field.name in user_values:
            value, source = user_values[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
            reasons[field.name] = f"given in {source}"
        elif field.name in variant_values:
            values[field.name] = variant_values[field.name]
            reasons[field.name] = f"of the variant {variant!r}"
        elif "rule" not in field.metadata:
            values[field.name], reasons[field.name] = field.default, field.metadata["why"]
    ruled, hints = set(), typing.get_type_hints(settings_class)
    for field in fields:  # a rule sees every constant, and the values planned before it
        is_given = field.name in values and fits(hints[field.name], values[field.name])
        if not is_given and "rule" in field.metadata:
            values[field.name], reasons[field.name] = field.metadata["rule"](properties, values)
            ruled.add(field.name)
    in_order = {field.name: reasons[field.name] for field in fields}
    return Resolved(settings_class(**values), in_order, frozenset(user_values.keys() - ruled))


def keep_earlier_behaviour(resolved: Resolved, stored: Mapping[str, Any]) -> Resolved:
    """Return the settings with which a training continues that an earlier version began.

    Settings that the checkpoint does not know become those of before the setting existed. Planned
    values that are kept, see :func:`planned`, become those of the checkpoint.

    Args:
        resolved: the current settings.
        stored: the settings of the training's checkpoint.
    """
    settings, earlier = resolved.settings, dict[str, Any]()
    changed = {name for name in resolved.user_given if stored.get(name) != getattr(settings, name)}
    for field in dataclasses.fields(settings):
        name, kept_unless = field.name, field.metadata.get("kept_unless")
        if name in resolved.user_given:
            continue
        if name not in stored:
            if field.metadata.get("before") is not None:
                earlier[name] = field.metadata["before"]
        elif kept_unless is not None and not changed.intersection(kept_unless):
            earlier[name] = stored[name]
    return dataclasses.replace(
        resolved,
        settings=dataclasses.replace(resolved.settings, **earlier),
        reasons={**resolved.reasons, **dict.fromkeys(earlier, "as this training began")},
    )


def find_value_problems(
    settings_class: type, user_values: Mapping[str, tuple[Any, str]]
) -> list[Problem]:
    """List the given values of the wrong type or outside their range.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     epochs: int = setting(1000, "nnU-Net's", low=1)
    >>> print(*find_value_problems(Example, {"epochs": (0, "plans['semi']")}))
    plans['semi']['epochs']: must be in [1, inf), got 0. Fix: correct the value
    """
    problems: list[Problem] = []
    hints = typing.get_type_hints(settings_class)
    for field in dataclasses.fields(settings_class):
        if field.name in user_values:
            value, source = user_values[field.name]
            value = tuple(value) if isinstance(value, list) else value
            broken_rule = _find_broken_rule(field, hints[field.name], value)
            if broken_rule:
                setting_name = f"{source}[{field.name!r}]"
                fix = _suggest_value(field.name, hints[field.name], value)
                problems.append(Problem(setting_name, broken_rule, fix))
    return problems


def _suggest_value(name: str, hint: Any, value: Any) -> str:
    """Return the fix of a value that is not valid.

    >>> print(_suggest_value("models", tuple[str, ...], "42/SemiMeanTeacherTrainer__short__2d"))
    write a list: 'models=["42/SemiMeanTeacherTrainer__short__2d"]'
    """
    if value == "none" and fits(hint, None):
        return f"{name}=null"
    if not fits(hint, value) and fits(hint, (value,)):
        return f"write a list: '{name}={json.dumps([value])}'"
    return "correct the value"


def _find_broken_rule(field: dataclasses.Field[Any], hint: Any, value: Any) -> str | None:
    """Return the broken rule and the value, or None if the value is valid."""
    limits = field.metadata
    if value is None and ("rule" in limits or fits(hint, None)):
        return None
    if not fits(hint, value):
        return f"must be of type {_type_name(hint)}, got {value!r}"
    if limits["choices"] is not None and value not in limits["choices"]:
        return f"must be one of {', '.join(map(repr, limits['choices']))}, got {value!r}"
    for number in value if isinstance(value, tuple) else (value,):
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if is_number and not _in_range(number, limits):
            return f"must be in {_range_name(limits)}, got {value!r}"
    return None


def _in_range(number: float, limits: Mapping[str, Any]) -> bool:
    low, high, below = limits["low"], limits["high"], limits["below"]
    return (
        math.isfinite(number)
        and (low is None or number >= low)
        and (high is None or number <= high)
        and (below is None or number < below)
    )


def _range_name(limits: Mapping[str, Any]) -> str:
    low = "(-inf" if limits["low"] is None else f"[{limits['low']}"
    if limits["below"] is not None:
        return f"{low}, {limits['below']})"
    return f"{low}, inf)" if limits["high"] is None else f"{low}, {limits['high']}]"


def _type_name(hint: Any) -> str:
    """Return a type in words.

    >>> _type_name(float), _type_name(tuple[int, ...] | None)
    ('float', 'list of int, or null')
    """
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        ending = ", or null" if fits(hint, None) else ""
        return " or ".join(map(_type_name, kinds)) + ending
    if typing.get_origin(hint) is tuple:
        return f"list of {_type_name(typing.get_args(hint)[0])}"
    return hint.__name__ if isinstance(hint, type) else str(hint)
