"""A&D: Aggregating & Decoupling (Wang & Li, NeurIPS 2023, arXiv:2310.11320).

Three decoders share one encoder. xi denoises noisy labels given the image (labelled data, sec.
3.1), psi learns with larger weights for difficult classes (labelled data, sec. 3.2), and theta, the
deployed decoder, learns from the sum of both predictions on unlabelled data (eq. 9).

Differs from the paper, whose DDIM clamps logits, which makes every step worse, and whose xi can
denoise a label without the image: here x_0 is a soft-max, labels are small relative to the noise
and t is drawn towards T, so that one step from pure noise is a prediction; noisy labels and time
start with zero weights; theta also learns from labels, and is not pulled towards the mean of the
others; difficulty weights are normalised, and an absent class keeps its weight; boxes are mixed
(CutMix). ``fidelity paper`` sets all this and the optimizer as in the paper. Always different:
nnU-Net's augmentation and losses (at full resolution for psi, xi and pseudo labels), a ramp over
steps instead of epochs, and no appearance changes of unlabelled patches in ``fidelity paper``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from semi_nnunet.core.class_weights import DifficultyWeights, hard_dice
from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.diffusion_branches import DiffusionBranches
from semi_nnunet.networks.label_diffusion import LabelDiffusion
from semi_nnunet.settings.methods import DiffusionSettings
from semi_nnunet.training.trainer import SemiTrainer, Term


class SemiDiffusionTrainer(SemiTrainer):
    """Train three decoders of one encoder; two of them teach the third on unlabelled patches."""

    settings_class = DiffusionSettings

    def companions(self) -> dict[str, nn.Module]:
        settings, classes = self.settings, self.label_manager.num_segmentation_heads
        wider = self.another_network("xi", self.num_input_channels + classes)
        branches = DiffusionBranches(wider, self.another_network("psi"))
        branches.run = lambda path: self.compiled.path(path)  # self.compiled is set later
        if settings.begins_with_image:
            branches.begin_with_image()
        diffusion = LabelDiffusion(
            branches, self.exclusive, settings.label_scale, settings.time_power,
            settings.sampling_steps, settings.clamped_logits, settings.reparameterised,
        )  # fmt: skip
        horizon, normalised = settings.difficulty_horizon_steps, settings.normalised_difficulty
        difficulty = DifficultyWeights(classes, horizon, normalised)
        return {"diffusion": diffusion, "difficulty": difficulty}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings, exclusive, diffusion = self.settings, self.exclusive, self.companion("diffusion")
        branch_weight = float(settings.unlabelled_weight > 0)
        (target, mask), annotated = self.annotation(labelled.target), labelled.annotated
        if settings.theta_on_labels or branch_weight == 0:
            yield self.supervised(labelled)
        # sec. 3.1: xi denoises the labels, given the image
        logits = diffusion.denoise_labels(self.encoder, labelled.x, target, mask, annotated)
        labels = hard_pseudo_label(self.probs(logits.detach()), exclusive)
        dice = hard_dice(labels, target, mask, settings.absent_class_dice, annotated, exclusive)
        loss = self.pseudo_label_loss(logits, target, mask, annotated=annotated)
        yield Term("denoising", loss, branch_weight, ramped=False)
        # sec. 3.2: psi gives larger weights to classes that xi finds difficult
        weights = self.companion("difficulty")(dice)
        logits = diffusion.branches.predict_psi(self.encoder, labelled.x)
        loss = self.pseudo_label_loss(logits, target, mask, weights, annotated)
        yield Term("difficulty", loss, branch_weight, ramped=False)
        # eq. 9: theta learns from both predictions on unlabelled images
        probs = self.pseudo_probs(unlabelled.x_weak)
        self.note_pseudo_labels(probs, unlabelled.mask)
        guess = hard_pseudo_label(probs, exclusive)
        mix = self.cutmix(guess)
        logits = self.predict(mix(unlabelled.x_strong))
        loss = self.pseudo_label_loss(logits, mix(guess), mix(unlabelled.mask))
        yield Term("pseudo_label", loss, settings.pseudo_label_weight)

    @property
    def encoder(self) -> Any:
        """The student's encoder, which all branches share."""
        return self.bare_network.encoder

    def pseudo_probs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of both branches' probabilities (eq. 9), or psi's if xi is not used."""
        diffusion, settings = self.companion("diffusion"), self.settings
        psi: torch.Tensor = diffusion.psi_probs(self.encoder, x)
        if not settings.diffusion_labels or self.step % settings.sampling_interval_steps:
            return psi
        return (psi + diffusion.xi_probs(self.encoder, x)) / 2

    def diagnose(self, labelled: LabelledBatch) -> None:
        """Record the Dice of both branches on labelled patches."""
        diffusion, annotated = self.companion("diffusion"), labelled.annotated
        target, mask = self.annotation(labelled.target)
        for name, predict in (("xi", diffusion.xi_probs), ("psi", diffusion.psi_probs)):
            labels = hard_pseudo_label(predict(self.encoder, labelled.x), self.exclusive)
            dice = hard_dice(labels, target, mask, 1.0, annotated, self.exclusive)
            self.records.add(f"dice/{name}", dice[1 if self.exclusive else 0 :].mean())

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        xi, psi = (self.run_log.epoch_values[f"dice/{name}"] for name in ("xi", "psi"))
        if xi < psi - 0.2:
            self.print_to_log_file(
                f"WARNING: on labelled patches the diffusion branch has Dice {xi:.2f}, psi "
                f"{psi:.2f}: the pseudo labels of diffusion contribute nothing yet"
            )

    @torch.no_grad()
    def after_optimizer_step(self, step: int) -> None:
        """Set theta <- m theta + (1 - m) mean of the other decoders (sec. 3.3), if selected."""
        settings, branches = self.settings, self.companion("diffusion").branches
        if settings.averaging != "none" and settings.unlabelled_weight > 0:
            share = 1.0 - settings.averaging_decay
            branches.pull(self.bare_network.decoder, settings.averaging == "both", share)
