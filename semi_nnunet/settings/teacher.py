"""Settings that methods with an averaged teacher share."""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import CutMixSettings, SemiSettings
from semi_nnunet.settings.schema import planned, setting


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(SemiSettings):
    """How the teacher follows the student."""

    ema_decay: float = planned(rules.ema_decay, low=0, below=1)
    ema_decay_after_ramp_up: float | None = setting(
        None, "the same decay throughout (the OCT variant rises to .999)", low=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class ConsistencySettings(TeacherSettings):
    """How a student's probabilities are compared with the teacher's."""

    consistency_weight: float = setting(
        10.0,
        "on squared probability differences averaged over voxels and classes (prototype)",
        low=0,
    )
    consistency_dice: float = setting(
        0.1,
        "Dice losses beside each squared difference: where voxels alone are averaged, small "
        "organs shrink (ACDC)",
        low=0,
    )


@dataclass(frozen=True, kw_only=True)
class ConfidentTeacherSettings(CutMixSettings, TeacherSettings):
    """Which pseudo labels are trusted."""

    threshold: float = setting(
        0.95,
        "confidence of a trusted pseudo label (FixMatch; UniMatch's medical code)",
        low=0.5,
        below=1,
    )
    class_wise_threshold: bool = planned(rules.class_wise_threshold)
    threshold_decay: float = setting(
        0.99, "of the mean confidence of each class (class_wise_threshold only)", low=0, below=1
    )
