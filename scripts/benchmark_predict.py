"""Measure time and memory of a prediction, compared with nnUNetv2_predict and the same weights.

    python scripts/benchmark_predict.py                     # a CT of 200 x 512 x 512, 14 classes
    python scripts/benchmark_predict.py --size 50 256 256   # a smaller image

Makes a CT-like image and a network with random weights. Its labels mean nothing, so for speeds
other than --exact the table shows the agreement with nnU-Net's labels, not a loss of Dice. Seconds
and the peak memory of all processes together (proportional share, which counts shared pages once)
are those of single calls, including the start. GPU memory is what nvidia-smi reports for the GPU,
with the memory of its driver; "-" without a GPU.

    python scripts/benchmark_predict.py --make FOLDER         # only image and model, for later
    python scripts/benchmark_predict.py --made FOLDER --ways ...
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.challenge.sampling import ProgramCost, measure_program, sample_machine
from semi_nnunet.runs.commands import build_child_arguments
from semi_nnunet.util.files import write_json

CLASSES = 13  # and background
SPACING, PLANNED = (2.5, 0.8, 0.8), (2.5, 1.5, 1.5)
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
NNUNET = "nnUNetv2_predict"
WAYS = {
    NNUNET: ["nnUNetv2_predict_from_modelfolder", "-f", "0", "-npp", "1", "-nps", "1"],
    "semi_nnunet predict --exact": ["semi_nnunet", "predict", "--exact"],
    "semi_nnunet predict": ["semi_nnunet", "predict"],
    "semi_nnunet predict --fast": ["semi_nnunet", "predict", "--fast"],
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--size", type=int, nargs=3, default=[200, 512, 512], help=f"z y x {default}")
    add("--patch", type=int, nargs=3, default=[64, 96, 96], help=f"z y x {default}")
    add("--features", type=int, default=8, help=f"of the first stage {default}")
    add("--mirror", action=argparse.BooleanOptionalAction, default=True,
        help="whether the model was trained with mirrored images; without, predictions take an "
        "eighth of the time and as much memory")  # fmt: skip
    add("--device", default="cpu", help=default)
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all")
    add("--make", type=Path, metavar="FOLDER", help="only write image and model there")
    add("--made", type=Path, metavar="FOLDER", help="take them from there; predictions stay there")
    add("--limit", type=float, help="seconds of each way, after which it is ended")
    args = parser.parse_args(words)
    if args.make:
        make(args.make, args)
    elif args.made:
        compare(args.made, args)
    else:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), args)
            compare(Path(name), args)


def make(folder: Path, args: argparse.Namespace) -> None:
    """Write the image and the model."""
    make_image(folder / "images", args.size)
    make_model(folder / MODEL, args.patch, args.features, args.mirror)


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Predict in each way, and print a line for it.

    In the end labels are compared with those of nnU-Net, where they are there, else with those of
    the way that is told.
    """
    with sample_machine() as idle:
        time.sleep(0.5)
    if idle.gpu is not None:
        print(f"{idle.gpu.largest:.0f} MiB of the GPU are in use before")
    print("| way | seconds | memory, MiB | GPU memory, MiB |\n|---|---|---|---|", flush=True)
    for way in args.ways:
        words = [*WAYS[way], "-m", str(folder / MODEL), "-i", str(folder / "images")]
        words += ["-o", str(folder / way), "-device", args.device]
        cost = run(words, folder, args.limit)
        on_gpu = "-" if cost.gpu_memory is None else f"{cost.gpu_memory:.0f}"
        spent = f"{cost.seconds:.1f} | {cost.own_memory:.0f} | {on_gpu}"
        stopped = " (stopped)" if cost.exit_code is None else ""
        print(f"| `{way}`{stopped} | {spent} |", flush=True)
    found = {way: labels for way in WAYS if (labels := labels_in(folder / way)) is not None}
    for way, labels in list(found.items())[1:]:
        first, reference = next(iter(found.items()))
        print(f"{way}: {np.mean(labels != reference):.4%} of the voxels differ from {first}")


def labels_in(folder: Path) -> np.ndarray | None:
    """Read the labels of one way, if there are any."""
    file = folder / "ct.nii.gz"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))) if file.is_file() else None


def make_image(folder: Path, size: list[int]) -> None:
    """Make a body of air, fat and organs with noise, in Hounsfield units."""
    generator = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, count, dtype=np.float32) for count in size]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    ct = np.where((y / 0.7) ** 2 + (x / 0.9) ** 2 + 0 * z < 1, -50, -1000).astype(np.int16)
    for _ in range(CLASSES):
        at, radius = generator.uniform(-0.5, 0.5, 3), generator.uniform(0.08, 0.3)
        inside = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < radius**2
        ct[inside] = generator.integers(0, 250)
    ct += generator.normal(0, 15, ct.shape).astype(np.int16)
    image = sitk.GetImageFromArray(ct)
    image.SetSpacing(SPACING[::-1])
    folder.mkdir(parents=True)
    sitk.WriteImage(image, str(folder / "ct_0000.nii.gz"))


def make_model(folder: Path, patch: list[int], features: int, mirror: bool) -> None:
    """Make a trained model's folder with random weights of the network that nnU-Net plans."""
    stages, three = 5, [[3, 3, 3]] * 5
    network: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": [min(320, features * 2**stage) for stage in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": three,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    how = "resample_data_or_seg_to_shape"
    order = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": [100.0, 256.0, 256.0],
        "spacing": list(PLANNED),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": how,
        "resampling_fn_seg": how,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **order},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **order},
        "resampling_fn_probabilities": how,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **order},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    intensities = {"mean": 50.0, "std": 60.0, "percentile_00_5": -150.0, "percentile_99_5": 250.0}
    intensities |= {"min": -200.0, "max": 300.0, "median": 50.0}
    plans = {
        "dataset_name": "Dataset900_Benchmark",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(SPACING),
        "original_median_shape_after_transp": [200, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }
    labels = {"background": 0, **{f"organ{number}": number for number in range(1, CLASSES + 1)}}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1}
    description |= {"file_ending": ".nii.gz"}
    (folder / "fold_0").mkdir(parents=True)
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", description)
    torch.manual_seed(0)
    made = nnUNetTrainer.build_network_architecture(
        PlansManager(plans), PlansManager(plans).get_configuration("3d_fullres"), 1, CLASSES + 1,
        enable_deep_supervision=False,
    )  # fmt: skip
    content = {
        "network_weights": made.state_dict(),
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2) if mirror else None,
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


def run(words: list[str], folder: Path, limit: float | None) -> ProgramCost:
    """Measure a command; if it fails, exit with the end of its output."""
    os.environ.update(
        {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    )
    lines = list[str]()
    cost = measure_program(build_child_arguments(words), limit, say=lines.append)
    if cost.exit_code:
        raise SystemExit("\n".join(lines[-40:]))
    return cost


if __name__ == "__main__":
    main()
