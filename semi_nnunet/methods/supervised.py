"""Supervised nnU-Net under the same rules: the matched baseline of every other trainer.

It uses the same steps, schedule and augmentation as a semi-supervised trainer of the same seed, and
the same labelled batches unless the method has smaller ones. It does not read unlabelled images.
"""

from __future__ import annotations

from collections.abc import Iterable

from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.training.trainer import SemiTrainer, Term


class SemiBaselineTrainer(SemiTrainer):
    """Train on labelled images only, with the same steps and settings as the other trainers."""

    uses_unlabelled = False

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None) -> Iterable[Term]:
        yield self.supervised(labelled)
