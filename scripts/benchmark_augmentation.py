"""Time nnU-Net's training transforms: batchgeneratorsv2's, and ours on whole batches.

    OMP_NUM_THREADS=1 python scripts/benchmark_augmentation.py
    OMP_NUM_THREADS=1 python scripts/benchmark_augmentation.py --device cuda

Both get the same images, labels and random numbers, and take turns in every round.
Batchgeneratorsv2 runs sample by sample on one core of the CPU, as in a worker of nnU-Net; ours runs
on the device. The seconds of a batch include drawing the numbers and collating the samples. In a
training, the loading processes draw the numbers and crop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.steps import make_reproducible
from semi_nnunet.training.loaders import NNUNET_SCALES
from semi_nnunet.util.seeds import seeded
from semi_nnunet.util.timing import Seconds
from semi_nnunet.util.timing import in_turn as in_turn_of_parts

ORGANS = 4  # and background
Batch = tuple[torch.Tensor, torch.Tensor]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--device", default="cpu", help=f"of our transforms {default}")
    add("--rounds", type=int, default=11, help=default)
    add("--batches", type=int, default=10, help=f"of a round, with other random numbers {default}")
    add("--patch", type=int, nargs="+", help="edges, default: 64 64 64 and 256 256")
    add("--batch-size", type=int, help="default: 2 in 3d, 12 in 2d")
    add("--all", action="store_true", help="not the geometry alone, too")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    print("| batch | transforms | batchgeneratorsv2, ms | ours, ms | of it drawing | ratio |")
    print("|---|---|---|---|---|---|")
    for patch in [tuple(args.patch)] if args.patch else [(64, 64, 64), (256, 256)]:
        size = args.batch_size or (2 if len(patch) == 3 else 12)
        transforms, first = nnunet_transforms(patch)
        batch = make_batch(size, first)
        kinds = [] if args.all else [("geometry", geometry(transforms))]
        for name, chosen in [*kinds, ("all", transforms)]:
            times = in_turn(chosen, batch, torch.device(args.device), args.rounds, args.batches)
            theirs, ours, drawing = (written(one, 1000) for one in times[:3])
            what = f"{size} x {' x '.join(map(str, patch))}"
            row = what, name, theirs, ours, drawing, written(times[3])
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"strong view of these patches: {strong_view(size, patch, args):.2f} ms", flush=True)


def written(values: Seconds, times: float = 1) -> str:
    """Format the median and the quartiles."""
    median, low, high = (times * one for one in (values.median, values.low, values.high))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def nnunet_transforms(patch: tuple[int, ...]) -> tuple[ComposeTransforms, tuple[int, ...]]:
    """Return nnU-Net's training transforms for an isotropic patch, and the larger initial patch."""
    degrees = 30 if len(patch) == 3 else 180
    rotation = (-degrees * torch.pi / 180, degrees * torch.pi / 180)
    first = get_patch_size(patch, *[rotation] * 3, NNUNET_SCALES)
    scales = [[0.5**level] * len(patch) for level in range(4)]
    axes = tuple(range(len(patch)))
    made = nnUNetTrainer.get_training_transforms(patch, rotation, scales, axes, False)
    return make_reproducible(made), tuple(int(edge) for edge in first)


def strong_view(size: int, patch: tuple[int, ...], args: argparse.Namespace) -> float:
    """Return the milliseconds of the appearance changes of a batch of unlabelled patches."""
    x = torch.randn(size, 1, *patch, device=args.device)
    view = partial(AppearanceView(1.0, 0.5, [False]), x)
    times = in_turn_of_parts({"view": view}, 10, torch.device(args.device))
    return 1000 * times["view"].median


def geometry(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return only rotation, scaling and mirroring."""
    kinds = (SpatialTransform, MirrorTransform)
    return ComposeTransforms([part for part in transforms.transforms if isinstance(part, kinds)])


def make_batch(size: int, shape: tuple[int, ...]) -> Batch:
    """Make noisy images of ellipsoids with labels and a border of padding."""
    torch.manual_seed(0)
    x = torch.randn(size, 1, *shape)
    labels = torch.zeros(x.shape, dtype=torch.int16)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, edge) for edge in shape], indexing="ij")
    for sample in range(size):
        for organ in range(1, ORGANS + 1):
            centre, radii = torch.rand(len(shape)) - 0.5, 0.15 + 0.25 * torch.rand(len(shape))
            parts = zip(axes, centre, radii, strict=True)
            inside = sum(((axis - at) / radius) ** 2 for axis, at, radius in parts) < 1
            labels[sample, 0][inside] = organ
            x[sample, 0][inside] += organ
    for axis, edge in enumerate(shape, start=2):
        for start in (0, edge - edge // 20):
            x.narrow(axis, start, edge // 20).zero_()
            labels.narrow(axis, start, edge // 20).fill_(-1)
    return x, labels


def in_turn(
    transforms: ComposeTransforms, batch: Batch, device: torch.device, rounds: int, batches: int
) -> list[Seconds]:
    """Return the seconds of a batch of both ways, and of drawing; and theirs / ours per round."""
    ours, (x, labels) = BatchedTransforms(transforms), (part.to(device) for part in batch)

    def run_ours(_: Batch) -> None:
        ours(x, labels, ours.draw(batch[0]))

    def run_theirs(copies: Batch) -> None:
        put_together([apply(transforms, *sample) for sample in zip(*copies, strict=True)])

    def run_drawing(_: Batch) -> None:
        ours.draw(batch[0])

    times: list[list[float]] = [[], [], []]
    for number in range(rounds + 1):
        for which, run in enumerate((run_theirs, run_ours, run_drawing)):
            seconds = sum(timed(run, batch, seed, device) for seed in range(batches))
            if number:  # in the first, memory and kernels are found
                times[which].append(seconds / batches)
    ratios = [theirs / mine for theirs, mine in zip(*times[:2], strict=True)]
    return [Seconds.of(values) for values in (*times, ratios)]


def timed(run: Callable[[Batch], None], batch: Batch, seed: int, device: torch.device) -> float:
    """Return the seconds of a batch; nnU-Net's transforms modify their input."""
    copies = batch[0].clone(), batch[1].clone()
    with seeded(seed):
        began = time.perf_counter()
        run(copies)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def apply(transforms: ComposeTransforms, image: torch.Tensor, labels: torch.Tensor) -> Any:
    return transforms(image=image, segmentation=labels)


def put_together(samples: list[dict[str, Any]]) -> None:
    """Collate samples as nnU-Net's loader does."""
    torch.stack([sample["image"] for sample in samples])
    labels = [sample["segmentation"] for sample in samples]
    levels = zip(*labels, strict=True) if isinstance(labels[0], list) else [labels]
    for level in levels:
        torch.stack(list(level))


if __name__ == "__main__":
    main()
