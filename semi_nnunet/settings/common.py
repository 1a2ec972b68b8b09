"""The settings that every semi-supervised trainer has."""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.settings import rules
from semi_nnunet.settings.schema import planned, setting
from semi_nnunet.util.errors import UserError

FILTER_SCORES = ("disagreement", "checkpoints", "entropy", "change")


def score_of_one_network() -> str:
    """``filter_score`` of trainers with one network that could label an image."""
    why = "there is no second network to disagree with"
    return setting("entropy", why, choices=FILTER_SCORES)


@dataclass(frozen=True, kw_only=True)
class SemiSettings:
    """How long, how much and how to train; a method's own settings class inherits these."""

    seed: int = setting(0, "any number: initial weights, batches and views follow from it", low=0)
    epochs: int = planned(rules.epochs, low=1)
    steps_per_epoch: int = planned(rules.steps_per_epoch, low=1)
    validation_steps_per_epoch: int = planned(rules.validation_steps_per_epoch, low=1)
    labelled_batch_size: int = planned(rules.labelled_batch_size, low=1)
    unlabelled_batch_size: int = planned(rules.unlabelled_batch_size, low=1)
    labelled_share: float | None = setting(
        None,
        "of the labelled batch; the rest are pseudo-labelled cases, where the data set has any "
        "(semi_nnunet distil). None: every case as often",
        low=0,
        high=1,
    )
    accumulate_batches: int = setting(1, "one batch of each stream an optimizer step", low=1)

    optimizer: str = setting(
        "sgd", "nnU-Net's: SGD with Nesterov momentum", choices=("sgd", "adam")
    )
    initial_lr: float = planned(rules.initial_lr, low=0)
    momentum: float = setting(0.99, "nnU-Net's (SGD only)", low=0, below=1)
    weight_decay: float = setting(3e-5, "nnU-Net's", low=0)
    lr_schedule: str = setting(
        "poly", "nnU-Net's: (1 - epoch / epochs)^0.9", choices=("poly", "plateau")
    )
    plateau_factor: float = setting(
        0.1, "divide the rate by ten when the training loss stalls (plateau only)", low=0, below=1
    )
    plateau_patience_epochs: int = setting(
        10, "epochs without a lower training loss (plateau only)", low=0
    )
    mixed_precision: str = setting(
        "nnunet",
        "of training steps: float16 on CUDA, none elsewhere; bfloat16 needs no loss scaling, and "
        "is faster on CPUs that have it (validation is nnU-Net's)",
        choices=("nnunet", "bfloat16", "none"),
    )
    gradient_clip: float = setting(12.0, "nnU-Net's limit on the gradient's norm; 0: none", low=0)

    supervised_loss: str = setting(
        "dice_ce", "nnU-Net's Dice + cross-entropy", choices=("dice_ce", "dice_focal")
    )
    focal_gamma: float = setting(2.0, "Lin et al. 2017, sec. 4.1 (dice_focal only)", low=0)
    class_weights: tuple[float, ...] | None = setting(
        None, "all classes count the same; else one weight per class or region", low=0
    )
    class_weights_from: str = setting(
        "given",
        "class_weights; else rare classes count more, by their voxels in labelled patches, or in "
        "labelled and pseudo-labelled ones (DHC, Wang & Li 2023)",
        choices=("given", "labelled", "pseudo_labels"),
    )
    deep_supervision: bool = setting(True, "nnU-Net's")
    mirror: bool = setting(True, "nnU-Net's; turn off where left and right are different classes")
    max_rotation_degrees: float = planned(rules.max_rotation_degrees, low=0, high=180)
    labelled_appearance: float = setting(
        0.0,
        "nnU-Net's own augmentation only; a probability adds the strong view's appearance changes",
        low=0,
        high=1,
    )

    ramp_up: str = setting(
        "gaussian",
        "exp(-5 (1 - t)^2), Tarvainen & Valpola 2017",
        choices=("gaussian", "linear", "constant"),
    )
    unlabelled_start_steps: int = planned(rules.unlabelled_start_steps, low=0)
    ramp_up_steps: int = planned(rules.ramp_up_steps, low=0)
    follow_trust: bool = setting(
        True,
        "the unlabelled terms wait until every class is known, at most unlabelled_start_steps, and "
        "weigh by the trust in the network squared (of validation cases; of fold all, whose cases "
        "are trained on, less what augmentation costs); False: from unlabelled_start_steps on",
    )
    unlabelled_weight: float = setting(
        1.0, "factor on every unlabelled term; 0 is supervised training", low=0
    )
    unlabelled_foreground_oversampling: float = planned(
        rules.unlabelled_foreground_oversampling, low=0, high=1
    )
    locate_epochs: tuple[int, ...] = setting(
        (),
        "oversampled patches lie where the labelled cases have foreground; from these epochs on, "
        "where the deployed network sees it in the image itself",
        low=1,
    )
    unlabelled_rotation_and_scaling: bool = setting(
        False, "the teacher is surest on the image as it is; True: as nnU-Net does labelled patches"
    )
    filter_epochs: tuple[int, ...] = setting(
        (),
        "no filtering; else at the start of these epochs the surest images are kept (UIF)",
        low=1,
    )
    filter_keep: float = setting(
        0.1, "fraction, or number above 1, of the unlabelled images (FLARE22: 200 of 2000)", low=0
    )
    filter_score: str = setting(
        "disagreement", "of two networks, as the FLARE22 seed's CPS", choices=FILTER_SCORES
    )
    appearance_strength: float = planned(rules.appearance_strength, low=0)
    appearance_probability: float = setting(
        0.5, "of each change of the strong view (prototype)", low=0, high=1
    )

    save_every_epochs: int = setting(
        10, "at most 10 epochs are lost to a crash (nnU-Net: 50)", low=1
    )
    early_stopping_patience_epochs: int = setting(
        0, "0: off, as nnU-Net; else stop when the best moving-average Dice is that old", low=0
    )
    tensorboard: bool = setting(
        False, "also write TensorBoard files (needs the extra semi_nnunet[tensorboard])"
    )
    mlflow: bool = setting(
        False,
        "also write to nnUNet_results/mlflow.db, or MLFLOW_TRACKING_URI (needs the extra "
        "semi_nnunet[mlflow])",
    )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def smallest_unlabelled_batch(self) -> int:
        """How many unlabelled patches a step needs."""
        return 1


@dataclass(frozen=True, kw_only=True)
class CutMixSettings(SemiSettings):
    """How boxes of unlabelled patches are mixed (CutMix)."""

    cutmix_probability: float = setting(
        1.0, "every unlabelled patch is mixed (French et al. 2020)", low=0, high=1
    )
    cutmix_edge: float = setting(
        2 / 3, "of the box, relative to the patch (Bai et al. 2023)", low=0.01, high=1
    )

    @property
    def smallest_unlabelled_batch(self) -> int:
        """Two where they are mixed."""
        return 2 if self.cutmix_probability > 0 else super().smallest_unlabelled_batch


def require_epochs(settings: SemiSettings, name: str) -> None:
    """Check that the training has the epochs that a setting names.

    Raises:
        UserError: some never come.
    """
    late = [epoch for epoch in getattr(settings, name) if epoch >= settings.epochs]
    if late:
        raise UserError(
            f"{name} must be below epochs, {settings.epochs}, got {late}. Fix: correct "
            f"plans['semi']"
        )
