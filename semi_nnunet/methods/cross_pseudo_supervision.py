"""Cross Pseudo Supervision (Chen et al., CVPR 2021, arXiv:2106.01226).

Two networks of the same plan with different initial weights learn from each other's argmax (eq. 4)
on unlabelled patches that are mixed by boxes (CPS + CutMix, sec. 4.2). Background is a class like
the others.

Differs from the paper: pseudo labels of the weak view are learned on the strong view of the same
voxels, only for unlabelled patches (eq. 4: also for labelled ones); the loss is nnU-Net's Dice +
cross-entropy; the weight is ramped and multiplied by the reliability of the network. ``variant
paper`` has the weight of Pascal VOC from the first step on; ``ssl4mis`` does not mix.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.average import NetworkAverage
from semi_nnunet.settings.methods import RECENT_EPOCHS, CPSSettings
from semi_nnunet.training.trainer import SemiTrainer, Term


class SemiCPSTrainer(SemiTrainer):
    """Train two networks, each on the labels that the other gives to unlabelled patches."""

    settings_class = CPSSettings

    def companions(self) -> dict[str, nn.Module]:
        return {"second": self.another_network("second")}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        first, second = self.network, self.companion("second")
        yield self.supervised(labelled)
        yield self.supervised(labelled, second, "supervised_second")
        from_first = self.pseudo_label(first, unlabelled)
        from_second = self.pseudo_label(second, unlabelled)
        mix = self.cutmix(from_first)
        x, mask = mix(unlabelled.x_strong), mix(unlabelled.mask)
        for name, network, target in (
            ("first_from_second", first, from_second),
            ("second_from_first", second, from_first),
        ):
            loss = self.pseudo_label_loss(self.predict(x, network), mix(target), mask)
            yield Term(name, loss, self.settings.cps_weight)

    def pseudo_label(self, network: nn.Module, unlabelled: UnlabelledBatch) -> torch.Tensor:
        """Return a network's one-hot argmax on the weak view, without gradient."""
        probs = self.probs(self.predict_with(network, unlabelled.x_weak))
        self.note_pseudo_labels(probs, unlabelled.mask)
        return hard_pseudo_label(probs, self.exclusive)

    def validated_networks(self) -> dict[str, nn.Module]:
        return {"first": self.bare_network, "second": self.companion("second")}

    def prediction_network(self) -> nn.Module:
        networks = self.validated_networks()
        if self.settings.deploy in networks:
            return networks[self.settings.deploy]
        recent = self.history.rows[-RECENT_EPOCHS:]
        dice = {name: np.nansum([row[f"dice/{name}"] for row in recent]) for name in networks}
        names = sorted(networks, key=dice.__getitem__, reverse=True)
        best_first = [networks[name] for name in names]
        return NetworkAverage(best_first) if self.settings.deploy == "average" else best_first[0]
