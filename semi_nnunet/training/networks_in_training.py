"""What filtering, locating and the cascade ask of the networks of a training."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class NetworksInTraining(Protocol):
    """The networks of a training, as a :class:`~semi_nnunet.training.companions.CompanionTrainer`
    names them."""

    def prediction_network(self) -> nn.Module:
        """The network that would be deployed."""

    def deployed_networks(self) -> list[nn.Module]:
        """The :meth:`prediction_network`, or the networks that it averages."""

    def validated_networks(self) -> dict[str, nn.Module]:
        """Networks beside the deployed one, by name."""

    def another_network(self, name: str) -> nn.Module:
        """A network of the same plan with initial weights."""

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of logits (B, C, *spatial)."""

    @property
    def exclusive(self) -> bool:
        """Whether the classes exclude each other (softmax), or are regions (sigmoid)."""
