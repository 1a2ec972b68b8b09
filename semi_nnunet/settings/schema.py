"""Settings of a method: frozen dataclasses, filled by stated rules where nobody gave a value.

A field is declared with :func:`setting` (a constant default) or :func:`planned` (a rule computes it
from :class:`~semi_nnunet.settings.rules.DatasetProperties`). Both carry the reason of the default,
which ``semi_nnunet plan`` prints, and the topic under which it is listed.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.validation import fits

Rule = Callable[[Any, Mapping[str, Any]], tuple[Any, str]]

# Whom a setting concerns.
MATCHED = "matched"  # every training; one and its baseline must have the same value
SUPERVISED = "supervised"  # every training; the baseline may have another value
UNLABELLED = "unlabelled"  # trainings with unlabelled images alone
OWN = "own"  # every training; two that are otherwise alike may have different values
METHOD = "method"  # the trainings of one method
OURS = "ours"  # the variant of a method that is no publication's
SCOPES = (MATCHED, SUPERVISED, UNLABELLED, OWN, METHOD)


def setting(
    default: Any,
    why: str,
    *,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    topic: str = "method",
    scope: str = METHOD,
) -> Any:
    """Declare a setting with a constant default.

    Args:
        default: its value where nobody gave one.
        why: the reason of the default.
        low, high, below: its range, [low, high] or [low, below).
        choices: the values that it may have.
        topic: under which it is listed.
        scope: whom it concerns, one of :data:`SCOPES`.
    """
    metadata = {"why": why, "low": low, "high": high, "below": below, "choices": choices}
    metadata |= {"topic": topic, "scope": scope}
    return dataclasses.field(default=default, metadata=metadata)


def planned(rule: Rule, **limits: Any) -> Any:
    """Declare a setting that ``rule(properties, values) -> (value, reason)`` computes.

    The values are those that were given, the constant ones, and those planned before it.
    """
    metadata: dict[str, Any] = {
        "rule": rule,
        "low": None,
        "high": None,
        "below": None,
        "choices": None,
    }
    metadata |= {"topic": "method", "scope": METHOD, **limits}
    return dataclasses.field(kw_only=True, default=None, metadata=metadata)


def published(**variants: Mapping[str, Any]) -> Any:
    """Declare the setting ``variant``: the values that publications of a method have.

    What a person gives stands before them.

    Args:
        variants: name -> setting -> value.
    """
    names = (OURS, *variants)
    declared = setting(OURS, "the defaults of this package, not a publication's", choices=names)
    return dataclasses.field(default=OURS, metadata={**declared.metadata, "variants": variants})


def values_of_variant(settings_class: type, name: str) -> Mapping[str, Any]:
    """The values of one of the :func:`published` variants; none of this package's own."""
    for field in dataclasses.fields(settings_class):
        if field.name == "variant":
            values: Mapping[str, Any] = field.metadata["variants"].get(name, {})
            return values
    return {}


def names_of_scope(settings_class: type, *scopes: str) -> tuple[str, ...]:
    """The settings of a class that concern certain trainings, in order."""
    fields = dataclasses.fields(settings_class)
    return tuple(field.name for field in fields if field.metadata["scope"] in scopes)


def topic_of(settings_class: type, name: str) -> str:
    """The topic of a setting, as the class says that declared it first."""
    for kind in reversed(settings_class.__mro__):
        field = getattr(kind, "__dataclass_fields__", {}).get(name)
        if field is not None:
            return str(field.metadata["topic"])
    raise KeyError(name)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The settings of one trainer and configuration, with the reason of every value."""

    settings: Any
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return dataclasses.asdict(self.settings)


def resolve(
    settings_class: type, properties: Any, given: Mapping[str, tuple[Any, str]]
) -> Resolved:
    """Fill in the settings: what was given, else the variant's, the rule's or the default.

    Args:
        settings_class: the dataclass of the method.
        properties: what the rules may use.
        given: setting -> (value, where it was given).

    Raises:
        UserError: every value that is of the wrong type or outside its range.
    """
    problems = value_problems(settings_class, given)
    raise_if_any("Some settings are out of range:", problems)
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    fields = dataclasses.fields(settings_class)
    variant, _ = given.get("variant", (OURS, ""))
    of_variant = values_of_variant(settings_class, variant)
    for field in fields:
        if field.name in given:
            value, where = given[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
            reasons[field.name] = f"given in {where}"
        elif field.name in of_variant:
            values[field.name] = of_variant[field.name]
            reasons[field.name] = f"of the published variant {variant!r}"
        elif "rule" not in field.metadata:
            values[field.name], reasons[field.name] = field.default, field.metadata["why"]
    for field in fields:  # a rule sees every constant, and what was planned before
        if values.get(field.name) is None and "rule" in field.metadata:
            values[field.name], reasons[field.name] = field.metadata["rule"](properties, values)
    in_order = {field.name: reasons[field.name] for field in fields}
    return Resolved(settings_class(**values), in_order)


def value_problems(settings_class: type, given: Mapping[str, tuple[Any, str]]) -> list[Problem]:
    """Every given value that is of the wrong type or outside its range."""
    problems: list[Problem] = []
    hints = typing.get_type_hints(settings_class)
    for field in dataclasses.fields(settings_class):
        if field.name in given:
            value, where = given[field.name]
            value = tuple(value) if isinstance(value, list) else value
            wrong = _what_is_wrong(field, hints[field.name], value)
            if wrong:
                name = f"{where}[{field.name!r}]"
                problems.append(Problem(name, wrong, "correct the value"))
    return problems


def _what_is_wrong(field: dataclasses.Field[Any], hint: Any, value: Any) -> str | None:
    """The broken rule and the value, or None when the value is fine."""
    limits = field.metadata
    if value is None and ("rule" in limits or fits(hint, None)):
        return None
    if not fits(hint, value):
        return f"must be of type {_type_name(hint)}, got {value!r}"
    if limits["choices"] is not None and value not in limits["choices"]:
        return f"must be one of {', '.join(map(repr, limits['choices']))}, got {value!r}"
    for number in value if isinstance(value, tuple) else (value,):
        if (
            isinstance(number, (int, float))
            and not isinstance(number, bool)
            and not _in_range(number, limits)
        ):
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
    return hint.__name__ if isinstance(hint, type) else str(hint)
