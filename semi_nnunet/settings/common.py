"""The settings of every semi-supervised trainer."""

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

POOL = rules.POOL
PRETRAINER = "SemiPretrainTrainer"  # trains the weights of "pool"
WORKERS, DEVICE = "workers", "device"  # values of augmentation
FILTER_SCORES = ("disagreement", "checkpoints", "entropy", "change")
VIEWS = ("flips", "rot90", "gamma", "blur", "noise", "equalize")  # to average predictions over


def single_network_score() -> str:
    """Declare ``filter_score`` of trainers with a single network that can label an image."""
    why = "there is no second network to compare with"
    return setting("entropy", why, choices=FILTER_SCORES, topic=FILTERING, scope=UNLABELLED)


@dataclass(frozen=True, kw_only=True)
class SemiSettings:
    """The settings of length, optimisation and data; the settings of a method inherit these."""

    seed: int = setting(
        0, "any number; determines initial weights, batches and views", low=0,
        topic=LENGTH, scope=OWN,
    )  # fmt: skip
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
        "share of labelled cases in a batch, if the data set also has pseudo-labelled cases "
        "(semi_nnunet pseudo-dataset); none: all cases are equally likely",
        low=0, high=1, topic=LENGTH, scope=MATCHED,
    )  # fmt: skip
    accumulate_batches: int = setting(
        1, "labelled and unlabelled batches per optimizer step", low=1, topic=LENGTH, scope=MATCHED
    )

    optimizer: str = setting(
        "sgd", "nnU-Net's: SGD with Nesterov momentum", choices=("sgd", "adam"),
        topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip
    initial_lr: float = planned(rules.initial_lr, low=0, topic=OPTIMISATION, scope=MATCHED)
    momentum: float = setting(
        0.99, "nnU-Net's (SGD only)", low=0, below=1, topic=OPTIMISATION, scope=MATCHED
    )
    weight_decay: float = setting(3e-5, "nnU-Net's", low=0, topic=OPTIMISATION, scope=MATCHED)
    pretrained: str | None = setting(
        None,
        "none: random initial weights; pool: those of SemiPretrainTrainer with the same plans; or "
        "the path of a checkpoint of SemiPretrainTrainer, nnssl or nnU-Net (Wald et al. 2024); "
        "semi_nnunet plan --like FILE shapes plans after it",
        topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip
    continue_from: str | None = setting(
        None,
        "none: not; else the folder of a trained model of the same plans, or a fold of it: the "
        "training continues from the weights of its networks, also those of a teacher, with a new "
        "optimizer, as after more cases were labelled (semi_nnunet accept)",
        topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip
    warm_up_epochs: int = planned(rules.warm_up_epochs, low=0, topic=OPTIMISATION, scope=MATCHED)
    lr_schedule: str = setting(
        "poly", "nnU-Net's: (1 - epoch / epochs)^0.9", choices=("poly", "plateau"),
        topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip
    plateau_factor: float = setting(
        0.1, "factor on the rate when the training loss stalls (plateau only)", low=0, below=1,
        topic=OPTIMISATION, scope=SUPERVISED,
    )  # fmt: skip
    plateau_patience_epochs: int = setting(
        10, "epochs without a lower training loss (plateau only)", low=0,
        topic=OPTIMISATION, scope=SUPERVISED,
    )  # fmt: skip
    mixed_precision: str = setting(
        "nnunet",
        "of training steps: nnunet is float16 on CUDA, none elsewhere; bfloat16 needs no loss "
        "scaling and is faster on CPUs that support it (validation stays nnU-Net's)",
        choices=("nnunet", "bfloat16", "none"), topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip
    gradient_clip: float = setting(
        12.0, "nnU-Net's limit on the norm of the gradient; 0: no limit", low=0,
        topic=OPTIMISATION, scope=MATCHED,
    )  # fmt: skip

    supervised_loss: str = setting(
        "dice_ce", "nnU-Net's Dice + cross-entropy", choices=("dice_ce", "dice_focal"),
        topic=LOSS, scope=MATCHED,
    )  # fmt: skip
    focal_gamma: float = setting(
        2.0, "Lin et al. 2017, sec. 4.1 (dice_focal only)", low=0, topic=LOSS, scope=SUPERVISED
    )
    crf_weight: float = setting(
        0.0, "off; else of the gated CRF loss on labelled patches, from a fifth of the steps on in "
        "full, for scribbles (Obukhov et al. 2019): near voxels of similar intensity should have "
        "the same class",
        low=0, topic=LOSS, scope=MATCHED,
    )  # fmt: skip
    class_weights: tuple[float, ...] | None = setting(
        None, "none: all classes have the same weight; else one weight for each class or region",
        low=0, topic=LOSS, scope=MATCHED,
    )  # fmt: skip
    class_weights_from: str = setting(
        "given",
        "given: the setting class_weights; labelled, pseudo_labels: rare classes get larger "
        "weights, by their voxels in labelled patches, or also in pseudo labels (DHC, Wang & Li "
        "2023)",
        choices=("given", "labelled", "pseudo_labels"), topic=LOSS, scope=MATCHED,
    )  # fmt: skip
    deep_supervision: bool = setting(True, "nnU-Net's", topic=LOSS, scope=MATCHED)
    mirror: bool = planned(rules.mirror, topic=AUGMENTATION, scope=MATCHED)
    augmentation: str = setting(
        WORKERS,
        "nnU-Net's own code in the processes that load batches; device: the same changes, computed "
        "for whole batches on the training's device, for machines with few CPU cores for each GPU",
        choices=(WORKERS, DEVICE), topic=AUGMENTATION, scope=MATCHED,
    )  # fmt: skip
    max_rotation_degrees: float = planned(
        rules.max_rotation_degrees, low=0, high=180, topic=AUGMENTATION, scope=MATCHED
    )
    labelled_appearance: float = setting(
        0.0,
        "0: only nnU-Net's augmentation; else the probability of each appearance change of the "
        "strong view, in addition",
        low=0, high=1, topic=AUGMENTATION, scope=MATCHED,
    )  # fmt: skip

    ramp_up: str = setting(
        "gaussian", "exp(-5 (1 - t)^2), Tarvainen & Valpola 2017",
        choices=("gaussian", "linear", "constant"), topic=WEIGHT, scope=UNLABELLED,
    )  # fmt: skip
    unlabelled_start_steps: int = planned(
        rules.unlabelled_start_steps, low=0, topic=WEIGHT, scope=UNLABELLED
    )
    ramp_up_steps: int = planned(rules.ramp_up_steps, low=0, topic=WEIGHT, scope=UNLABELLED)
    follow_reliability: bool = setting(
        True,
        "unlabelled images count more as the network improves: ramp-up x (validation Dice above "
        "chance)^2; up to unlabelled_start_steps the worst class decides, then the mean (fold all: "
        "estimated from training cases with and without augmentation). false: unlabelled images "
        "count from unlabelled_start_steps on, however good the network is",
        topic=WEIGHT, scope=UNLABELLED,
    )  # fmt: skip
    unlabelled_weight: float = setting(
        1.0, "factor on every unlabelled term; 0 is supervised training", low=0,
        topic=WEIGHT, scope=UNLABELLED,
    )  # fmt: skip
    unlabelled_gradient_limit: float = planned(
        rules.unlabelled_gradient_limit, low=0, topic=WEIGHT, scope=UNLABELLED
    )
    unlabelled_gradient_limit_at_end: float | None = setting(
        None,
        "none: a constant limit; else the limit changes from unlabelled_gradient_limit to this",
        low=0.001, topic=WEIGHT, scope=UNLABELLED,
    )  # fmt: skip
    unlabelled_foreground_oversampling: float = planned(
        rules.unlabelled_foreground_oversampling, low=0, high=1, topic=SAMPLING, scope=UNLABELLED
    )
    unlabelled_from_ignored: bool = planned(
        rules.unlabelled_from_ignored, topic=SAMPLING, scope=UNLABELLED
    )
    locate_epochs: tuple[int, ...] = setting(
        (),
        "oversampled patches are drawn where labelled cases have foreground; from each of these "
        "epochs on, where the deployed network predicts it in the image itself",
        low=1, topic=SAMPLING, scope=UNLABELLED,
    )  # fmt: skip
    unlabelled_rotation_and_scaling: bool = setting(
        False, "the teacher is most certain on the unchanged image; true: as for labelled patches",
        topic=AUGMENTATION, scope=UNLABELLED,
    )  # fmt: skip
    filter_epochs: tuple[int, ...] = setting(
        (),
        "no filtering; else only the most certain images are used from each of these epochs on "
        "(UIF)",
        low=1, topic=FILTERING, scope=UNLABELLED,
    )  # fmt: skip
    filter_keep: float = setting(
        0.1, "fraction, or number above 1, of the unlabelled images (FLARE22: 200 of 2000)", low=0,
        topic=FILTERING, scope=UNLABELLED,
    )  # fmt: skip
    filter_score: str = setting(
        "disagreement", "of two networks, as in CPS for FLARE22 (prototype)", choices=FILTER_SCORES,
        topic=FILTERING, scope=UNLABELLED,
    )  # fmt: skip
    appearance_strength: float = setting(
        1.0, "ranges of the Mean Teacher prototype; 2 was worse on retinas of another camera",
        low=0, topic=AUGMENTATION, scope=UNLABELLED,
    )  # fmt: skip
    appearance_probability: float = setting(
        0.5, "of each change of the strong view (prototype)", low=0, high=1,
        topic=AUGMENTATION, scope=UNLABELLED,
    )  # fmt: skip

    save_every_epochs: int = setting(
        10, "a crash loses at most 10 epochs (nnU-Net: 50)", low=1, topic=TRACKING, scope=OWN
    )
    early_stopping_patience_epochs: int = setting(
        0, "0: off, as in nnU-Net; else stop when the best moving-average Dice is that old", low=0,
        topic=LENGTH, scope=SUPERVISED,
    )  # fmt: skip
    tensorboard: bool = setting(
        False, "also write TensorBoard files (needs the extra semi_nnunet[tensorboard])",
        topic=TRACKING, scope=OWN,
    )  # fmt: skip
    mlflow: bool = setting(
        False,
        "also write to nnUNet_results/mlflow.db, or MLFLOW_TRACKING_URI (needs the extra "
        "semi_nnunet[mlflow])",
        topic=TRACKING, scope=OWN,
    )  # fmt: skip

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def smallest_unlabelled_batch(self) -> int:
        """Unlabelled patches that a step needs."""
        return 1


@dataclass(frozen=True, kw_only=True)
class CutMixSettings(SemiSettings):
    """The settings of methods that mix boxes of unlabelled patches (CutMix)."""

    cutmix_probability: float = setting(
        1.0, "every unlabelled patch is mixed (French et al. 2020)", low=0, high=1,
        topic=AUGMENTATION, scope=UNLABELLED,
    )  # fmt: skip
    cutmix_edge: float = setting(
        2 / 3, "edge of the box, relative to the patch (Bai et al. 2023)", low=0.01, high=1,
        topic=AUGMENTATION, scope=UNLABELLED,
    )  # fmt: skip

    @property
    def smallest_unlabelled_batch(self) -> int:
        """Two if patches are mixed."""
        return 2 if self.cutmix_probability > 0 else super().smallest_unlabelled_batch


def require_epochs(settings: SemiSettings, name: str) -> None:
    """Check that the training has the epochs that a setting lists.

    Raises:
        UserError: the training ends earlier.
    """
    late = [epoch for epoch in getattr(settings, name) if epoch >= settings.epochs]
    if late:
        raise UserError(
            f"{name} must be below epochs, {settings.epochs}, got {late}",
            fix="correct plans['semi']",
        )
