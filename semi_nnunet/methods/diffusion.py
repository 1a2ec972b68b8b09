"""A&D: Aggregating & Decoupling (Wang & Li, NeurIPS 2023, arXiv:2310.11320).

One encoder is shared by three decoders. xi denoises noisy labels given the image (labelled data,
sec. 3.1), psi learns with weights for difficult classes (labelled data, sec. 3.2), theta learns on
unlabelled data from the sum of what both say (eq. 9) and is what is deployed.

Differs from the paper by default: its DDIM clamps logits, which makes every step worse, and its
branch can denoise a label without looking at the image. Here x_0 is a soft-max, labels are small
beside the noise and t is drawn towards T, so that one step from pure noise is a prediction; what
sees noisy labels and time begins at zero; theta also learns from the labels, instead of being
pulled towards the mean of the two other decoders, which is no sensible network late in training;
difficulty weights are normalised, and a class absent from a batch keeps its own (there its Dice is
.5); boxes are mixed (CutMix). ``fidelity paper`` sets all this, and
the optimizer, as the paper has it. The augmentation and the losses are nnU-Net's, those of psi, xi
and pseudo labels at full resolution; with ``fidelity paper``, too, unlabelled patches are turned
and scaled, but not changed in appearance (there: as the labelled); the ramp is one of steps (there:
of epochs).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semi_nnunet.core.difficulty import DifficultyWeights, hard_dice
from semi_nnunet.core.partial_labels import find_certain_voxels, merge_probs
from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.diffusion_branches import DiffusionBranches, NetworkPath
from semi_nnunet.networks.label_diffusion import LabelDiffusion
from semi_nnunet.settings.common import single_network_score
from semi_nnunet.settings.fidelity import FidelitySettings, paper_or
from semi_nnunet.settings.schema import setting
from semi_nnunet.training.trainer import SemiTrainer, Term


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(FidelitySettings):
    sampling_steps: int = paper_or(10, 1, "as good as ten at a tenth of the cost", low=1)
    sampling_interval_steps: int = setting(1, "xi is asked every so many steps", low=1)
    clamped_logits: bool = paper_or(
        True, False, "every DDIM step makes clamped logits worse: x_0 is b (2 p - 1) of soft-max p"
    )
    label_scale: float = paper_or(
        1.0, 0.2, "b: labels small beside the noise, so that the image is needed", low=0.01, high=1
    )
    time_power: float = paper_or(
        1.0, 3.0, "t has density t^2, drawn towards T, where sampling begins (1: uniform)", low=1
    )
    begins_with_image: bool = paper_or(
        False, True, "weights of noisy labels and of time begin at zero (as ControlNet, DiT)"
    )
    reparameterised: bool = paper_or(
        True, False, "Gumbel noise and smoothing of samples blur small organs"
    )
    pseudo_label_weight: float = paper_or(10.0, 1.0, "on nnU-Net's Dice + cross-entropy", low=0)
    diffusion_labels: bool = setting(True, "False: theta learns from psi alone (ablation)")
    theta_on_labels: bool = paper_or(False, True, "pseudo labels alone lag behind (prototype)")
    averaging: str = paper_or(
        "both", "none", "theta is no mean of xi and psi", choices=("both", "psi", "none")
    )
    averaging_decay: float = setting(0.99, "m (sec. 3.3)", low=0, below=1)
    normalised_difficulty: bool = paper_or(False, True, "without, a class may weigh 40 times more")
    absent_class_dice: float | None = paper_or(
        0.5, None, "a class that a batch does not show keeps its difficulty", low=0, high=1
    )
    difficulty_horizon_steps: int = setting(50, "A (authors' code)", low=1)
    filter_score: str = single_network_score()


class SemiDiffusionTrainer(SemiTrainer):
    settings_class = DiffusionSettings

    def companions(self) -> dict[str, nn.Module]:
        settings, classes = self.settings, self.label_manager.num_segmentation_heads
        wider = self.another_network("xi", self.num_input_channels + classes)
        branches = DiffusionBranches(wider, self.another_network("psi"))
        branches.run = self.compiled_path
        if settings.begins_with_image:
            branches.begin_with_image()
        diffusion = LabelDiffusion(
            branches,
            self.exclusive,
            settings.label_scale,
            settings.time_power,
            settings.sampling_steps,
            settings.clamped_logits,
            settings.reparameterised,
        )
        horizon, normalised = settings.difficulty_horizon_steps, settings.normalised_difficulty
        difficulty = DifficultyWeights(classes, horizon, normalised)
        return {"diffusion": diffusion, "difficulty": difficulty}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        diffusion, encoder = self.companion("diffusion"), self.encoder
        (target, mask), annotated = self.annotation(labelled.target), labelled.annotated
        if self.theta_sees_labels:
            yield self.supervised(labelled)
        # sec. 3.1: xi denoises the labels, given the image
        known = find_certain_voxels(target, mask, annotated, self.exclusive)
        logits = diffusion.denoise_labels(encoder, labelled.x, target, known)
        absent = self.settings.absent_class_dice
        found = merge_probs(self.hard_labels(logits), annotated, self.exclusive)
        dice = hard_dice(found, target, mask, absent)
        loss = self.pseudo_label_loss(logits, target, mask, annotated=annotated)
        yield Term("denoising", loss, self.branch_weight, ramped=False)
        # sec. 3.2: psi learns more of the classes that xi finds difficult
        weights = self.companion("difficulty")(dice)
        logits = diffusion.branches.predict_psi(encoder, labelled.x)
        loss = self.pseudo_label_loss(logits, target, mask, weights, annotated)
        yield Term("difficulty", loss, self.branch_weight, ramped=False)
        # eq. 9: theta learns what both say of unlabelled images
        probs = self.pseudo_probs(unlabelled.x_weak)
        self.note_pseudo_labels(probs, unlabelled.mask)
        guess = hard_pseudo_label(probs, self.exclusive)
        mix = self.cutmix(guess)
        logits = self.predict(mix(unlabelled.x_strong))
        loss = self.pseudo_label_loss(logits, mix(guess), mix(unlabelled.mask))
        yield Term("pseudo_label", loss, self.settings.pseudo_label_weight)

    @property
    def branch_weight(self) -> float:
        """Weight of the branches' own terms; 0 where no pseudo label is followed."""
        return float(self.settings.unlabelled_weight > 0)

    @property
    def theta_sees_labels(self) -> bool:
        """Whether theta learns from labels, too."""
        return bool(self.settings.theta_on_labels or self.branch_weight == 0)

    @property
    def encoder(self) -> Any:
        """The student's, which all branches share."""
        return self.bare_network.encoder

    def compiled_path(self, path: NetworkPath) -> NetworkPath:
        """A path through the encoder and a branch, compiled as one where the student is."""
        return self.compiled.path(path)

    def hard_labels(self, logits: torch.Tensor) -> torch.Tensor:
        """One-hot labels of logits, without gradient."""
        return hard_pseudo_label(self.probs(logits.detach()), self.exclusive)

    def pseudo_probs(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of both branches' probabilities (eq. 9), or psi's where xi is not asked."""
        diffusion, encoder, settings = self.companion("diffusion"), self.encoder, self.settings
        psi: torch.Tensor = diffusion.psi_probs(encoder, x)
        if not settings.diffusion_labels or self.step % settings.sampling_interval_steps:
            return psi
        return (psi + diffusion.xi_probs(encoder, x)) / 2

    def diagnose(self, labelled: LabelledBatch) -> None:
        """Note the Dice of both branches on labelled patches."""
        diffusion, first = self.companion("diffusion"), 1 if self.exclusive else 0
        target, mask = self.annotation(labelled.target)
        for name, probs_of in (("xi", diffusion.xi_probs), ("psi", diffusion.psi_probs)):
            found = hard_pseudo_label(probs_of(self.encoder, labelled.x), self.exclusive)
            found = merge_probs(found, labelled.annotated, self.exclusive)
            dice = hard_dice(found, target, mask, absent=1.0)
            self.records.add(f"dice/{name}", dice[first:].mean())

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
        """theta <- m theta + (1 - m) mean of the others (sec. 3.3), where that is asked for."""
        settings, branches = self.settings, self.companion("diffusion").branches
        if settings.averaging != "none" and settings.unlabelled_weight > 0:
            both, share = settings.averaging == "both", 1.0 - settings.averaging_decay
            branches.pull(self.bare_network.decoder, both, share)
