"""Measure what a training step costs, on a phantom in a temporary folder.

    python scripts/benchmark_step.py -c 2d --threads 1
    python scripts/benchmark_step.py -c 3d_fullres --patch 48 64 64 --shape 64 96 96 -o costs.json

Makes the phantom, plans it with --budget cpu (or at full size with --full, or with --patch), and
hands every other word to ``semi_nnunet benchmark``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from semi_nnunet.cli.main import main as semi_nnunet
from semi_nnunet.datasets.phantom import write_phantom_dataset

FOLDERS = ("raw", "preprocessed", "results")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(24, 64, 64), help="of the phantom's volumes"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="nnU-Net's own plan")
    how.add_argument("--patch", nargs="+", help="its edges, with the network that nnU-Net plans")
    args, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ.update({f"nnUNet_{name}": str(Path(root) / name) for name in FOLDERS})
        for name in FOLDERS:
            (Path(root) / name).mkdir()
        plans = prepare(Path(root), args)
        where = ["-d", "901", "-c", args.configuration, "-p", plans]
        return semi_nnunet(["benchmark", *where, *words])


def prepare(root: Path, args: argparse.Namespace) -> str:
    """Phantom data, preprocessed and planned; returns the name of the plans."""
    folder = root / "raw" / "Dataset901_Phantom"
    write_phantom_dataset(folder, labelled=4, unlabelled=12, test=0, shape=tuple(args.shape))
    configuration = ["-c", args.configuration]
    commands = [["preprocess", "-d", "901", *configuration, "-np", "1"]]
    how = ["--patch", *args.patch] if args.patch else ["--budget", "cpu"]
    if not args.full:
        commands.append(["plan", "-d", "901", *configuration, *how])
    with contextlib.redirect_stdout(sys.stderr):
        if any(semi_nnunet(words) for words in commands):
            sys.exit("the phantom could not be prepared")
        planned = [path.stem for path in (root / "preprocessed").glob("*/nnUNetPlans*.json")]
        plans = max(planned, key=len)  # nnUNetPlans itself, or what was planned from it
        semi_nnunet(["preprocess", "-d", "901", *configuration, "-p", plans, "-np", "1"])
    return plans


if __name__ == "__main__":
    sys.exit(main())
