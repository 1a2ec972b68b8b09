"""Initial weights from the checkpoint of another training, as far as they fit a network.

Three kinds of files are read: those of :class:`SemiPretrainTrainer`, checkpoints of nnU-Net and of
this package, and those of nnssl, the self-supervised framework of nnU-Net's authors (Wald et al.
2024, arXiv:2410.23132). nnssl stores under :data:`ADAPTATION_KEY` the name of the encoder and the
number of image channels. Our files do the same, so that nnU-Net's own fine-tuning reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import format_count, list_first

ADAPTATION_KEY = "nnssl_adaptation_plan"  # key of a checkpoint of nnssl
Weights = Mapping[str, torch.Tensor]
STEM, ENCODER, DECODER, OUTPUTS = PARTS = ("stem", "encoder", "decoder", "output layers")


@dataclass(frozen=True)
class WeightTransfer:
    """Names of a network's weights after loading those of another training.

    A tensor with several names counts once.

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


@dataclass(frozen=True)
class TensorFit:
    """A tensor of a network, compared with the weights of another training.

    Args:
        name: of the tensor in the network.
        part: one of :data:`PARTS`.
        value: what the other training has for it; None: the tensor stays random.
        note: why it stays random or how the weights were adapted; "" if they are taken unchanged.
        is_alias: whether a tensor before it shares its memory.
        is_matrix: whether it has two axes or more, such as the kernel of a convolution.
    """

    name: str
    part: str
    value: torch.Tensor | None
    note: str = ""
    is_alias: bool = False
    is_matrix: bool = True


@dataclass(frozen=True)
class PartFit:
    """The tensors of a part of a network that another training provides.

    Args:
        part: one of :data:`PARTS`.
        tensors: of the part.
        taken: how many of them are taken.
        note: what is adapted, and the first tensor that stays random, with the reason.
    """

    part: str
    tensors: int
    taken: int
    note: str


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

    Args:
        network: changed in place.
        content: of the checkpoint, with "network_weights".
        heads: names of weights that are not loaded.

    Raises:
        UserError: weights are not finite, or nothing fits, so that the file belongs to another
            architecture, or to images of another dimension, of which only vectors would fit.
    """
    fits = compare_weights(network, content, heads)
    loaded = {fit.name: fit.value for fit in fits if fit.value is not None}
    matrices = [fit for fit in fits if fit.is_matrix and fit.part != OUTPUTS] or fits
    if all(fit.value is None for fit in matrices):
        reason = next((f" ({fit.note})" for fit in matrices if fit.note), "")
        raise UserError(
            f"none of its weights fits this network{reason}",
            fix="give a file of the same architecture, or plan the architecture of the file "
            "(semi_nnunet plan --like FILE)",
        )
    require_finite(loaded)
    network.load_state_dict(loaded, strict=False)  # a tensor may have names without values
    tensors = [fit for fit in fits if not fit.is_alias]
    random = [fit for fit in tensors if fit.value is None]
    return WeightTransfer(
        tuple(fit.name for fit in tensors if fit.value is not None),
        tuple(fit.name for fit in random if fit.part != OUTPUTS),
        tuple(sorted(fit.name for fit in random if fit.part == OUTPUTS)),
    )


def require_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """Raise a UserError if weights are NaN or infinite."""
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise UserError(
            f"weights that are not finite: {list_first(broken)}",
            fix="give another checkpoint: the training of this one has diverged, or the file is "
            "damaged",
        )


def compare_weights(
    network: nn.Module, content: Mapping[str, Any], heads: set[str]
) -> list[TensorFit]:
    """Compare all tensors of a network with the weights of a checkpoint, by name and shape.

    If the network has more image channels than the checkpoint, each channel of the first layer
    gets the mean over the checkpoint's channels, so that equal channels give the same sum.

    Args:
        network: may be on the meta device.
        content: of the checkpoint, with "network_weights".
        heads: names of weights that depend on the classes, and are not taken.
    """
    state, stored = network.state_dict(keep_vars=True), rename_weights(content, network)
    keys = getattr(network, "keys_to_in_proj", ())
    first_layer = {id(state[f"{key}.weight"]) for key in keys}  # it has several names
    fits, seen = list[TensorFit](), set[int]()
    for name, tensor in state.items():
        value, note = stored.get(name), ""
        part = OUTPUTS if name in heads else find_part(name, network)
        if part == OUTPUTS:
            value, note = None, "random, as they depend on the classes"
        elif value is None:
            note = f"{name} is missing"
        elif value.is_floating_point() != tensor.is_floating_point():
            note = f"{name} is of {value.dtype}, not {tensor.dtype}"
            value = None
        elif id(tensor) in first_layer and value.ndim == tensor.ndim and value.shape[1]:
            if value.shape[1] != tensor.shape[1]:
                channels = format_count(value.shape[1], "image channel")
                note = f"{channels} spread over {tensor.shape[1]}"
            value = adapt_input_channels(value, tensor.shape[1])
        if value is not None and value.shape != tensor.shape:
            note = f"{name} has shape {[*value.shape]}, not {[*tensor.shape]}"
            value = None
        is_alias, is_matrix = id(tensor) in seen, tensor.ndim > 1
        fits.append(TensorFit(name, part, value, note, is_alias, is_matrix))
        seen.add(id(tensor))
    return fits


def find_part(name: str, network: nn.Module) -> str:
    """Return the part of a network to which a tensor belongs, one of :data:`PARTS`.

    Networks that do not name their encoder have a single part, the encoder.
    """
    for part, key in ((STEM, "key_to_stem"), (ENCODER, "key_to_encoder")):
        prefix = getattr(network, key, None)
        if isinstance(prefix, str) and name.startswith(f"{prefix}."):
            return part
    return DECODER if hasattr(network, "key_to_encoder") else ENCODER


def summarise_fits(fits: Sequence[TensorFit]) -> list[PartFit]:
    """Count the tensors of each part; a tensor with several names counts once.

    >>> missing = TensorFit("b", "stem", None, "b is missing")
    >>> summarise_fits([TensorFit("a", "stem", torch.zeros(1)), missing])
    [PartFit(part='stem', tensors=2, taken=1, note='b is missing')]
    """
    summary = []
    for part in PARTS:
        members = [fit for fit in fits if fit.part == part and not fit.is_alias]
        notes = list(dict.fromkeys(fit.note for fit in members if fit.value is not None))
        random = [fit.note for fit in members if fit.value is None]
        others = f" ({len(random) - 1} others differ, too)" if len(random) > 1 else ""
        notes += [f"{random[0]}{others if part != OUTPUTS else ''}"] if random else []
        if members:
            taken = len(members) - len(random)
            summary.append(PartFit(part, len(members), taken, "; ".join(filter(None, notes))))
    return summary


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
        JSON values; None for a network that does not name its encoder, or of this package.
    """
    architecture = configuration.get("architecture", {})
    is_of_package = architecture.get("network_class_name", "").startswith("semi_nnunet.")
    if is_of_package or not hasattr(network, "key_to_encoder"):
        return None
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
        "key_to_lpe": getattr(network, "key_to_lpe", None),  # of positional embeddings
    }
