"""Which trainers there are: the classes that nnU-Net's one search file exports."""

from __future__ import annotations

from semi_nnunet.discovery.trainers import semi_nnunet_trainers
from semi_nnunet.trainer import SemiTrainer


def trainer_classes() -> dict[str, type[SemiTrainer]]:
    """Name -> class of every trainer of this package."""
    return {name: getattr(semi_nnunet_trainers, name) for name in semi_nnunet_trainers.__all__}
