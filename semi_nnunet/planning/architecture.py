"""Plan another network: its arguments, and a patch that it can halve as often as it does."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.util.errors import UserError

ADAPTER_MODULE = "semi_nnunet.networks.adapters"
SMP = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3"),
    *("DeepLabV3Plus", "UPerNet", "Segformer", "DPT"),
)
MONAI = ("SegResNet", "SwinUNETR", "DynUNet", "VNet", "AttentionUnet")
PRIMUS = ("S", "B", "M", "L")
KNOWN = (
    *(f"smp.{name}" for name in SMP),
    *(f"monai.{name}" for name in MONAI),
    *(f"primus.{name}" for name in PRIMUS),
)
HALVINGS = {"SegResNet": 3, "SwinUNETR": 5, "VNet": 4}  # of MONAI's that are not planned by us
SMP_HALVINGS = 5
TOKEN_VOXELS = 8  # voxels of a token of Primus (its paper)


def adapter_of(network_class: str) -> str | None:
    """The name of one of our adapters; None of a network that nnU-Net builds alone.

    Args:
        network_class: as plans name it.
    """
    module, _, name = network_class.rpartition(".")
    return name if module == ADAPTER_MODULE else None


def plans_of_architecture(plans: str, name: str | None, encoder: str) -> str:
    """The name of plans with another network, for example nnUNetPlans_smpUnet_resnet50."""
    if name is None:
        return plans
    encoded = f"_{encoder}" if name.startswith("smp.") else ""
    return f"{plans}_{name.replace('.', '')}{encoded}"


def with_architecture(
    configuration: Mapping[str, Any], name: str, encoder: str, weights: str | None
) -> dict[str, Any] | None:
    """A copy of a plan's configuration with another network.

    Args:
        configuration: of nnU-Net's plans.
        name: of ``KNOWN``.
        encoder: of segmentation-models-pytorch.
        weights: of the encoder: "imagenet", a file, or None.

    Returns:
        None if the network is not for images of this dimension.

    Raises:
        UserError: there is no such network.
    """
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.4)
        fix = f"did you mean {near[0]}?" if near else f"choose from {', '.join(KNOWN)}"
        raise UserError(f"--architecture {name} does not exist", fix=f"{fix}")
    library, kind = name.split(".")
    dimension = len(configuration["patch_size"])
    if (library == "smp" and dimension != 2) or (library == "primus" and dimension != 3):
        return None
    plan, kwargs = copy.deepcopy(dict(configuration)), dict[str, Any]()
    if library == "smp":
        halvings = SMP_HALVINGS
        kwargs = {"architecture": kind, "encoder": encoder, "weights": weights}
        if kind == "DPT":
            kwargs["dynamic_img_size"] = True
    elif library == "primus":
        halvings = int(math.log2(TOKEN_VOXELS))
        kwargs = {"size": kind, "patch_embed_size": [TOKEN_VOXELS] * dimension}
    else:
        halvings, options = plan_monai_options(kind, configuration)
        kwargs = {"architecture": kind, "options": options}
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


def plan_monai_options(kind: str, configuration: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How often MONAI's network halves the image, and its arguments: as wide as nnU-Net's plan."""
    planned = configuration["architecture"]["arch_kwargs"]
    dimension, features = len(configuration["patch_size"]), planned["features_per_stage"]
    width = {
        "SegResNet": {"init_filters": max(8, features[0] // 8 * 8)},  # groups of 8 are normalised
        "SwinUNETR": {"feature_size": max(12, features[0] // 12 * 12)},  # divisible by 12
        "VNet": {},  # of a fixed width
        "DynUNet": {"filters": list(features)},
        "AttentionUnet": {"channels": list(features)},
    }
    options = {"spatial_dims": dimension, **width[kind]}
    stages = len(features)
    if kind == "DynUNet":
        strides = [1, *[2] * (stages - 1)]
        options |= {"kernel_size": [3] * stages, "strides": strides}
        options |= {"upsample_kernel_size": strides[1:], "res_block": True}
    if kind == "AttentionUnet":
        options |= {"strides": [2] * (stages - 1)}
    return HALVINGS.get(kind, stages - 1), options


def round_to_multiple(edge: int, of: int) -> int:
    """At least one of it."""
    return max(of, round(edge / of) * of)


def size_of(configuration: Mapping[str, Any], channels: int, classes: int) -> tuple[int, int]:
    """Parameters, and floating-point operations of one patch, without computing anything.

    Raises:
        UserError: the network cannot be built, or cannot see such a patch.
    """
    architecture, patch = configuration["architecture"], configuration["patch_size"]
    try:
        network = build_planned_network(configuration, channels, classes, allow_init=False)
        network = network.to("meta")  # shapes without values
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            seen = network(torch.zeros((2, channels, *patch), device="meta"))
    except UserError:
        raise
    except Exception as error:  # of whatever library the network comes from
        why = str(error) or type(error).__name__
        raise _unfit(architecture, channels, patch, why) from error
    if tuple(seen.shape) != (2, classes, *patch):
        raise _unfit(architecture, channels, patch, f"it returns {tuple(seen.shape)}")
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def _unfit(
    architecture: Mapping[str, Any], channels: int, patch: Sequence[int], why: str
) -> UserError:
    kwargs = architecture["arch_kwargs"]
    named = [kwargs[key] for key in ("architecture", "encoder", "size") if key in kwargs]
    return UserError(
        f"{' with '.join(map(str, named))} cannot see a patch of {list(patch)} with {channels} "
        f"channels ({why[:300]})",
        fix="choose another --architecture or --encoder, or where the "
        "patch is at fault plan a larger one",
    )
