"""Networks beside the student are compiled where nnU-Net compiles the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from semi_nnunet.networks.average import NetworkAverage
from semi_nnunet.networks.frozen import unwrapped


class CompiledNetworks:
    """Gives each network of a training what runs it: the network itself, or torch.compile's.

    Weights and their names in checkpoints stay the network's own.

    Args:
        student: as nnU-Net made it, with its compiler's wrapper or without.
    """

    def __init__(self, student: nn.Module):
        bare = unwrapped(student)
        self.compiles = student is not bare
        self._runs: dict[nn.Module, nn.Module] = {bare: student}
        self._paths: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, network: nn.Module) -> nn.Module:
        """What runs a network of the training; nothing is compiled before its first pass."""
        bare = unwrapped(network)
        if not self.compiles:
            return bare
        if isinstance(bare, NetworkAverage):
            return NetworkAverage([self(member) for member in bare.members])
        if bare not in self._runs:
            self._runs[bare] = cast("nn.Module", torch.compile(bare))
        return self._runs[bare]

    def path(self, path: Callable[..., Any]) -> Callable[..., Any]:
        """What runs a function that goes through parts of networks, such as a method of one."""
        if not self.compiles:
            return path
        if path not in self._paths:
            self._paths[path] = torch.compile(path)
        return self._paths[path]
