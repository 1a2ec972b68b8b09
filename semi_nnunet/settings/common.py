"""The settings that every semi-supervised trainer has."""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.settings import rules
from semi_nnunet.settings.schema import MATCHED, OWN, SUPERVISED, UNLABELLED, planned, setting
from semi_nnunet.util.errors import UserError

# Topics, in the order in which they are listed.
LENGTH = "length and batches"
OPTIMISATION = "optimisation"
LOSS = "loss"
AUGMENTATION = "augmentation"
WEIGHT = "unlabelled weight"
SAMPLING = "sampling of unlabelled patches"
FILTERING = "filtering"
TRACKING = "checkpoints and tracking"
TOPICS = (LENGTH, OPTIMISATION, LOSS, AUGMENTATION, WEIGHT, SAMPLING, FILTERING, TRACKING, "method")

POOL = "pool"  # value of pretrained
PRETRAINER = "SemiPretrainTrainer"  # makes the weights of "pool"
WORKERS, DEVICE = "workers", "device"  # values of augmentation
FILTER_SCORES = ("disagreement", "checkpoints", "entropy", "change")
VIEWS = ("flips", "rot90", "gamma", "blur", "noise", "equalize")  # to average predictions over


def single_network_score() -> str:
    """``filter_score`` of trainers with one network that could label an image."""
    why = "there is no second network to disagree with"
    return setting("entropy", why, choices=FILTER_SCORES, topic=FILTERING, scope=UNLABELLED)


