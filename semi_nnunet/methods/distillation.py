"""Soft labels of trained models (knowledge distillation, Hinton et al. 2015, arXiv:1503.02531).

Frozen models predict the weak view of an unlabelled patch. The student learns their mean
probabilities on the strong view of the same voxels, from one model or several (model distillation,
Radosavovic et al. 2018). Nothing is stored, and labelled patches keep their share of every step.
``semi_nnunet pseudo-dataset`` does the same with hard labels, as a data set.

Differs from the papers: the student sees a strong view with mixed boxes (CutMix), without which it
can only learn what its teacher knows; the temperature is 1, because voxels are many and their
probabilities soft at borders; the weight is on a Kullback-Leibler divergence, averaged over voxels,
whose minimum is 0. The weight is ramped up as in the other methods, although the models are
trained; all results were measured this way.

A model of another data set may teach, too, if it has all classes by name; its other classes count
as background. The default model is the Mean Teacher trained with the same plans, configuration and
fold. With a model that was trained on this fold's validation cases, the validation is optimistic.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from semi_nnunet.core.consistency import soft_label_divergence
from semi_nnunet.deploy.loading import load_networks
from semi_nnunet.deploy.trained import find_model, require_same_preprocessing
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.frozen import FrozenNetworks
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.settings.methods import DistillationSettings
from semi_nnunet.training.trainer import SemiTrainer, Term
from semi_nnunet.util.errors import UserError

FOLD = "{fold}"  # in the path of a model, replaced by the current fold


class SemiDistillationTrainer(SemiTrainer):
    """Learn the probabilities that trained, frozen models predict for unlabelled patches."""

    settings_class = DistillationSettings
    taught_by = "SemiMeanTeacherTrainer"

    def companions(self) -> dict[str, nn.Module]:
        paths = self.settings.models or [self.default_model()]
        models = [find_model(path.replace(FOLD, str(self.fold))) for path in paths]
        require_same_preprocessing(
            models, self.plans_manager, self.configuration_name, self.dataset_json
        )
        return {"models": FrozenNetworks(load_networks(models, self.dataset_json))}

    def default_model(self) -> str:
        """Return the folder of the fold that :attr:`taught_by` trained with the same plans.

        Raises:
            UserError: it is not trained to its end.
        """
        folder = Path(self.output_folder)
        name = folder.parent.name.replace(type(self).__name__, self.taught_by, 1)
        model = folder.parent.with_name(name) / folder.name
        if not (model / FINAL_CHECKPOINT).is_file():
            raise UserError(
                f"{type(self).__name__} learns from {model}, which is not trained to its end",
                fix=f"train {self.taught_by} first, or set {type(self).__name__}.models",
            )
        return str(model)

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target = self.soft_labels(unlabelled.x_weak)
        self.note_pseudo_labels(target, unlabelled.mask)
        mix, temperature = self.cutmix(target), self.settings.temperature
        logits = self.predict(mix(unlabelled.x_strong)) / temperature
        divergence = soft_label_divergence(
            logits, mix(target), mix(unlabelled.mask), self.exclusive
        )
        yield Term("soft_labels", temperature**2 * divergence, self.settings.soft_label_weight)

    def soft_labels(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean probabilities (B, classes or regions, *spatial), without gradient."""
        temperature, models = self.settings.temperature, self.companion("models")
        probs = [self.probs(self.predict_with(model, x) / temperature) for model in models]
        return torch.stack(probs).mean(0)
