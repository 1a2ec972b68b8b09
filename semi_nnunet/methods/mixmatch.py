"""MixMatch (Berthelot et al. 2019, arXiv:1905.02249) for dense labels.

Each unlabelled patch u is seen in K views u_k = h_k(g_k(u)), g_k a flip or quarter turn, h_k a
change of appearance. The guess is made in the frame of u, q = sharpen(mean_k g_k^-1 p(u_k))
(eq. 6-7), and carried into each view, g_k(q). Labelled and unlabelled patches are shuffled and
mixed. The loss is soft Dice + cross-entropy on the mixed labelled patches and squared differences
of probabilities on the mixed unlabelled ones (eq. 2-5), in float32.

Differs from the paper: boxes are mixed (CutMix), as voxels of two blended images belong to neither
(``mixing mixup``: the paper's, lambda' = max(lambda, 1 - lambda), lambda ~ Beta(alpha, alpha),
eq. 8-11); the guesser is the moving average (``guesser student``: the paper's); both terms are
ramped and weighed by the reliability of the network; plain labelled patches are seen, too, because
mixing dilutes few labels; quarter turns only in square planes, if turns are not limited; where
orientation carries meaning (``mirror false``), no geometric view at all. ``variant paper`` takes
back what settings can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from semi_nnunet.augment.invertible import GridView, sample_grid_view, square_planes
from semi_nnunet.augment.mixing import BoxMix, sample_boxes, sample_mixup_weight
from semi_nnunet.core.consistency import probability_mse
from semi_nnunet.core.partial_labels import merge_probs, per_voxel
from semi_nnunet.core.processes import all_reduce_mean
from semi_nnunet.core.pseudo_labels import sharpen
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.schema import published, setting
from semi_nnunet.settings.teacher import TeacherSettings
from semi_nnunet.training.teacher import TeacherTrainer
from semi_nnunet.training.trainer import Term

Mix = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class MixMatchSettings(TeacherSettings):
    views: int = setting(2, "K (sec. 3.1)", low=1)
    temperature: float = setting(0.5, "T (sec. 3.2)", low=0.01, high=1)
    alpha: float = setting(0.75, "of Beta (sec. 3.3; mixing mixup only)", low=0.01)
    mixing: str = setting(
        "cutmix", "each voxel is of one image (paper: mixup)", choices=("mixup", "cutmix")
    )
    cutmix_edge: float = setting(1 / 3, "of the box (mixing cutmix only)", low=0.01, high=1)
    guesser: str = setting(
        "teacher",
        "steadier than the student, which the paper takes",
        choices=("teacher", "student"),
    )
    mixed_labelled_weight: float = setting(1.0, "L_X (eq. 5)", low=0)
    unlabelled_mse_weight: float = setting(
        10.0, "lambda_U on dense squared differences, as Mean Teacher here (CIFAR: 75)", low=0
    )
    variant: str = published(
        paper={
            "mixing": "mixup", "guesser": "student", "unlabelled_mse_weight": 75.0,
            "ramp_up": "linear", "unlabelled_start_steps": 0, "follow_trust": False,
        }
    )  # fmt: skip


class SemiMixMatchTrainer(TeacherTrainer):
    settings_class = MixMatchSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings = self.settings
        yield self.supervised(labelled)
        views = [self.sample_view() for _ in range(settings.views)]
        seen = [self.strong_view(view(unlabelled.x_weak)) for view in views]
        guess = self.guess(seen, views)
        self.note_pseudo_labels(guess, unlabelled.mask)
        target, mask = self.annotation(labelled.target)
        x = torch.cat([labelled.x, *seen])
        target = torch.cat([target, *(view(guess) for view in views)])
        mask = torch.cat([mask, *(view(unlabelled.mask) for view in views)])
        mix = self.sample_mix(x)
        annotated = self.mixed_annotation(labelled, x, mix)
        x, target, mask = mix(x.float()), mix(target), mix(mask.float()) > 0.999
        target = merge_probs(target, annotated, self.exclusive)
        first, rest = labelled.x.shape[0], None
        if annotated is not None:
            annotated, rest = annotated[:first], annotated[first:]
        loss = self.soft_supervised(x[:first], target[:first], mask[:first], annotated)
        yield Term("mixed_labelled", loss, settings.mixed_labelled_weight)
        for loss in self.unlabelled_losses(x[first:], target[first:], mask[first:], rest):
            yield Term("mixed_unlabelled", loss, settings.unlabelled_mse_weight)

    def mixed_annotation(
        self, labelled: LabelledBatch, like: torch.Tensor, mix: Mix
    ) -> torch.Tensor | None:
        """Which classes the mixed targets tell: those that both parts of a voxel annotate.

        Args:
            labelled: the first patches of the batch; guesses tell all classes.
            like: the batch before it is mixed.
            mix: of the batch.

        Returns:
            bool (B, C, *spatial), where ``spatial`` may be ones; None: every case annotates all.
        """
        if labelled.annotated is None:
            return None
        rows, guessed = labelled.annotated, len(like) - len(labelled.annotated)
        rows = torch.cat([rows, rows.new_ones(guessed, rows.shape[1])])
        return mix(per_voxel(rows, like.ndim).float()) > 0.999

    def sample_view(self) -> GridView:
        """A random view that keeps the patch's shape and what its orientation means."""
        if not self.settings.mirror:
            return GridView()
        manager, dimensions = self.configuration_manager, len(self.configuration_manager.patch_size)
        spacing = manager.spacing[-dimensions:]
        may_turn = self.settings.max_rotation_degrees >= 90
        planes = square_planes(manager.patch_size, spacing) if may_turn else []
        return sample_grid_view(self.inference_allowed_mirroring_axes or (), planes)

    def guess(self, seen: list[torch.Tensor], views: list[GridView]) -> torch.Tensor:
        """q: the views' predictions, brought back to the patch's frame, averaged, sharpened."""
        network = self.network if self.settings.guesser == "student" else self.teacher
        probs = [
            view.inverse(self.probs(self.predict_with(network, x)))
            for view, x in zip(views, seen, strict=True)
        ]
        mean = torch.stack(probs).mean(0)
        return sharpen(mean, self.settings.temperature, self.exclusive)

    def sample_mix(self, like: torch.Tensor) -> Mix:
        """Mixes each sample with another one of the batch, images and targets alike."""
        partner = torch.randperm(like.shape[0], device=like.device)
        if self.settings.mixing == "mixup":
            weight = sample_mixup_weight(self.settings.alpha)
            return lambda tensor: weight * tensor + (1.0 - weight) * tensor[partner]
        box = sample_boxes(like.shape[0], like.shape[2:], self.settings.cutmix_edge, like.device)
        return BoxMix(box, partner)

    def unlabelled_losses(
        self,
        x: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """Squared differences, view by view, so that the memory is that of one view.

        Their sum is the mean over the voxels of all views.
        """
        summed, views = self.ranks.summing, self.settings.views
        voxels = all_reduce_mean(mask.sum().float(), summed).clamp_min(1.0)
        told = [None] * views if annotated is None else annotated.chunk(views)
        parts = (tensor.chunk(views) for tensor in (x, target, mask))
        for mixed, wanted, counted, classes in zip(*parts, told, strict=True):
            prediction = merge_probs(self.probs(self.predict(mixed)), classes, self.exclusive)
            loss = probability_mse(prediction, wanted, counted, summed)
            yield loss * all_reduce_mean(counted.sum().float(), summed) / voxels

    def soft_supervised(
        self,
        x: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Dice + cross-entropy of every output against the target averaged over its voxels."""
        outputs = self.outputs(x)
        if isinstance(outputs, torch.Tensor):
            return self.pseudo_label_loss(outputs, target, mask, annotated=annotated)
        losses = [
            self.pseudo_label_loss(
                output,
                *pooled(target, mask, output.shape[2:]),
                annotated=everywhere(annotated, output.shape[2:]),
            )
            for output in outputs
        ]
        weights = self.loss.weight_factors
        return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))


def pooled(
    target: torch.Tensor, mask: torch.Tensor, spatial: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """A soft target averaged over the voxels of its mask, and where that is most of them."""
    pool = pooling(spatial)
    counted = pool(mask.float(), tuple(spatial))
    mean = pool(target * mask, tuple(spatial)) / counted.clamp_min(1e-6)
    return mean, counted > 0.5


def everywhere(annotated: torch.Tensor | None, spatial: torch.Size) -> torch.Tensor | None:
    """Bool (B, C, *spatial): where all voxels that become one annotate a class."""
    if annotated is None or annotated[0, 0].numel() == 1:  # of whole patches
        return annotated
    return pooling(spatial)(annotated.float(), tuple(spatial)) > 0.999


def pooling(spatial: torch.Size) -> Callable[..., torch.Tensor]:
    """torch's average over as many voxels as make one of ``spatial``."""
    return F.adaptive_avg_pool2d if len(spatial) == 2 else F.adaptive_avg_pool3d
