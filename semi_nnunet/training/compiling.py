"""Networks beside the student are compiled where nnU-Net compiles the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from semi_nnunet.networks.frozen import unwrapped


class CompiledNetworks:
    """Gives each network of a training what runs it: the network itself, or torch.compile's.

    Weights and their names in checkpoints stay the network's own. A network whose modules have
    hooks, such as the dropout of :mod:`semi_nnunet.core.stochastic`, runs as it is: what was
    compiled before would not notice them.

    Args:
        student: as nnU-Net made it, with its compiler's wrapper or without.
    """

    def __init__(self, student: nn.Module):
        bare = unwrapped(student)
        self.compiles = student is not bare
        self._runs: dict[nn.Module, Callable[..., Any]] = {bare: student}
        self._paths: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, network: nn.Module) -> Callable[..., Any]:
        """What runs a network of the training; nothing is compiled before its first pass."""
        bare = unwrapped(network)
        if not self.compiles or has_hooks(bare):
            return bare
        if bare not in self._runs:
            self._runs[bare] = torch.compile(bare)
        return self._runs[bare]

    def path(self, path: Callable[..., Any], *networks: nn.Module) -> Callable[..., Any]:
        """What runs a function that goes through parts of networks, such as a method of one.

        Args:
            path: the function, which takes the networks as arguments or owns them.
            networks: whose hooks would be overlooked.
        """
        if not self.compiles or any(map(has_hooks, networks)):
            return path
        if path not in self._paths:
            self._paths[path] = torch.compile(path)
        return self._paths[path]


def has_hooks(network: nn.Module) -> bool:
    """Whether a forward pass of the network calls more than its modules."""
    return any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())
