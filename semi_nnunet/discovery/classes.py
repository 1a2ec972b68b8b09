"""The classes of our trainers. Importing them takes seconds: :mod:`listing` knows their names."""

from __future__ import annotations

from semi_nnunet.discovery.trainers import semi_nnunet_trainers
from semi_nnunet.training.trainer import SemiTrainer


def trainer_classes() -> dict[str, type[SemiTrainer]]:
    """Name -> class of every trainer of this package."""
    return {name: getattr(semi_nnunet_trainers, name) for name in semi_nnunet_trainers.__all__}
