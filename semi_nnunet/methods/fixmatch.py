"""FixMatch (Sohn et al. 2020, arXiv:2001.07685) for segmentation.

The prediction on the weak view, where it is confident, is the label of the strong view of the same
voxels.

Differs from the paper: the moving average, which the paper evaluates, also gives the pseudo labels;
several classes have separate thresholds (FreeMatch), because a common one silences small organs;
boxes are mixed (CutMix); the loss is nnU-Net's Dice + cross-entropy over confident voxels only (eq.
4 divides by all voxels, so that few confident ones count little); the weight is ramped and
multiplied by the reliability of the network. ``variant=paper`` is the paper's except for the loss,
the changes of the strong view, and the network that is deployed: the trained one, not its average.

From four patches on, half of nnU-Net's batch is unlabelled. ``variant=whole_batch`` adds as many
unlabelled patches to the batch, as the default did before; in the same time it gains less on three
data sets (docs/results/equal_time.md, "Half of each batch").
"""

from __future__ import annotations

from collections.abc import Iterable

from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import FixMatchSettings
from semi_nnunet.training.teacher import ConfidentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiFixMatchTrainer(ConfidentTeacherTrainer):
    """Learn a teacher's confident labels of unlabelled patches from strongly changed views."""

    settings_class = FixMatchSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target, confident = self.confident_labels(unlabelled)
        mix = self.cutmix(target)
        logits = self.predict(mix(unlabelled.x_strong))
        loss = self.pseudo_label_loss(logits, mix(target), mix(confident))
        yield Term("strong", loss, self.settings.strong_weight)
