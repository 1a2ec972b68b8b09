"""Print the table of docs/architectures.md: parameters and operations of every network.

    python scripts/list_architectures.py > docs/architectures.md

One channel, two classes; patches of 256 x 256 (2d) and 96 x 96 x 96 (3d). nnU-Net's own networks
are those it plans for such patches. Nothing is computed or trained.
"""

from __future__ import annotations

import warnings
from typing import Any

from semi_nnunet.planning.architecture import (
    ARCHITECTURES,
    measure_network_size,
    replace_architecture,
)

PATCH = {2: 256, 3: 96}
FEATURES = [32, 64, 128, 256, 512, 512, 512]
HEAD = f"""# Architectures

`semi_nnunet plan -d 42 --architecture smp.Unet --encoder resnet50` plans one of these (names of
[segmentation-models-pytorch](https://github.com/qubvel-org/segmentation_models.pytorch),
[MONAI](https://github.com/Project-MONAI/MONAI), or Primus; `pip install '.[architectures]'`). The
trainers and `nnUNetv2_predict` then use it by the name of the new plans. nnU-Net's residual
encoders are planned by its own planners (`semi_nnunet preprocess -pl nnUNetPlannerResEncM`; M, L
and XL are one network for larger patches and batches).

Deep supervision is off, as none of these networks has it; the patch becomes one that they can halve
as often as they do. UA-MT's and UniMatch's feature perturbation need an encoder (nnU-Net's, smp's);
A&D shares the encoder of nnU-Net's U-Nets. `semi_nnunet export`, for a stock nnU-Net without us, is
for nnU-Net's own networks.

One channel, two classes, one patch of {PATCH[2]} (2d) or {PATCH[3]} (3d) along each axis.

| network | dimension | encoder | million parameters | GFLOPs (multiply-adds x 2) |
|---|---|---|---|---|"""


def planned(dimension: int, residual: bool = False) -> dict[str, Any]:
    """Return nnU-Net's configuration of a patch, with U-Net or residual encoder (M, L, XL)."""
    stages = 7 if dimension == 2 else 5
    conv = f"torch.nn.modules.conv.Conv{dimension}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d"
    features = FEATURES if dimension == 2 else [32, 64, 128, 256, 320]
    kwargs = {
        "n_stages": stages, "features_per_stage": features[:stages], "conv_op": conv,
        "kernel_sizes": [[3] * dimension] * stages,
        "strides": [[1] * dimension] + [[2] * dimension] * (stages - 1),
        "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True, "norm_op": norm, "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    network = "PlainConvUNet"
    if residual:
        network = "ResidualEncoderUNet"
        del kwargs["n_conv_per_stage"]
        kwargs["n_blocks_per_stage"] = [1, 3, 4, 6, 6, 6, 6][:stages]
        kwargs["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    wanted = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return {
        "patch_size": [PATCH[dimension]] * dimension,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": kwargs,
            "_kw_requires_import": wanted,
        },
    }


def main() -> None:
    warnings.filterwarnings("ignore")
    print(HEAD)
    for dimension in (2, 3):
        row("nnU-Net's U-Net", dimension, "", planned(dimension))
        row("nnU-Net's ResEnc M, L, XL", dimension, "", planned(dimension, residual=True))
    for name in ARCHITECTURES:
        encoders = [""]
        if name.startswith("smp."):
            encoders = ["tu-vit_tiny_patch16_224"] if name == "smp.DPT" else ["resnet34"]
            encoders += ["resnet50", "vgg19_bn", "tu-hrnet_w18"] if name == "smp.Unet" else []
            encoders += ["tu-mobilenetv3_small_100"] if name == "smp.Unet" else []
        for encoder in encoders:
            for dimension in (2, 3):
                plan = replace_architecture(planned(dimension), name, encoder, None)
                if plan is not None and not (dimension == 2 and name == "monai.VNet"):
                    row(name, dimension, encoder, plan)


def row(name: str, dimension: int, encoder: str, plan: dict[str, Any]) -> None:
    parameters, operations = measure_network_size(plan, 1, 2)
    numbers = f"{parameters / 1e6:.1f} | {operations / 1e9:.1f}"
    print(f"| `{name}` | {dimension}d | {encoder} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
