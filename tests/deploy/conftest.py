"""A trained model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers import save_as_trained


@pytest.fixture
def model(make_trainer) -> Path:
    """TRAINER__PLANS__CONFIGURATION of a CPS training with folds 0 and all, of other weights."""
    for fold in (0, "all"):
        trainer = make_trainer("SemiCPSTrainer", fold=fold, start=False, seed=int(fold == 0))
        trainer.initialize()
        folder = save_as_trained(trainer)
    return folder
