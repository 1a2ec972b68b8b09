"""Measure what a training step costs on a phantom in a temporary folder.

    python scripts/benchmark_step.py -c 2d --threads 1
    python scripts/benchmark_step.py -c 3d_fullres --patch 48 64 64 --shape 64 96 96 -o costs.json

Makes the phantom, plans it with --budget cpu (or at full size with --full, or with --patch), and
passes all other words to ``semi_nnunet benchmark``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.cli.main import main as semi_nnunet
from semi_nnunet.datasets.phantom import Shape, write_phantom_dataset

NUMBER, FOLDERS = "901", ("raw", "preprocessed", "results")


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
    planned = ["--patch", *args.patch] if args.patch else ["--budget", "cpu"]
    with tempfile.TemporaryDirectory() as root:
        how_planned = [] if args.full else planned
        plans = prepare(Path(root), args.configuration, tuple(args.shape), how_planned)
        where = ["-d", NUMBER, "-c", args.configuration, "-p", plans]
        return semi_nnunet(["benchmark", *where, *words])


def prepare(
    root: Path, configuration: str, shape: Shape, how: Sequence[str], unlabelled: int = 12
) -> str:
    """Phantom data in a folder that becomes nnU-Net's, preprocessed and planned.

    Args:
        root: the folder.
        configuration: such as "2d".
        shape: of the volumes.
        how: words of ``semi_nnunet plan``; none: nnU-Net's own plans stay.
        unlabelled: how many cases without labels.

    Returns:
        The name of the plans.
    """
    os.environ.update({f"nnUNet_{name}": str(root / name) for name in FOLDERS})
    for name in FOLDERS:
        (root / name).mkdir()
    folder = root / "raw" / f"Dataset{NUMBER}_Phantom"
    write_phantom_dataset(folder, labelled=4, unlabelled=unlabelled, test=0, shape=shape)
    which = ["-d", NUMBER, "-c", configuration]
    commands = [["preprocess", *which, "-np", "1"], *([["plan", *which, *how]] if how else [])]
    with contextlib.redirect_stdout(sys.stderr):
        if any(semi_nnunet(words) for words in commands):
            sys.exit("the phantom could not be prepared")
        planned = [path.stem for path in (root / "preprocessed").glob("*/nnUNetPlans*.json")]
        plans = max(planned, key=len)  # nnUNetPlans itself, or what was planned from it
        semi_nnunet(["preprocess", *which, "-p", plans, "-np", "1"])
    return plans


if __name__ == "__main__":
    sys.exit(main())
