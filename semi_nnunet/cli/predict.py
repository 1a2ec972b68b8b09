"""Predict images with a trained model as nnUNetv2_predict does, faster and in little memory.

    semi_nnunet predict -m Dataset042_Pancreas/MODEL -i imagesTs -o predictions
    semi_nnunet predict -m MODEL -i imagesTs -o predictions --exact
    semi_nnunet predict -m MODEL -i imagesTs -o predictions --fast --coarse LOWRES_MODEL

A MODEL is a folder TRAINER__PLANS__CONFIGURATION below nnUNet_results, of our trainers or
nnU-Net's, or a fold in it. The logits of all classes are never held for the whole image. --exact
gives the labels of nnUNetv2_predict, voxel for voxel; without it the network computes in the
fastest precision of the device; --fast also leaves out the mirrored images. A bad image is named,
the others are predicted, and the exit status is not 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli.launching import add_device

    add = parser.add_argument
    add("-m", dest="model", required=True, metavar="MODEL", help="see above")
    add("-i", dest="images", type=Path, required=True, help="folder of CASE_0000.ending files")
    add("-o", dest="out", type=Path, required=True, help="folder for the segmentations")
    speed = parser.add_mutually_exclusive_group()
    for name, what in (("exact", "the labels of nnUNetv2_predict"), ("fast", "no mirrored images")):
        speed.add_argument(
            f"--{name}", dest="speed", action="store_const", const=name, default="alike", help=what
        )
    mirror = "average over images mirrored along all axes of the training (default: the axes that "
    mirror += "tune chose, where it did; none for --fast)"
    add("--mirror", action=argparse.BooleanOptionalAction, default=None, help=mirror)
    step = "between tiles, as a fraction of the patch (default: 0.5, nnU-Net's)"
    add("--step", type=float, metavar="FRACTION", help=step)
    coarse = "another model, such as the 3d_lowres one: where it sees nothing, no tile is predicted"
    add("--coarse", metavar="MODEL", help=coarse)
    most = "main memory that may be taken; an image that needs more is named (Linux)"
    add("--max-memory", type=float, metavar="GIB", help=most)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.inference.predict import predict

    files = predict(
        args.model, args.images, args.out, speed=args.speed, mirror=args.mirror, step=args.step,
        coarse=args.coarse, device=args.device, max_memory=args.max_memory,
    )  # fmt: skip
    print(f"{len(files)} images are predicted in {args.out}")
