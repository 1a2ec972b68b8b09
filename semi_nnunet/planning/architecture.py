"""Other networks in a plan: their arguments, and a patch size that their strides divide."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import find_nearest

ADAPTER_MODULE = "semi_nnunet.networks.adapters"
SMP = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3"),
    *("DeepLabV3Plus", "UPerNet", "Segformer", "DPT"),
)
MONAI = ("SegResNet", "SwinUNETR", "DynUNet", "VNet", "AttentionUnet")
PRIMUS = ("S", "B", "M", "L")
ARCHITECTURES = (
    *(f"smp.{name}" for name in SMP),
    *(f"monai.{name}" for name in MONAI),
    *(f"primus.{name}" for name in PRIMUS),
)
HALVINGS = {"SegResNet": 3, "SwinUNETR": 5, "VNet": 4}  # of MONAI's networks with a fixed number
SMP_HALVINGS = 5
TOKEN_VOXELS = 8  # along an edge of a token of Primus (its paper)


def find_adapter(network_class: str) -> str | None:
    """Return the name of our adapter, or None for a network that nnU-Net builds itself.

    >>> find_adapter("semi_nnunet.networks.adapters.SmpNetwork")
    'SmpNetwork'

    Args:
        network_class: as in plans.
    """
    module, _, name = network_class.rpartition(".")
    return name if module == ADAPTER_MODULE else None


def name_architecture_plans(plans: str, name: str | None, encoder: str) -> str:
    """Return the name of plans with another network.

    >>> name_architecture_plans("nnUNetPlans", "smp.Unet", "resnet50")
    'nnUNetPlans_smpUnet_resnet50'
    """
    if name is None:
        return plans
    suffix = f"_{encoder}" if name.startswith("smp.") else ""
    return f"{plans}_{name.replace('.', '')}{suffix}"


def replace_architecture(
    configuration: Mapping[str, Any], name: str, encoder: str, weights: str | None
) -> dict[str, Any] | None:
    """Return a copy of a plan's configuration with another network.

    Args:
        configuration: of nnU-Net's plans.
        name: one of ``KNOWN``.
        encoder: of segmentation-models-pytorch.
        weights: of the encoder: "imagenet", a file, or None.

    Returns:
        None if the network does not exist for images of this dimension.

    Raises:
        UserError: the name is unknown.
    """
    if name not in ARCHITECTURES:
        near = find_nearest(name, ARCHITECTURES)
        fix = f"did you mean {near}?" if near else f"choose from {', '.join(ARCHITECTURES)}"
        raise UserError(f"--architecture {name} does not exist", fix=fix)
    library, architecture = name.split(".")
    dimension = len(configuration["patch_size"])
    if (library == "smp" and dimension != 2) or (library == "primus" and dimension != 3):
        return None
    plan, kwargs = copy.deepcopy(dict(configuration)), dict[str, Any]()
    if library == "smp":
        halvings = SMP_HALVINGS
        kwargs = {"architecture": architecture, "encoder": encoder, "weights": weights}
        if architecture == "DPT":
            kwargs["dynamic_img_size"] = True
    elif library == "primus":
        halvings = int(math.log2(TOKEN_VOXELS))
        kwargs = {"size": architecture, "patch_embed_size": [TOKEN_VOXELS] * dimension}
    else:
        halvings, options = plan_monai_options(architecture, configuration)
        kwargs = {"architecture": architecture, "options": options}
    plan["patch_size"] = [
        round_to_multiple(edge, 2**halvings) for edge in configuration["patch_size"]
    ]
    if library == "primus":
        kwargs["patch_size"] = plan["patch_size"]
    kwargs["strides"] = [[1] * dimension] + [[2] * dimension] * halvings
    cls = {"smp": "SmpNetwork", "monai": "MonaiNetwork", "primus": "PrimusNetwork"}[library]
    plan["architecture"] = {
        "network_class_name": f"{ADAPTER_MODULE}.{cls}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": [],
    }
    return plan


def plan_monai_options(
    architecture: str, configuration: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Return the number of halvings of MONAI's network, and arguments as wide as nnU-Net's plan."""
    nnunet_kwargs = configuration["architecture"]["arch_kwargs"]
    dimension, features = len(configuration["patch_size"]), nnunet_kwargs["features_per_stage"]
    width = {
        "SegResNet": {"init_filters": max(8, features[0] // 8 * 8)},  # normalised in groups of 8
        "SwinUNETR": {"feature_size": max(12, features[0] // 12 * 12)},  # divisible by 12
        "VNet": {},  # its width is fixed
        "DynUNet": {"filters": list(features)},
        "AttentionUnet": {"channels": list(features)},
    }
    options = {"spatial_dims": dimension, **width[architecture]}
    stages = len(features)
    if architecture == "DynUNet":
        strides = [1, *[2] * (stages - 1)]
        options |= {"kernel_size": [3] * stages, "strides": strides}
        options |= {"upsample_kernel_size": strides[1:], "res_block": True}
    if architecture == "AttentionUnet":
        options |= {"strides": [2] * (stages - 1)}
    return HALVINGS.get(architecture, stages - 1), options


def round_to_multiple(edge: int, divisor: int) -> int:
    """Return the nearest multiple, at least the divisor itself.

    >>> round_to_multiple(33, 32), round_to_multiple(3, 32)
    (32, 32)
    """
    return max(divisor, round(edge / divisor) * divisor)


def measure_network_size(
    configuration: Mapping[str, Any], channels: int, classes: int
) -> tuple[int, int]:
    """Return the number of parameters, and of floating-point operations for one patch.

    Nothing is computed: the network runs on the meta device.

    Raises:
        UserError: the network cannot be built, or cannot process such a patch.
    """
    architecture, patch = configuration["architecture"], configuration["patch_size"]
    try:
        network = build_planned_network(configuration, channels, classes, allow_init=False)
        network = network.to("meta")  # shapes without values
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = network(torch.zeros((2, channels, *patch), device="meta"))
    except UserError:
        raise
    except Exception as error:  # of any library
        reason = str(error) or type(error).__name__
        raise _build_patch_error(architecture, channels, patch, reason) from error
    if tuple(output.shape) != (2, classes, *patch):
        reason = f"it returns {tuple(output.shape)}"
        raise _build_patch_error(architecture, channels, patch, reason)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def _build_patch_error(
    architecture: Mapping[str, Any], channels: int, patch: Sequence[int], reason: str
) -> UserError:
    kwargs = architecture["arch_kwargs"]
    names = [kwargs[key] for key in ("architecture", "encoder", "size") if key in kwargs]
    return UserError(
        f"{' with '.join(map(str, names))} cannot process a patch of {list(patch)} with {channels} "
        f"channels ({reason[:300]})",
        fix="choose another --architecture or --encoder, or plan a larger patch",
    )
