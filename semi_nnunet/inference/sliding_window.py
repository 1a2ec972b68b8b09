"""nnU-Net's sliding window, yielding logits as soon as no later tile changes them.

nnU-Net holds the logits of all classes for the whole image. Tiles are visited in the same order
here, the first axis last, so planes before the next tile are final and a buffer of one tile's depth
is enough. The sums are the same numbers in the same order, in float16 as nnU-Net's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from torch import nn

Region = tuple[slice, slice, slice]
SUMS = torch.float16  # nnU-Net's
CHANNELS, FOLDS_AND_CLASSES = (slice(None),), (slice(None), slice(None))


@dataclass(frozen=True)
class Slab:
    """Final logits of some planes along the first axis.

    Args:
        start: index of the first plane.
        logits: (classes or regions, planes, *plane), on the device.
    """

    start: int
    logits: torch.Tensor


@dataclass(frozen=True)
class Window:
    """The way in which an image is cut into tiles and each tile is predicted.

    >>> window = Window((4, 4, 4), mirror_axes=(0, 2))
    >>> window.tile_starts((6, 4, 4))
    [[0, 2], [0], [0]]
    >>> window.flips()
    [(2,), (4,), (2, 4)]

    Args:
        patch_size: of the network, two or three axes; two: each plane is an image.
        step: between tiles, as a fraction of the patch (nnU-Net: 0.5).
        mirror_axes: axes of the patch over whose mirrored versions to average, all combinations.
        precision: of the network; None: as nnU-Net, float16 on CUDA, float32 elsewhere.
        tiles_at_once: number of tiles in a batch (nnU-Net: 1).
    """

    patch_size: tuple[int, ...]
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    precision: torch.dtype | None = None
    tiles_at_once: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a tile in three axes."""
        flat = (1,) if len(self.patch_size) == 2 else ()
        return (*flat, *self.patch_size)  # type: ignore[return-value]

    def tile_starts(self, shape: Sequence[int]) -> list[list[int]]:
        """Return where tiles begin along each axis of an image of at least one tile."""
        starts = compute_steps_for_sliding_window(
            tuple(shape[-len(self.patch_size) :]), self.patch_size, self.step
        )
        return starts if len(starts) == 3 else [list(range(shape[0])), *starts]

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which the network is called."""
        if self.precision is not None:
            enabled = self.precision != torch.float32
            return torch.autocast(device.type, self.precision, enabled=enabled)
        return torch.autocast("cuda") if device.type == "cuda" else nullcontext()

    def flips(self) -> list[tuple[int, ...]]:
        """Return the axes of a batch (B, C, *patch) that each mirrored version flips."""
        axes = [axis + 2 for axis in self.mirror_axes]
        counts = range(1, len(axes) + 1)
        return [flip for count in counts for flip in itertools.combinations(axes, count)]


def pad_to_tile(data: torch.Tensor, window: Window) -> tuple[torch.Tensor, Region]:
    """Pad an image (channels, *spatial) to at least a tile; also return where the image lies."""
    image, inside = pad_nd_image(data, window.patch_size, "constant", {"value": 0}, True, None)
    return image, tuple(inside[1:])


@torch.inference_mode()
def predict_slabs(
    network: nn.Module,
    weights: Sequence[Any],
    data: torch.Tensor,
    heads: int,
    window: Window,
    device: torch.device,
    wants: Callable[[Region], bool] = lambda region: True,
) -> Iterator[Slab]:
    """Predict an image; yield slabs that come in order and cover it.

    Args:
        network: in evaluation mode, on the device, with one output.
        weights: state dicts of the folds, whose logits are averaged.
        data: (channels, *spatial), as preprocessed.
        heads: number of classes or regions.
        window: tiles and mirrored versions.
        device: to compute on.
        wants: returns whether a region of the padded image is to be predicted. Voxels that no tile
            covers have logits of zero.

    Raises:
        FloatingPointError: a logit is infinite or not a number.
    """
    image, inside = pad_to_tile(data, window)
    tile, (starts, *in_plane) = window.shape, window.tile_starts(image.shape[1:])
    gaussian = compute_gaussian(
        window.patch_size, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
    ).view(tile)
    planes = (tile[0], *image.shape[2:])
    sums = torch.zeros((len(weights), heads, *planes), dtype=SUMS, device=device)
    counts = torch.zeros(planes, dtype=SUMS, device=device)
    first, last = inside[0].start or 0, inside[0].stop or image.shape[1]
    for start, following in itertools.zip_longest(starts, starts[1:]):
        corners = itertools.product((start,), *in_plane)
        regions = [region for corner in corners if wants(region := make_region(corner, tile))]
        for fold, state in enumerate(weights):
            if len(weights) > 1 or start == starts[0]:
                network.load_state_dict(state)
            for region, logits in predict_tiles(network, image, regions, window, device):
                sums[fold][:, :, region[1], region[2]] += logits * gaussian
        for region in regions:
            counts[:, region[1], region[2]] += gaussian
        final = tile[0] if following is None else following - start
        begin, end = max(first - start, 0), min(last - start, final)
        if begin < end:
            finished = (slice(begin, end), *inside[1:])
            mean = average_tiles(sums[FOLDS_AND_CLASSES + finished], counts[finished])
            yield Slab(start + begin - first, mean)
        if following is not None:
            sums, counts = shift_buffer(sums, 2, final), shift_buffer(counts, 0, final)


def make_region(corner: Sequence[int], tile: Sequence[int]) -> Region:
    """Return the region of a tile with this corner."""
    z, y, x = (slice(begin, begin + size) for begin, size in zip(corner, tile, strict=True))
    return z, y, x


def predict_tiles(
    network: nn.Module,
    image: torch.Tensor,
    regions: Sequence[Region],
    window: Window,
    device: torch.device,
) -> Iterator[tuple[Region, torch.Tensor]]:
    """Yield each region with its logits (classes, *tile), averaged over mirrored versions."""
    size, flips = window.tiles_at_once, window.flips()
    for batch in (regions[begin : begin + size] for begin in range(0, len(regions), size)):
        tiles = torch.stack([image[CHANNELS + region] for region in batch])
        x = tiles.reshape(*tiles.shape[:2], *window.patch_size).contiguous().to(device)
        with window.autocast(device):
            logits = network(x)
            for axes in flips:
                logits += torch.flip(network(torch.flip(x, axes)), axes)
            if flips:
                logits /= len(flips) + 1
        yield from zip(batch, logits.reshape(*logits.shape[:2], *window.shape), strict=True)


def average_tiles(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Average over tiles, then over folds, rounding to float16 after each step as nnU-Net does.

    Args:
        sums: (folds, classes, *spatial), weighted sums over tiles.
        counts: (*spatial), the sums of the weights; 0 where no tile was predicted.

    Raises:
        FloatingPointError: a logit is infinite or not a number.
    """
    total, *rest = torch.where(counts > 0, sums / counts, 0.0)
    total = total.clone()
    for fold_mean in rest:
        total += fold_mean
    if rest:
        total /= len(sums)
    if not torch.isfinite(total).all():
        raise FloatingPointError("the network's output is infinite or not a number")
    return total


def shift_buffer(buffer: torch.Tensor, axis: int, planes: int) -> torch.Tensor:
    """Drop the first planes of the buffer and append as many of zeros."""
    remaining = buffer.narrow(axis, planes, buffer.shape[axis] - planes)
    return torch.cat([remaining, torch.zeros_like(buffer.narrow(axis, 0, planes))], axis)
