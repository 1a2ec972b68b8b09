"""Settings whose default is the paper's or ours, as the setting ``fidelity`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.schema import planned, setting


def paper_or(paper: Any, ours: Any, why: str = "", **limits: Any) -> Any:
    """A setting whose default depends on ``fidelity``; a rule in place of a value plans it."""

    def rule(properties: Any, values: Any) -> tuple[Any, str]:
        faithful = values["fidelity"] == "paper"
        chosen = paper if faithful else ours
        if callable(chosen):
            return chosen(properties, values)
        return chosen, "the paper's" if faithful else why

    return planned(rule, **limits)


def theta_start_steps(
    properties: rules.DatasetProperties, values: Mapping[str, Any]
) -> rules.Planned:
    """When pseudo labels begin to count by the reliability of theta, if theta sees labels."""
    if values.get("theta_on_labels") is False:
        return (
            0,
            "theta learns from pseudo labels alone, which cannot wait until it knows something",
        )
    return rules.unlabelled_start_steps(properties, values)


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(CutMixSettings):
    """The settings that all trainers have, of which the paper of A&D has other values."""

    fidelity: str = setting(
        "improved", "the paper's settings do not reproduce", choices=("improved", "paper")
    )
    momentum: float = paper_or(0.9, 0.99, "nnU-Net's", low=0, below=1)
    gradient_clip: float = paper_or(0.0, 12.0, "nnU-Net's limit on the norm; 0: none", low=0)
    unlabelled_start_steps: int = paper_or(0, theta_start_steps, low=0)
    ramp_up_steps: int = paper_or(rules.every_step, rules.ramp_up_steps, low=0)
    appearance_strength: float = paper_or(0.0, rules.appearance_strength, low=0)
    unlabelled_rotation_and_scaling: bool = paper_or(
        True, False, "the branches are surest on the image as it is"
    )
    cutmix_probability: float = paper_or(0.0, 1.0, "every patch is mixed", low=0, high=1)
