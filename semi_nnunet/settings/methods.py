"""The settings of the methods, apart from their trainers, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import (
    LENGTH,
    LOSS,
    MATCHED,
    CutMixSettings,
    SemiSettings,
    single_network_score,
)
from semi_nnunet.settings.schema import planned, published, setting
from semi_nnunet.settings.teacher import (
    ConfidentTeacherSettings,
    ConsistencySettings,
    TeacherSettings,
)


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
    appearance_strength: float = paper_or(0.0, 1.0, "as for the other trainers", low=0)
    unlabelled_rotation_and_scaling: bool = paper_or(
        True, False, "the branches are most certain on the unchanged image"
    )
    cutmix_probability: float = paper_or(0.0, 1.0, "every patch is mixed", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class BCPSettings(TeacherSettings):
    """Settings of ``SemiBCPTrainer``."""

    box_edge: float = setting(2 / 3, "of the patch (beta, sec. 4.2)", low=0.01, below=1)
    mixture_weight: float = setting(
        0.25,
        "of each mixture; with 0.5 (authors' code) short trainings do not learn the labels",
        low=0,
    )
    pseudo_label_weight: float = setting(0.5, "alpha of eq. 8, of pseudo-labelled voxels", low=0)
    largest_component: bool = setting(
        False, "organs may come in several pieces; the paper keeps the largest (LA, ACDC)"
    )
    variant: str = published(
        paper={
            "mixture_weight": 0.5, "largest_component": True, "appearance_strength": 0.0,
            "ramp_up": "constant", "follow_reliability": False,
        }
    )  # fmt: skip


RECENT_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class CPSSettings(CutMixSettings):
    """Settings of ``SemiCPSTrainer``."""

    cps_weight: float = setting(
        0.5,
        "half of a label's weight; with 1 the errors of the other network would count like labels "
        "(phantom; authors: 1 to 6 on cross-entropy only, SSL4MIS: 0.1)",
        low=0,
    )
    deploy: str = setting(
        "better",
        f"by validation Dice, mean of the last {RECENT_EPOCHS} epochs; 'average' is the mean of "
        "both networks' logits, for which semi_nnunet export writes each network as a fold",
        choices=("first", "second", "better", "average"),
    )
    variant: str = published(
        paper={
            "cps_weight": 1.5, "ramp_up": "constant", "unlabelled_start_steps": 0,
            "follow_reliability": False,
        },
        ssl4mis={
            "cps_weight": 0.1, "cutmix_probability": 0.0, "appearance_strength": 0.0,
            "unlabelled_start_steps": 0, "follow_reliability": False,
        },
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(FidelitySettings):
    """Settings of ``SemiDiffusionTrainer``."""

    sampling_steps: int = paper_or(10, 1, "as good as ten at a tenth of the cost", low=1)
    sampling_interval_steps: int = setting(1, "xi labels images in every step", low=1)
    clamped_logits: bool = paper_or(
        True, False, "DDIM steps make clamped logits worse; x_0 is b (2 p - 1) of soft-max p"
    )
    label_scale: float = paper_or(
        1.0, 0.2, "b: labels small relative to the noise require the image", low=0.01, high=1
    )
    time_power: float = paper_or(
        1.0, 3.0, "t has density t^2, drawn towards T, where sampling starts (1: uniform)", low=1
    )
    begins_with_image: bool = paper_or(
        False, True, "weights of noisy labels and time start at zero (as in ControlNet, DiT)"
    )
    reparameterised: bool = paper_or(True, False, "Gumbel noise and smoothing blur small organs")
    pseudo_label_weight: float = paper_or(10.0, 1.0, "on nnU-Net's Dice + cross-entropy", low=0)
    diffusion_labels: bool = setting(True, "false: theta learns only from psi (ablation)")
    theta_on_labels: bool = paper_or(False, True, "only pseudo labels: lags behind (prototype)")
    averaging: str = paper_or(
        "both", "none", "theta is not a mean of xi and psi", choices=("both", "psi", "none")
    )
    averaging_decay: float = setting(0.99, "m (sec. 3.3)", low=0, below=1)
    normalised_difficulty: bool = paper_or(False, True, "otherwise weights may reach 40")
    absent_class_dice: float | None = paper_or(
        0.5, None, "none: a class that is absent from a batch keeps its weight", low=0, high=1
    )
    difficulty_horizon_steps: int = setting(50, "A (authors' code)", low=1)
    filter_score: str = single_network_score()


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(CutMixSettings):
    """Settings of ``SemiDistillationTrainer``."""

    models: tuple[str, ...] = setting(
        (),
        "the Mean Teacher of these plans and this fold; else as in semi_nnunet pseudo-label -m, "
        "where {fold} stands for the current fold; a model of another data set needs our classes "
        "by name",
    )
    soft_label_weight: float = setting(
        1.0, "that of labels, because the teacher is trained (Hinton)", low=0
    )
    temperature: float = setting(1.0, "of both distributions; above 1 they get softer", low=0.01)
    unlabelled_start_steps: int = setting(0, "the models are already trained", low=0)
    filter_score: str = single_network_score()


BATCH = ("variant", "labelled_batch_size", "unlabelled_batch_size")


@dataclass(frozen=True, kw_only=True)
class SharedBatchSettings(SemiSettings):
    """The batches of a method whose labelled and unlabelled patches share nnU-Net's batch."""

    labelled_batch_size: int = planned(rules.half_of_batch, kept_unless=BATCH, low=1, topic=LENGTH)
    unlabelled_batch_size: int = planned(
        rules.unlabelled_batch_size, kept_unless=BATCH, low=1, topic=LENGTH
    )


