"""Weights of another training as initial ones, whatever of them fits a network.

Three kinds of files are read: what :class:`SemiPretrainTrainer` writes, checkpoints of nnU-Net and
of this package, and those of nnssl, the self-supervised framework of nnU-Net's authors (Wald et al.
2024, arXiv:2410.23132). nnssl's say under :data:`ADAPTATION` where the encoder lies, and how many
channels their images had; ours say the same, so that nnU-Net's own fine-tuning reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError

ADAPTATION = "nnssl_adaptation_plan"  # key of a checkpoint of nnssl
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Transfer:
    """What became of a network's weights.

    Args:
        taken: names of those that are the other training's now.
        unlike: of those that keep their random values, as the other has none, or other shapes.
        heads: of the output layers, which are never taken.
    """

    taken: tuple[str, ...]
    unlike: tuple[str, ...]
    heads: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; {len(self.unlike)} others differ and stay random" if self.unlike else ""
        return f"{len(self.taken)} tensors taken, {len(self.heads)} of output layers left out{rest}"


def output_layers(build: Callable[[int], nn.Module]) -> set[str]:
    """Names of the weights whose shape depends on the number of classes.

    Args:
        build: number of classes -> network; it is called for networks without values.
    """
    with torch.device("meta"):
        few, many = build(2).state_dict(), build(3).state_dict()
    return {name for name, value in few.items() if value.shape != many[name].shape}


def take_weights(network: nn.Module, content: Mapping[str, Any], heads: set[str]) -> Transfer:
    """Give a network the weights of a checkpoint that fit it.

    Where its images have more channels than those of the checkpoint had, the first layer takes the
    mean of the other's channels for each, so that equal channels give the same sum as before.

    Args:
        network: it changes.
        content: of the checkpoint, with "network_weights".
        heads: names of weights to leave as they are.

    Raises:
        UserError: nothing fits, so that the file is one of another architecture.
    """
    own, found = network.state_dict(), renamed(content, network)
    keys = getattr(network, "keys_to_in_proj", ())
    first = {own[f"{key}.weight"].data_ptr() for key in keys}  # it has several names
    taken, unlike = {}, []
    for name, value in own.items():
        if name in heads:
            continue
        other = found.get(name)
        if other is not None and value.data_ptr() in first:
            other = with_channels(other, value.shape[1])
        if other is None or other.shape != value.shape:
            unlike.append(name)
        else:
            taken[name] = other
    if not taken:
        raise UserError(
            "none of its weights fits this network",
            fix="give a file of the same architecture, or plan the architecture of the file",
        )
    network.load_state_dict(taken, strict=False)  # a tensor may have other names, without values
    return Transfer(tuple(taken), tuple(unlike), tuple(sorted(heads & own.keys())))


def renamed(content: Mapping[str, Any], network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint under the names that a network has for them.

    nnssl's networks may hold their encoder elsewhere; the decoder, where they have one, keeps its
    names.
    """
    weights: Weights = content["network_weights"]
    plan = content.get(ADAPTATION) or {}
    found = dict(weights)
    for key in ("key_to_encoder", "key_to_stem"):
        theirs, ours = plan.get(key), getattr(network, key, None)
        if isinstance(theirs, str) and isinstance(ours, str) and theirs != ours:
            start = f"{theirs}."
            found |= {
                f"{ours}.{name.removeprefix(start)}": value
                for name, value in weights.items()
                if name.startswith(start)
            }
    return found


def with_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The weights (out, in, *kernel) of a first layer for another number of input channels."""
    if weight.shape[1] == channels:
        return weight
    mean = weight.mean(1, keepdim=True) * (weight.shape[1] / channels)
    return mean.expand(-1, channels, *weight.shape[2:]).clone()


def adaptation_plan(
    network: Any,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    name: str,
    channels: int,
) -> dict[str, Any] | None:
    """What nnssl writes beside the weights, for nnU-Net's fine-tuning.

    Args:
        network: that was pre-trained.
        plans: nnU-Net's, of the pre-training.
        configuration: of these plans, with all that it inherits.
        name: of the configuration.
        channels: of the images.

    Returns:
        Plain values; None for a network that does not say where its encoder lies.
    """
    if not hasattr(network, "key_to_encoder"):
        return None
    architecture = configuration["architecture"]
    return {
        "architecture_plans": {
            "arch_class_name": architecture["network_class_name"].rsplit(".", 1)[-1],
            "arch_kwargs": architecture["arch_kwargs"],
            "arch_kwargs_requiring_import": list(architecture["_kw_requires_import"]),
        },
        "pretrain_plan": {
            "dataset_name": plans["dataset_name"],
            "plans_name": plans["plans_name"],
            "transpose_forward": plans["transpose_forward"],
            "configurations": {name: dict(configuration)},
        },
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": list(configuration["patch_size"]),
        "key_to_encoder": network.key_to_encoder,
        "key_to_stem": network.key_to_stem,
        "keys_to_in_proj": list(network.keys_to_in_proj),
    }
