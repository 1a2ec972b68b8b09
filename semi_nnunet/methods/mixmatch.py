"""MixMatch (Berthelot et al. 2019, arXiv:1905.02249) for dense labels.

Each unlabelled patch u is seen in K views u_k = h_k(g_k(u)), where g_k is a flip or quarter turn
and h_k a change of appearance. Their mean, brought back to the frame of u and sharpened, is the
guess q = sharpen(mean_k g_k^-1 p(u_k)) (eq. 6-7), which is the target g_k(q) of each view. Labelled
and unlabelled patches are shuffled and mixed. The loss is soft Dice + cross-entropy on mixed
labelled patches, and the squared difference of probabilities on mixed unlabelled ones (eq. 2-5).

Differs from the paper: boxes are mixed (CutMix), because a voxel of two blended images belongs to
neither (``mixing mixup`` is the paper's, lambda' = max(lambda, 1 - lambda), lambda ~ Beta(alpha,
alpha), eq. 8-11); the moving average guesses (``guesser student``: the paper's); both terms are
ramped and weighted by the reliability of the network; plain labelled patches are learned, too,
because mixing dilutes few labels; quarter turns need square planes and unlimited rotation, and all
geometric views need ``mirror``. ``variant paper`` undoes these differences as far as possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property

import torch

from semi_nnunet.augment.invertible import GridView, list_square_planes, sample_grid_view
from semi_nnunet.augment.mixing import (
    BoxMix,
    Mix,
    TargetPatches,
    join_patches,
    sample_boxes,
    sample_mixup_weight,
)
from semi_nnunet.core.consistency import probability_mse
from semi_nnunet.core.partial_labels import merge_probs
from semi_nnunet.core.processes import all_reduce_mean
from semi_nnunet.core.pseudo_labels import sharpen
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import MixMatchSettings
from semi_nnunet.training.teacher import TeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiMixMatchTrainer(TeacherTrainer):
    """Mix labelled patches with unlabelled ones, whose labels are sharpened mean predictions."""

    settings_class = MixMatchSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings, count = self.settings, len(labelled.x)
        yield self.supervised(labelled)
        views = [self.sample_view() for _ in range(settings.views)]
        images = [self.strong_view(view(unlabelled.x_weak)) for view in views]
        guess = self.guess(images, views)
        self.note_pseudo_labels(guess, unlabelled.mask)
        truth = TargetPatches(labelled.x, *self.annotation(labelled.target), labelled.annotated)
        guesses = [
            TargetPatches(x, view(guess), view(unlabelled.mask))
            for x, view in zip(images, views, strict=True)
        ]
        patches = join_patches([truth, *guesses])
        mixed = patches.mixed(self.sample_mix(patches.x), self.exclusive)
        loss = self.soft_supervised(mixed[:count])
        yield Term("mixed_labelled", loss, settings.mixed_labelled_weight)
        for loss in self.unlabelled_losses(mixed[count:]):
            yield Term("mixed_unlabelled", loss, settings.unlabelled_mse_weight)

    def sample_view(self) -> GridView:
        """Sample g_k: a view that keeps the patch's shape and the meaning of its orientation."""
        if not self.settings.mirror:
            return GridView()
        return sample_grid_view(self.inference_allowed_mirroring_axes or (), self.turned_planes)

    @cached_property
    def turned_planes(self) -> list[tuple[int, int]]:
        """Planes in which labelled patches are turned by 90 degrees, too.

        nnU-Net turns nearly isotropic volumes by at most 30 degrees, and others within slices.
        """
        patch_size = self.configuration_manager.patch_size
        spacing = self.configuration_manager.spacing[-len(patch_size) :]
        rotation, in_plane, _, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if max(rotation) < math.pi / 2 - 1e-6:
            return []
        planes = list_square_planes(patch_size, spacing)
        return [plane for plane in planes if not in_plane or plane == (1, 2)]

    def guess(self, images: list[torch.Tensor], views: list[GridView]) -> torch.Tensor:
        """Return q: the predictions of the views, in the frame of u, averaged and sharpened."""
        network = self.network if self.settings.guesser == "student" else self.teacher
        probs = [
            view.inverse(self.probs(self.predict_with(network, x)))
            for x, view in zip(images, views, strict=True)
        ]
        return sharpen(torch.stack(probs).mean(0), self.settings.temperature, self.exclusive)

    def sample_mix(self, x: torch.Tensor) -> Mix:
        """Sample a mix of each sample with another one of the batch."""
        partner = torch.randperm(x.shape[0], device=x.device)
        if self.settings.mixing == "mixup":
            weight = sample_mixup_weight(self.settings.alpha)
            return lambda tensor: weight * tensor + (1.0 - weight) * tensor[partner]
        box = sample_boxes(x.shape[0], x.shape[2:], self.settings.cutmix_edge, x.device)
        return BoxMix(box, partner)

    def soft_supervised(self, patches: TargetPatches) -> torch.Tensor:
        """Return Dice + cross-entropy of every output of deep supervision."""
        scale_weights = self.loss.weight_factors if self.enable_deep_supervision else ()
        return self.masked_loss.masked_at_scales(
            self.outputs(patches.x), scale_weights, patches.target, patches.mask, patches.annotated
        )

    def unlabelled_losses(self, patches: TargetPatches) -> Iterator[torch.Tensor]:
        """Yield the squared difference of each view, whose sum is the mean over all voxels.

        One view after the other needs the memory of one view.
        """
        all_voxels = all_reduce_mean(patches.mask.sum().float()).clamp_min(1.0)
        for view in patches.chunk(self.settings.views):
            probs = merge_probs(self.probs(self.predict(view.x)), view.annotated, self.exclusive)
            loss = probability_mse(probs, view.target, view.mask)
            yield loss * all_reduce_mean(view.mask.sum().float()) / all_voxels