@dataclass(frozen=True, kw_only=True)
class FixMatchSettings(SharedBatchSettings, ConfidentTeacherSettings):
    """Settings of ``SemiFixMatchTrainer``."""

    strong_weight: float = setting(
        0.5, "with 1 (sec. 2.2) pseudo labels count as much as labels (Hippocampus)", low=0
    )
    variant: str = published(
        paper={
            "strong_weight": 1.0, "class_wise_threshold": False, "ema_decay": 0.0,
            "cutmix_probability": 0.0, "ramp_up": "constant", "unlabelled_start_steps": 0,
            "follow_reliability": False,
        },
        whole_batch={},
    )  # fmt: skip


PLAIN = {  # consistency from the first step on, without mixing
    "consistency_dice": 0.0, "cutmix_probability": 0.0, "unlabelled_start_steps": 0,
    "follow_reliability": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MeanTeacherSettings(CutMixSettings, ConsistencySettings):
    """Settings of ``SemiMeanTeacherTrainer``."""

    teacher_noise: float = setting(
        0.0, "sd of noise on the teacher's input, clamped at 2 sd (SSL4MIS: 0.1)", low=0
    )
    variant: str = published(
        ssl4mis=PLAIN
        | {"appearance_strength": 0.0, "teacher_noise": 0.1, "consistency_weight": 0.1},
        pancreas=PLAIN | {"consistency_weight": 50.0},
        oct=PLAIN | {"ema_decay": 0.99, "ema_decay_after_ramp_up": 0.999},
    )


@dataclass(frozen=True, kw_only=True)
class MixMatchSettings(TeacherSettings):
    """Settings of ``SemiMixMatchTrainer``."""

    views: int = setting(2, "K (sec. 3.1)", low=1)
    temperature: float = setting(0.5, "T (sec. 3.2)", low=0.01, high=1)
    alpha: float = setting(0.75, "of Beta (sec. 3.3; mixing mixup only)", low=0.01)
    mixing: str = setting(
        "cutmix", "each voxel belongs to one image (paper: mixup)", choices=("mixup", "cutmix")
    )
    cutmix_edge: float = setting(1 / 3, "of the box (mixing cutmix only)", low=0.01, high=1)
    guesser: str = setting(
        "teacher", "less noisy than the student (the paper's)", choices=("teacher", "student")
    )
    mixed_labelled_weight: float = setting(1.0, "L_X (eq. 5)", low=0)
    unlabelled_mse_weight: float = setting(
        10.0, "lambda_U on dense squared differences, as in Mean Teacher here (CIFAR: 75)", low=0
    )
    variant: str = published(
        paper={
            "mixing": "mixup", "guesser": "student", "unlabelled_mse_weight": 75.0,
            "ramp_up": "linear", "unlabelled_start_steps": 0, "follow_reliability": False,
        }
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(SemiSettings):
    """Settings of ``SemiPretrainTrainer``."""

    hidden_share: float = setting(
        0.6, "of the blocks of a patch (Wald et al.: .6 to .75; He et al.: .75)", low=0, below=1
    )
    deep_supervision: bool = setting(
        False, "images are restored at full resolution", topic=LOSS, scope=MATCHED
    )


@dataclass(frozen=True, kw_only=True)
class UncertaintyAwareSettings(CutMixSettings, ConsistencySettings):
    """Settings of ``SemiUncertaintyAwareTrainer``."""

    stochastic_passes: int = setting(8, "T of the paper, sec. 2.2", low=2)
    teacher_noise: float = setting(
        0.1, "sd of the noise on the teacher's input, clamped at 2 sd (authors' code)", low=0
    )
    dropout: float = setting(
        0.5, "of bottleneck channels in the stochastic passes (as in the V-Net)", low=0, below=1
    )
    threshold_start: float = setting(
        0.75, "of the largest entropy; rises to 1 over the training (authors' code)", low=0, high=1
    )
    variant: str = published(
        paper={
            "consistency_dice": 0.0, "consistency_weight": 0.1, "cutmix_probability": 0.0,
            "appearance_strength": 0.0, "unlabelled_start_steps": 0, "follow_reliability": False,
        }
    )  # fmt: skip


FALLING_LIMIT = {"unlabelled_gradient_limit": 2.0, "unlabelled_gradient_limit_at_end": 0.25}


def by_batch(shared: tuple[Any, str], whole: tuple[Any, str], **limits: Any) -> Any:
    """Declare a setting whose default depends on whether a step shares nnU-Net's batch.

    Args:
        shared: value and reason if labelled and unlabelled patches share it.
        whole: value and reason if unlabelled patches are added to it.
        limits: as in :func:`planned`.
    """

    def rule(properties: rules.DatasetProperties, values: Mapping[str, Any]) -> rules.Planned:
        return shared if rules.shares_batch(properties, values) else whole

    return planned(rule, kept_unless=BATCH, **limits)


@dataclass(frozen=True, kw_only=True)
class UnifiedSettings(SharedBatchSettings, CutMixSettings, ConsistencySettings):
    """Settings of ``SemiUnifiedTrainer``."""

    box_edge: float = setting(
        1 / 3, "of the patch, so that most of a labelled patch stays", low=0.01, high=1
    )
    boxes_weight: float = by_batch(
        (0.0, "no labelled patch gets a box: halves of batches gained more without (equal time)"),
        (
            1.0,
            "share of the labelled patches that get a box; with boxes_in_copies, the weight of the "
            "loss on the copies (1: as labelled patches, tournament)",
        ),
        low=0,
    )
    boxes_in_copies: bool = setting(
        False,
        "boxes are pasted into the labelled patches of the supervised loss; true: into copies of "
        "them, which take another pass",
        before=True,
    )
    consistency_every_steps: int = by_batch(
        (1, "every step, because half of a batch costs little"),
        (2, "every second step costs less and gains as much in the same time"),
        before=1, low=1,
    )  # fmt: skip
    unlabelled_gradient_limit: float = by_batch(
        (0.0, "no limit: without it, halves of batches gained most in the same time"),
        (2.0, "at the start: learn from many images before the labels are fitted (tournament)"),
        low=0,
    )
    unlabelled_gradient_limit_at_end: float | None = by_batch(
        (None, "no limit at the end either"),
        (0.25, "labels are fitted at the end (tournament); none: a constant limit"),
        low=0.001,
    )
    variant: str = published(
        whole_batch={"consistency_every_steps": 2, **FALLING_LIMIT},
        full={"boxes_in_copies": True, "consistency_every_steps": 1, **FALLING_LIMIT},
    )


@dataclass(frozen=True, kw_only=True)
class UniMatchSettings(ConfidentTeacherSettings):
    """Settings of ``SemiUniMatchTrainer``."""

    strong_weight: float = setting(
        0.125, "of each strong view: half of eq. 6, which was too much (Hippocampus)", low=0
    )
    feature_weight: float = setting(
        0.25, "of the stream with perturbed features: half of eq. 6, for the same reason", low=0
    )
    dropout: float = setting(0.5, "of the channels of every skip (sec. 3.2)", low=0, below=1)
    variant: str = published(
        paper={
            "strong_weight": 0.25, "feature_weight": 0.5, "class_wise_threshold": False,
            "ema_decay": 0.0, "cutmix_probability": 0.5, "ramp_up": "constant",
            "unlabelled_start_steps": 0, "follow_reliability": False,
        }
    )  # fmt: skip


def list_method_settings() -> dict[str, type[SemiSettings]]:
    """Return name of a trainer -> its settings class, of the classes in this file.

    >>> list_method_settings()["SemiUnifiedTrainer"].__name__
    'UnifiedSettings'
    """
    classes = [c for c in globals().values() if isinstance(c, type) and c.__module__ == __name__]
    bases = {base for settings_class in classes for base in settings_class.__bases__}
    return {
        f"Semi{c.__name__.removesuffix('Settings')}Trainer": c for c in classes if c not in bases
    }
