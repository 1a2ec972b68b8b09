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
from semi_nnunet.augment.mixing import BoxMix, mixup_weight, sample_boxes
from semi_nnunet.core.consistency import probability_mse
from semi_nnunet.core.processes import mean_of_processes
from semi_nnunet.core.pseudo_labels import sharpen
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.schema import published, setting
from semi_nnunet.training.teacher import TeacherSettings, TeacherTrainer
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
        x, target, mask = mix(x.float()), mix(target), mix(mask.float()) > 0.999
        known = labelled.x.shape[0]
        loss = self.soft_supervised(x[:known], target[:known], mask[:known])
        yield Term("mixed_labelled", loss, settings.mixed_labelled_weight)
        for loss in self.unlabelled_losses(x[known:], target[known:], mask[known:]):
            yield Term("mixed_unlabelled", loss, settings.unlabelled_mse_weight)

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
        network = self.network if self.settings.guesser == "student" else self.companion("teacher")
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
            weight = mixup_weight(self.settings.alpha)
            return lambda tensor: weight * tensor + (1.0 - weight) * tensor[partner]
        box = sample_boxes(like.shape[0], like.shape[2:], self.settings.cutmix_edge, like.device)
        return BoxMix(box, partner)

    def unlabelled_losses(
        self, x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Squared differences, view by view, so that the memory is that of one view.

        Their sum is the mean over the voxels of all views.
        """
        summed, patches = self.ranks.summing, len(x) // self.settings.views
        voxels = mean_of_processes(mask.sum().float(), summed).clamp_min(1.0)
        for part in zip(x.split(patches), target.split(patches), mask.split(patches), strict=True):
            mixed, wanted, counted = part
            loss = probability_mse(self.probs(self.predict(mixed)), wanted, counted, summed)
            yield loss * mean_of_processes(counted.sum().float(), summed) / voxels

    def soft_supervised(
        self, x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Dice + cross-entropy of every output against the target averaged over its voxels."""
        outputs = self.outputs(x)
        if isinstance(outputs, torch.Tensor):
            return self.pseudo_label_loss(outputs, target, mask)
        losses = [
            self.pseudo_label_loss(output, *pooled(target, mask, output.shape[2:]))
            for output in outputs
        ]
        weights = self.loss.weight_factors
        return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))


def pooled(
    target: torch.Tensor, mask: torch.Tensor, spatial: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """A soft target averaged over the voxels of its mask, and where that is most of them."""
    pool: Callable[..., torch.Tensor] = (
        F.adaptive_avg_pool2d if len(spatial) == 2 else F.adaptive_avg_pool3d
    )
    counted = pool(mask.float(), tuple(spatial))
    mean = pool(target * mask, tuple(spatial)) / counted.clamp_min(1e-6)
    return mean, counted > 0.5
