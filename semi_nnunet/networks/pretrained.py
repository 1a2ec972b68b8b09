"""Initial weights from the checkpoint of another training, as far as they fit a network.

Three kinds of files are read: those of :class:`SemiPretrainTrainer`, checkpoints of nnU-Net and of
this package, and those of nnssl, the self-supervised framework of nnU-Net's authors (Wald et al.
2024, arXiv:2410.23132). nnssl stores under :data:`ADAPTATION_KEY` the name of the encoder and the
number of image channels. Our files do the same, so that nnU-Net's own fine-tuning reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError

ADAPTATION_KEY = "nnssl_adaptation_plan"  # key of a checkpoint of nnssl
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class WeightTransfer:
    """Names of a network's weights after loading those of another training.

    >>> print(WeightTransfer(("a", "b"), ("c",), ()))
    2 tensors loaded, 0 of output layers skipped; 1 others differ and stay random

    Args:
        loaded: weights of the other training.
        mismatched: weights that stay random, because the other training has none or other shapes.
        outputs: weights of the output layers, which are never loaded.
    """

    loaded: tuple[str, ...]
    mismatched: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.mismatched)
        mismatched = f"; {count} others differ and stay random" if count else ""
        return (
            f"{len(self.loaded)} tensors loaded, {len(self.outputs)} of output layers skipped"
            f"{mismatched}"
        )


def find_output_layers(build: Callable[[int], nn.Module]) -> set[str]:
    """Return the names of the weights whose shape depends on the number of classes.

    >>> sorted(find_output_layers(lambda classes: nn.Linear(4, classes)))
    ['bias', 'weight']

    Args:
        build: number of classes -> network; called on the meta device.
    """
    with torch.device("meta"):
        two, three = build(2).state_dict(), build(3).state_dict()
    return {name for name, value in two.items() if value.shape != three[name].shape}


def load_fitting_weights(
    network: nn.Module, content: Mapping[str, Any], heads: set[str]
) -> WeightTransfer:
    """Load the weights of a checkpoint that fit a network.

    If the network has more image channels than the checkpoint, each channel of the first layer
    gets the mean over the checkpoint's channels, so that equal channels give the same sum.

    Args:
        network: changed in place.
        content: of the checkpoint, with "network_weights".
        heads: names of weights that are not loaded.

    Raises:
        UserError: nothing fits, so that the file belongs to another architecture.
    """
    state, stored = network.state_dict(), rename_weights(content, network)
    keys = getattr(network, "keys_to_in_proj", ())
    first_layer = {state[f"{key}.weight"].data_ptr() for key in keys}  # it has several names
    loaded, mismatched = {}, []
    for name, value in state.items():
        if name in heads:
            continue
        candidate = stored.get(name)
        if candidate is not None and value.data_ptr() in first_layer:
            candidate = adapt_input_channels(candidate, value.shape[1])
        if candidate is None or candidate.shape != value.shape:
            mismatched.append(name)
        else:
            loaded[name] = candidate
    if not loaded:
        raise UserError(
            "none of its weights fits this network",
            fix="give a file of the same architecture, or plan the architecture of the file",
        )
    network.load_state_dict(loaded, strict=False)  # a tensor may have names without values
    outputs = tuple(sorted(heads & state.keys()))
    return WeightTransfer(tuple(loaded), tuple(mismatched), outputs)


def rename_weights(content: Mapping[str, Any], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint under the names of a network.

    nnssl's networks may have another name for their encoder; a decoder keeps its names.
    """
    weights: Weights = content["network_weights"]
    plan = content.get(ADAPTATION_KEY) or {}
    renamed = dict(weights)
    for key in ("key_to_encoder", "key_to_stem"):
        theirs, ours = plan.get(key), getattr(network, key, None)
        if isinstance(theirs, str) and isinstance(ours, str) and theirs != ours:
            start = f"{theirs}."
            renamed |= {
                f"{ours}.{name.removeprefix(start)}": value
                for name, value in weights.items()
                if name.startswith(start)
            }
    return renamed


def adapt_input_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Convert the weights (out, in, *kernel) of a first layer to another number of channels."""
    if weight.shape[1] == channels:
        return weight
    mean = weight.mean(1, keepdim=True) * (weight.shape[1] / channels)
    return mean.expand(-1, channels, *weight.shape[2:]).clone()


def build_adaptation_plan(
    network: Any,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    name: str,
    channels: int,
) -> dict[str, Any] | None:
    """Build the description that nnssl stores with the weights, for nnU-Net's fine-tuning.

    Args:
        network: the pre-trained network.
        plans: nnU-Net's plans of the pre-training.
        configuration: of these plans, with inherited values.
        name: of the configuration.
        channels: of the images.

    Returns:
        JSON values; None for a network that does not name its encoder.
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
