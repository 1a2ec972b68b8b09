"""The layers of ``plans["semi"]``: put together, and told apart by who wrote them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


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
