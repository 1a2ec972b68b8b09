"""Time ``semi_nnunet evaluate`` on one large volume with many organs, on one core.

    python scripts/benchmark_evaluate.py
    python scripts/benchmark_evaluate.py --shape 200 512 512 --organs 13

The organs are ellipsoids; the prediction is the reference shifted by two voxels. The time includes
the start of the command, reading and all checks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semi_nnunet.util.files import write_json


def ellipsoids(shape: tuple[int, ...], organs: int) -> np.ndarray:
    """Make labels 1 to ``organs`` on a grid that fills the volume."""
    rng, volume = np.random.default_rng(0), np.zeros(shape, np.uint8)
    side = int(np.ceil(np.sqrt(organs)))
    for organ in range(organs):
        row, column = divmod(organ, side)
        centre = (shape[0] / 2, (row + 0.5) * shape[1] / side, (column + 0.5) * shape[2] / side)
        radii = rng.uniform(0.25, 0.45, 3) * [shape[0] / 2, shape[1] / side, shape[2] / side]
        low, high = (np.maximum(0, np.array(centre) + s * radii).astype(int) for s in (-1, 1))
        box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
        at = np.ogrid[box]
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip(at, centre, radii, strict=True)) <= 1
        volume[box][inside] = organ + 1
    return volume


def seconds(words: list[str]) -> float:
    """Return the seconds of the command on one core."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "semi_nnunet.cli.main", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[200, 512, 512], help="%(default)s")
    parser.add_argument("--organs", type=int, default=13, help="%(default)s")
    args = parser.parse_args()
    labels = ellipsoids(tuple(args.shape), args.organs)
    with tempfile.TemporaryDirectory() as folder:
        for name, shift in (("reference", 0), ("prediction", 2)):
            (Path(folder) / name).mkdir()
            image = sitk.GetImageFromArray(np.roll(labels, shift, axis=2))
            image.SetSpacing((0.8, 0.8, 2.5))
            sitk.WriteImage(image, f"{folder}/{name}/case.nii.gz")
        names = {f"organ {k}": k for k in range(1, args.organs + 1)}
        description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **names}}
        description |= {"numTraining": 1, "file_ending": ".nii.gz"}
        write_json(f"{folder}/dataset.json", description)
        where = ["-i", f"{folder}/prediction", "-r", f"{folder}/reference"]
        whole = seconds(["evaluate", *where, "--dataset-json", f"{folder}/dataset.json"])
        print(f"{whole:.1f} s")


if __name__ == "__main__":
    main()
