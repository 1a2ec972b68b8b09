"""Settings whose default is the paper's or ours, selected by the setting ``fidelity``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.schema import planned, setting


def paper_or(paper: Any, ours: Any, why: str = "", **limits: Any) -> Any:
    """Declare a setting whose default, a value or a rule, depends on ``fidelity``."""

    def rule(properties: Any, values: Any) -> tuple[Any, str]:
        faithful = values["fidelity"] == "paper"
        default = paper if faithful else ours
        if callable(default):
            return default(properties, values)
        return default, "the paper's" if faithful else why

    return planned(rule, **limits)


def theta_start_steps(
    properties: rules.DatasetProperties, values: Mapping[str, Any]
) -> rules.Planned:
    """Plan ``unlabelled_start_steps`` of A&D, which depends on whether theta learns from labels."""
    if values.get("theta_on_labels") is False:
        reason = "theta learns only from pseudo labels, so it cannot wait until it is reliable"
        return 0, reason
    return rules.unlabelled_start_steps(properties, values)


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(CutMixSettings):
    """The settings of every trainer for which the paper of A&D has other values."""

    fidelity: str = setting(
        "improved", "the paper's settings do not reproduce its results",
        choices=("improved", "paper"),
    )  # fmt: skip
    momentum: float = paper_or(0.9, 0.99, "nnU-Net's", low=0, below=1)
    gradient_clip: float = paper_or(0.0, 12.0, "nnU-Net's limit on the norm; 0: no limit", low=0)
    unlabelled_start_steps: int = paper_or(0, theta_start_steps, low=0)
    ramp_up_steps: int = paper_or(rules.every_step, rules.ramp_up_steps, low=0)
    appearance_strength: float = paper_or(0.0, rules.appearance_strength, low=0)
    unlabelled_rotation_and_scaling: bool = paper_or(
        True, False, "the branches are most certain on the unchanged image"
    )
    cutmix_probability: float = paper_or(0.0, 1.0, "every patch is mixed", low=0, high=1)
