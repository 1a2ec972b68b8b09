"""Settings shared by methods with an averaged teacher."""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import CutMixSettings, SemiSettings
from semi_nnunet.settings.schema import planned, setting


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(SemiSettings):
    """The settings of the moving average."""

    ema_decay: float = planned(rules.ema_decay, low=0, below=1)
    ema_decay_after_ramp_up: float | None = setting(
        None, "none: the same decay throughout (the OCT variant rises to .999)", low=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class ConsistencySettings(TeacherSettings):
    """The settings of the consistency between the probabilities of student and teacher."""

    consistency_weight: float = setting(
        10.0, "on the mean squared difference over voxels and classes (prototype)", low=0
    )
    consistency_dice: float = setting(
        0.1,
        "weight of a Dice loss relative to the squared difference; without it small organs shrink, "
        "because the mean is over voxels (ACDC)",
        low=0,
    )


@dataclass(frozen=True, kw_only=True)
class ConfidentTeacherSettings(CutMixSettings, TeacherSettings):
    """The settings of confident pseudo labels."""

    threshold: float = setting(
        0.95, "lowest confidence of a used pseudo label (FixMatch; UniMatch's medical code)",
        low=0.5, below=1,
    )  # fmt: skip
    class_wise_threshold: bool = planned(rules.class_wise_threshold)
    threshold_decay: float = setting(
        0.99, "of the mean confidence of each class (class_wise_threshold only)", low=0, below=1
    )
