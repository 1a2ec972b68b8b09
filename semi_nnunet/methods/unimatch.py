"""UniMatch (Yang et al., CVPR 2023, arXiv:2208.09910).

FixMatch with two strong views of each patch, each mixed by its own boxes, and a third stream that
perturbs features instead of the image: half of the channels of every skip are dropped. The loss is
(L_x + (L_s1 + L_s2) / 4 + L_fp / 2) / 2 (eq. 6 and the authors' medical code); here L_x has weight
1, as in every trainer of this package, and the others half of theirs.

Differs from the paper: the moving average gives the pseudo labels; appearance changes are this
package's; every patch is mixed, with a box of 2/3 of its edges (authors: half of the patches, 2 to
40 % of the area) from the previous patch (authors: of another loader); the terms are ramped and
weighted by the reliability of the network; the loss is Dice + cross-entropy (medical code: Dice)
over confident voxels only, with the thresholds of this package's FixMatch. ``variant paper`` undoes
these differences as far as possible.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from torch import nn

from semi_nnunet.core.stochastic import add_feature_dropout
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import UniMatchSettings
from semi_nnunet.training.teacher import ConfidentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiUniMatchTrainer(ConfidentTeacherTrainer):
    """FixMatch with two changed views of each unlabelled patch and one with fewer features."""

    settings_class = UniMatchSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target, confident = self.confident_labels(unlabelled)
        second_view = self.strong_view(unlabelled.x_weak)
        for name, view in (("strong_1", unlabelled.x_strong), ("strong_2", second_view)):
            mix = self.cutmix(target)
            loss = self.pseudo_label_loss(self.predict(mix(view)), mix(target), mix(confident))
            yield Term(name, loss, self.settings.strong_weight)
        logits = self.predict(unlabelled.x_weak, self.disturbed_student)
        loss = self.pseudo_label_loss(logits, target, confident)
        yield Term("features", loss, self.settings.feature_weight)

    @cached_property
    def disturbed_student(self) -> nn.Module:
        """The student with perturbed features."""
        return add_feature_dropout(self.bare_network, self.settings.dropout, every_level=True)
