"""Small U-Nets, and the branches of A&D."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from semi_nnunet.networks.diffusion_branches import DiffusionBranches


def unet(kind: str, dimensions: int, channels: int) -> nn.Module:
    conv, norm = (
        (nn.Conv2d, nn.InstanceNorm2d) if dimensions == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    )
    shared = {
        "input_channels": channels, "n_stages": 3, "features_per_stage": [4, 8, 16],
        "conv_op": conv, "kernel_sizes": 3, "strides": [1, 2, 2], "num_classes": 3,
        "n_conv_per_stage_decoder": [1, 1], "conv_bias": True, "norm_op": norm,
        "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU, "deep_supervision": True,
    }  # fmt: skip
    if kind == "plain":
        return PlainConvUNet(n_conv_per_stage=[1, 1, 1], **shared)
    return ResidualEncoderUNet(n_blocks_per_stage=[1, 1, 1], **shared)


def branches(kind: str, dimensions: int) -> tuple[nn.Module, DiffusionBranches]:
    torch.manual_seed(0)
    student = unet(kind, dimensions, 2)
    return student, DiffusionBranches(unet(kind, dimensions, 5), unet(kind, dimensions, 2))
