"""Whether a checkpoint is of the network that the plans beside it describe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import Problem, UserError

FIX = "give plans and checkpoint of one training"


def told_configuration(checkpoint: Mapping[str, Any], plans: Mapping[str, Any], model: str) -> str:
    """The configuration that a checkpoint tells it is of.

    Args:
        checkpoint: of a fold.
        plans: that lie beside it.
        model: to call it.

    Raises:
        UserError: it does not tell its configuration and trainer, or the plans lack the first.
    """
    name = checkpoint.get("init_args", {}).get("configuration")
    if not isinstance(name, str) or name not in plans["configurations"]:
        what = f"must have the configuration of its checkpoint, got none named {name!r:.80}"
        raise UserError(f"the plans of {model} {what}", fix=f"{FIX}")
    if "trainer_name" not in checkpoint:
        raise UserError(f"a checkpoint of {model} must name its trainer", fix="give another model")
    return name


def unfit(
    checkpoints: Iterable[Path], weights: Iterable[Mapping[str, torch.Tensor]], network: nn.Module
) -> Iterator[Problem]:
    """Checkpoints whose weights are of another network than the plans describe.

    Args:
        checkpoints: of the folds.
        weights: of each.
        network: that the plans describe.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for path, own in zip(checkpoints, weights, strict=True):
        found = {key: tuple(value.shape) for key, value in own.items()}
        if differing := sorted(k for k in found | wanted if found.get(k) != wanted.get(k)):
            first = differing[0]
            what = "must hold the weights of the network that plans.json describes, got "
            what += f"{first!r:.120} of shape {found.get(first)}, not {wanted.get(first)}"
            yield Problem(str(path), what, FIX)
