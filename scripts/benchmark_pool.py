"""Time planning, checking and labelling a pool of unlabelled images of a given size.

    python scripts/benchmark_pool.py --model MODEL --image IMAGE_0000.nii.gz [--cases N ...]
    python scripts/benchmark_pool.py --model MODEL --image IMAGE_0000.nii.gz --label N

Makes pools of hard links to one image in a temporary folder, and records all but a hundred cases as
finished. Measures seconds and peak memory of the launcher before it starts a shard (finding the
unfinished shards), and of a shard before its first case (finding its unfinished cases). Nothing is
predicted.

With --label, semi_nnunet pseudo-label labels N such images on the CPU instead, with one process and
with two, one thread each; prints seconds including all imports, and the speed-up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from semi_nnunet.preprocessing.manifest import ManifestEntry
from semi_nnunet.pseudo_labels.pool import (
    LabellingRequest,
    format_records,
)
from semi_nnunet.util.shards import Shard, find_unfinished_shards

PARTS, LEFT, LINKS = 100, 100, 30_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a trained model")
    parser.add_argument("--image", type=Path, required=True, help="one it can label")
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument(
        "--label", type=int, metavar="N", help="label N images, with 1 and 2 processes"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(LabellingRequest(args.measure / "images", args.measure / "out", (args.model,)))
        return
    if args.label:
        label(args.model, args.image, args.label)
        return
    print("cases, launcher s, part s, memory MiB")
    for count in args.cases:
        with tempfile.TemporaryDirectory(dir=args.image.parent) as folder:
            make(Path(folder), args.image, count)
            command = [sys.executable, __file__, "--model", args.model, "--image", args.image]
            done = subprocess.run(
                [*command, "--measure", folder], check=True, stdout=subprocess.PIPE, text=True
            )
            print(f"{count}, {done.stdout.strip()}", flush=True)


def label(model: str, image: Path, count: int) -> None:
    """Print the seconds of one process and of two for the same pool."""
    with tempfile.TemporaryDirectory(dir=image.parent) as folder:
        make(Path(folder), image, count, left=count)
        print("processes, s")
        seconds = []
        for jobs in (1, 2):
            where = ["-i", f"{folder}/images", "-o", f"{folder}/out_{jobs}", "-m", model]
            share = ["--device", "cpu", "--jobs", str(jobs), "--threads", "1"]
            started = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "semi_nnunet.cli.main", "pseudo-label", *where, *share],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds.append(time.monotonic() - started)
            print(f"{jobs}, {seconds[-1]:.1f}", flush=True)
        print(f"{count} cases: two are {seconds[0] / seconds[1]:.2f} times as fast")


def make(folder: Path, image: Path, count: int, left: int = LEFT) -> None:
    """Make a pool in which all but ``left`` cases are labelled."""
    ending = image.name.split("_0000", 1)[1]
    for name in ("images", "out/labels", "out/parts"):
        (folder / name).mkdir(parents=True)
    lines: dict[int, list[str]] = {}
    size = image.stat().st_size
    for number in range(count):
        if number % LINKS == 0:  # a file system allows only so many
            image = Path(shutil.copy(image, folder / f"copy_{number}{ending}"))
        case = f"case_{number:06d}"
        os.link(image, folder / "images" / f"{case}_0000{ending}")
        if number >= left:
            label = folder / "out" / "labels" / f"{case}{ending}"
            os.link(image, label)
            source = format_records([folder / "images" / f"{case}_0000{ending}"])
            facts = {"uncertainty": {"entropy": 0}, "ignored": 0}
            entry = ManifestEntry(case, source, {label.name: [size, "0" * 64]}, facts)
            lines.setdefault(number % PARTS, []).append(json.dumps(entry.__dict__))
    for part, text in lines.items():
        path = folder / "out" / "parts" / f"part_{part:05d}_of_{PARTS:05d}.jsonl"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")


def measure(request: LabellingRequest) -> None:
    started = time.monotonic()
    parts = find_unfinished_shards(request, PARTS)
    planned = time.monotonic()
    left = Shard(request, parts[0], PARTS).find_unfinished()
    if not left:
        sys.exit("there is nothing left to look at: raise the number of images")
    looked = time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{planned - started:.1f}, {looked - planned:.1f}, {memory:.0f}")


if __name__ == "__main__":
    main()
