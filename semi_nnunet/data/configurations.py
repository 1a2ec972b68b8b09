"""The configurations of plans, read without nnU-Net's classes, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semi_nnunet.util.errors import UserError


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A configuration with what it inherits, as nnU-Net's PlansManager resolves it.

    Args:
        plans: content of a plans file.
        name: such as "3d_cascade_fullres".

    Returns:
        None where the plans do not have it.

    Raises:
        UserError: it inherits from one that is not there, or from itself.
    """
    configurations = plans["configurations"]
    if name not in configurations:
        return None
    found, seen = dict(configurations[name]), [name]
    while (parent := found.pop("inherits_from", None)) is not None:
        if parent in seen or parent not in configurations:
            why = "inherits from it" if parent in seen else "the plans do not have"
            raise UserError(
                f"configuration {seen[-1]} inherits from {parent}, which {why}", fix="plan anew"
            )
        seen.append(parent)
        found = {**configurations[parent], **found}
    return found


def next_stages(configuration: Mapping[str, Any]) -> list[str]:
    """The configurations of a cascade that take the predictions of this one."""
    stages = configuration.get("next_stage") or []
    return [stages] if isinstance(stages, str) else list(stages)