@dataclass(frozen=True, kw_only=True)
class SemiSettings:
    """How long, how much and how to train; a method's own settings class inherits these."""

    seed: int = setting(
        0,
        "any number: initial weights, batches and views follow from it",
        low=0,
        topic=LENGTH,
        scope=OWN,
    )
    epochs: int = planned(rules.epochs, low=1, topic=LENGTH, scope=MATCHED)
    steps_per_epoch: int = planned(rules.steps_per_epoch, low=1, topic=LENGTH, scope=MATCHED)
    validation_steps_per_epoch: int = planned(
        rules.validation_steps_per_epoch, low=1, topic=LENGTH, scope=SUPERVISED
    )
    labelled_batch_size: int = planned(
        rules.labelled_batch_size, low=1, topic=LENGTH, scope=MATCHED
    )
    unlabelled_batch_size: int = planned(
        rules.unlabelled_batch_size, low=1, topic=LENGTH, scope=UNLABELLED
    )
    labelled_share: float | None = setting(
        None,
        "of the labelled batch; the rest are pseudo-labelled cases, where the data set has any "
        "(semi_nnunet distil). None: every case as often",
        low=0,
        high=1,
        topic=LENGTH,
        scope=MATCHED,
    )
    accumulate_batches: int = setting(
        1, "one batch of each stream an optimizer step", low=1, topic=LENGTH, scope=MATCHED
    )

    optimizer: str = setting(
        "sgd",
        "nnU-Net's: SGD with Nesterov momentum",
        choices=("sgd", "adam"),
        topic=OPTIMISATION,
        scope=MATCHED,
    )
    initial_lr: float = planned(rules.initial_lr, low=0, topic=OPTIMISATION, scope=MATCHED)
    momentum: float = setting(
        0.99, "nnU-Net's (SGD only)", low=0, below=1, topic=OPTIMISATION, scope=MATCHED
    )
    weight_decay: float = setting(3e-5, "nnU-Net's", low=0, topic=OPTIMISATION, scope=MATCHED)
    pretrained: str | None = setting(
        None,
        "random initial weights; pool: those of SemiPretrainTrainer with the same plans; else a "
        "checkpoint of it, of nnssl or of nnU-Net (Wald et al. 2024)",
        topic=OPTIMISATION,
        scope=MATCHED,
    )
    warm_up_epochs: int = planned(rules.warm_up_epochs, low=0, topic=OPTIMISATION, scope=MATCHED)
    lr_schedule: str = setting(
        "poly",
        "nnU-Net's: (1 - epoch / epochs)^0.9",
        choices=("poly", "plateau"),
        topic=OPTIMISATION,
        scope=MATCHED,
    )
    plateau_factor: float = setting(
        0.1,
        "divide the rate by ten when the training loss stalls (plateau only)",
        low=0,
        below=1,
        topic=OPTIMISATION,
        scope=SUPERVISED,
    )
    plateau_patience_epochs: int = setting(
        10,
        "epochs without a lower training loss (plateau only)",
        low=0,
        topic=OPTIMISATION,
        scope=SUPERVISED,
    )
    mixed_precision: str = setting(
        "nnunet",
        "of training steps: float16 on CUDA, none elsewhere; bfloat16 needs no loss scaling, and "
        "is faster on CPUs that have it (validation is nnU-Net's)",
        choices=("nnunet", "bfloat16", "none"),
        topic=OPTIMISATION,
        scope=MATCHED,
    )
    gradient_clip: float = setting(
        12.0,
        "nnU-Net's limit on the gradient's norm; 0: none",
        low=0,
        topic=OPTIMISATION,
        scope=MATCHED,
    )

    supervised_loss: str = setting(
        "dice_ce",
        "nnU-Net's Dice + cross-entropy",
        choices=("dice_ce", "dice_focal"),
        topic=LOSS,
        scope=MATCHED,
    )
    focal_gamma: float = setting(
        2.0, "Lin et al. 2017, sec. 4.1 (dice_focal only)", low=0, topic=LOSS, scope=SUPERVISED
    )
    class_weights: tuple[float, ...] | None = setting(
        None,
        "all classes count the same; else one weight per class or region",
        low=0,
        topic=LOSS,
        scope=MATCHED,
    )
    class_weights_from: str = setting(
        "given",
        "class_weights; else rare classes count more, by their voxels in labelled patches, or in "
        "labelled and pseudo-labelled ones (DHC, Wang & Li 2023)",
        choices=("given", "labelled", "pseudo_labels"),
        topic=LOSS,
        scope=MATCHED,
    )
    deep_supervision: bool = setting(True, "nnU-Net's", topic=LOSS, scope=MATCHED)
    mirror: bool = planned(rules.mirror, topic=AUGMENTATION, scope=MATCHED)
    augmentation: str = setting(
        WORKERS,
        "nnU-Net's own code in the processes that load batches; device: the same changes of whole "
        "batches on the training's device, for machines with few cores beside a GPU",
        choices=(WORKERS, DEVICE),
        topic=AUGMENTATION,
        scope=MATCHED,
    )
    max_rotation_degrees: float = planned(
        rules.max_rotation_degrees, low=0, high=180, topic=AUGMENTATION, scope=MATCHED
    )
    labelled_appearance: float = setting(
        0.0,
        "nnU-Net's own augmentation only; a probability adds the strong view's appearance changes",
        low=0,
        high=1,
        topic=AUGMENTATION,
        scope=MATCHED,
    )

    ramp_up: str = setting(
        "gaussian",
        "exp(-5 (1 - t)^2), Tarvainen & Valpola 2017",
        choices=("gaussian", "linear", "constant"),
        topic=WEIGHT,
        scope=UNLABELLED,
    )
    unlabelled_start_steps: int = planned(
        rules.unlabelled_start_steps, low=0, topic=WEIGHT, scope=UNLABELLED
    )
    ramp_up_steps: int = planned(rules.ramp_up_steps, low=0, topic=WEIGHT, scope=UNLABELLED)
    follow_trust: bool = setting(
        True,
        "the unlabelled terms wait until every class is known, at most unlabelled_start_steps, and "
        "weigh by the reliability of the network squared (of validation cases; of fold all, whose "
        "cases are trained on, less what augmentation costs); False: from unlabelled_start_steps "
        "on",
        topic=WEIGHT,
        scope=UNLABELLED,
    )
    unlabelled_weight: float = setting(
        1.0,
        "factor on every unlabelled term; 0 is supervised training",
        low=0,
        topic=WEIGHT,
        scope=UNLABELLED,
    )
    unlabelled_gradient_limit: float = planned(
        rules.unlabelled_gradient_limit, low=0, topic=WEIGHT, scope=UNLABELLED
    )
    unlabelled_gradient_limit_at_end: float | None = setting(
        None,
        "the same throughout; else the limit rises or falls from unlabelled_gradient_limit to this",
        low=0.001,
        topic=WEIGHT,
        scope=UNLABELLED,
    )
    unlabelled_foreground_oversampling: float = planned(
        rules.unlabelled_foreground_oversampling,
        low=0,
        high=1,
        topic=SAMPLING,
        scope=UNLABELLED,
    )
    locate_epochs: tuple[int, ...] = setting(
        (),
        "oversampled patches lie where the labelled cases have foreground; from these epochs on, "
        "where the deployed network sees it in the image itself",
        low=1,
        topic=SAMPLING,
        scope=UNLABELLED,
    )
    unlabelled_rotation_and_scaling: bool = setting(
        False,
        "the teacher is surest on the image as it is; True: as nnU-Net does labelled patches",
        topic=AUGMENTATION,
        scope=UNLABELLED,
    )
    filter_epochs: tuple[int, ...] = setting(
        (),
        "no filtering; else at the start of these epochs the surest images are kept (UIF)",
        low=1,
        topic=FILTERING,
        scope=UNLABELLED,
    )
    filter_keep: float = setting(
        0.1,
        "fraction, or number above 1, of the unlabelled images (FLARE22: 200 of 2000)",
        low=0,
        topic=FILTERING,
        scope=UNLABELLED,
    )
    filter_score: str = setting(
        "disagreement",
        "of two networks, as the FLARE22 seed's CPS",
        choices=FILTER_SCORES,
        topic=FILTERING,
        scope=UNLABELLED,
    )
    appearance_strength: float = planned(
        rules.appearance_strength, low=0, topic=AUGMENTATION, scope=UNLABELLED
    )
    appearance_probability: float = setting(
        0.5,
        "of each change of the strong view (prototype)",
        low=0,
        high=1,
        topic=AUGMENTATION,
        scope=UNLABELLED,
    )

    save_every_epochs: int = setting(
        10,
        "at most 10 epochs are lost to a crash (nnU-Net: 50)",
        low=1,
        topic=TRACKING,
        scope=OWN,
    )
    early_stopping_patience_epochs: int = setting(
        0,
        "0: off, as nnU-Net; else stop when the best moving-average Dice is that old",
        low=0,
        topic=LENGTH,
        scope=SUPERVISED,
    )
    tensorboard: bool = setting(
        False,
        "also write TensorBoard files (needs the extra semi_nnunet[tensorboard])",
        topic=TRACKING,
        scope=OWN,
    )
    mlflow: bool = setting(
        False,
        "also write to nnUNet_results/mlflow.db, or MLFLOW_TRACKING_URI (needs the extra "
        "semi_nnunet[mlflow])",
        topic=TRACKING,
        scope=OWN,
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
        1.0,
        "every unlabelled patch is mixed (French et al. 2020)",
        low=0,
        high=1,
        topic=AUGMENTATION,
        scope=UNLABELLED,
    )
    cutmix_edge: float = setting(
        2 / 3,
        "of the box, relative to the patch (Bai et al. 2023)",
        low=0.01,
        high=1,
        topic=AUGMENTATION,
        scope=UNLABELLED,
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
            f"{name} must be below epochs, {settings.epochs}, got {late}",
            fix="correct plans['semi']",
        )
