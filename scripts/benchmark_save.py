"""Measure what a checkpoint of nnU-Net's default 3-D network with a teacher costs a training.

    python scripts/benchmark_save.py [--device cuda] [--folder FOLDER]

Prints how long a training waits for a checkpoint that is written at once, the share of fsync in it,
how long it waits for a checkpoint that is written during the next steps, and when that is on the
disk of the folder (default: the one for temporary files).
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from semi_nnunet.training import checkpoints
from semi_nnunet.training.checkpoints import CheckpointWriter

FEATURES, REPEATS = (32, 64, 128, 256, 320, 320), 5


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(words)
    content, writer = checkpoint(torch.device(args.device)), CheckpointWriter()
    print(f"{checkpoints.count_tensor_bytes(content) / 2**20:.0f} MiB on {args.device}, medians:")
    at_once, flushed, waited, written = (list[float]() for _ in range(4))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, writer.running(print):
        path, plain = Path(folder) / checkpoints.LATEST, Path(folder) / "plain"
        for _ in range(REPEATS):
            at_once.append(seconds(lambda: checkpoints.save(content, path)))
            torch.save(content, plain)
            flushed.append(seconds(lambda: flush(plain)))
            if args.device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            with writer.in_background():
                writer.save(content, path)
            waited.append(time.perf_counter() - began)
            writer.wait()
            written.append(time.perf_counter() - began)
    print(
        f"  at once: {statistics.median(at_once):.2f} s ({statistics.median(flushed):.2f} s fsync)"
    )
    print(f"  beside the steps: {statistics.median(waited):.2f} s, written after "
          f"{statistics.median(written):.2f} s")  # fmt: skip


def checkpoint(device: torch.device) -> dict[str, object]:
    """Return student, teacher and momentum, as in a checkpoint of Mean Teacher."""
    depth = len(FEATURES)
    student = PlainConvUNet(
        1, depth, FEATURES, nn.Conv3d, 3, [1] + [2] * (depth - 1), [2] * depth, 2,
        [2] * (depth - 1), conv_bias=True, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin_kwargs={"inplace": True},
    ).to(device)  # fmt: skip
    teacher = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.99, nesterov=True)
    for weight in student.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return {
        "network_weights": teacher.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "semi": {"student": student.state_dict(), "companions": teacher.state_dict()},
    }


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main()
