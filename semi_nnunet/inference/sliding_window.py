"""nnU-Net's sliding window, whose logits are handed on as soon as no later tile changes them.

nnU-Net holds the logits of all classes for the whole image. Tiles are visited in the same order
here, the first axis last, so that planes before the next tile are final: a buffer of one tile's
depth is enough. The sums are the same numbers in the same order, in float16 as nnU-Net's.
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
ALL, BOTH = (slice(None),), (slice(None), slice(None))  # channels; folds and classes


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
    """How an image is cut into tiles, and how each is predicted.

    Args:
        patch_size: of the network, two or three axes; two: each plane is an image.
        step: between tiles, as a fraction of the patch (nnU-Net: 0.5).
        mirror_axes: axes of the patch over whose mirrored versions to average, all combinations.
        precision: in which the network computes; None: as nnU-Net, float16 on CUDA, float32 else.
        tiles_at_once: that the network sees together (nnU-Net: 1).
    """

    patch_size: tuple[int, ...]
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    precision: torch.dtype | None = None
    tiles_at_once: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a tile, in three axes."""
        flat = (1,) if len(self.patch_size) == 2 else ()
        return (*flat, *self.patch_size)  # type: ignore[return-value]

    def starts(self, shape: Sequence[int]) -> list[list[int]]:
        """Where tiles begin along each of the three axes of an image of at least a tile."""
        found = compute_steps_for_sliding_window(
            tuple(shape[-len(self.patch_size) :]), self.patch_size, self.step
        )
        return found if len(found) == 3 else [list(range(shape[0])), *found]

    def computes_in(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which the network is called."""
        if self.precision is not None:
            enabled = self.precision != torch.float32
            return torch.autocast(device.type, self.precision, enabled=enabled)
        return torch.autocast("cuda") if device.type == "cuda" else nullcontext()

    def flips(self) -> list[tuple[int, ...]]:
        """The axes of a batch of tiles that each view mirrors, after the view as it is."""
        axes = [axis + 2 for axis in self.mirror_axes]
        return [
            chosen
            for count in range(len(axes))
            for chosen in itertools.combinations(axes, count + 1)
        ]


def padded(data: torch.Tensor, window: Window) -> tuple[torch.Tensor, Region]:
    """An image (channels, *spatial) of at least a tile, and where in it the image is."""
    image, inside = pad_nd_image(data, window.patch_size, "constant", {"value": 0}, True, None)
    return image, tuple(inside[1:])


@torch.inference_mode()
def slabs(
    network: nn.Module,
    weights: Sequence[Any],
    data: torch.Tensor,
    heads: int,
    window: Window,
    device: torch.device,
    wanted: Callable[[Region], bool] = lambda region: True,
) -> Iterator[Slab]:
    """Predict an image; the slabs come in order and cover it.

    Args:
        network: in evaluation mode, on the device, with one output.
        weights: state dicts of the folds, whose logits are averaged.
        data: (channels, *spatial), as preprocessed.
        heads: classes or regions.
        window: how.
        device: to compute on.
        wanted: says of a region of the image (of the padded one) whether it is predicted. What no
            tile covers has logits of zero.

    Raises:
        FloatingPointError: a logit is infinite or no number.
    """
    image, inside = padded(data, window)
    tile, (starts, *in_plane) = window.shape, window.starts(image.shape[1:])
    gaussian = compute_gaussian(
        window.patch_size, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
    ).view(tile)
    planes = (tile[0], *image.shape[2:])
    sums = torch.zeros((len(weights), heads, *planes), dtype=SUMS, device=device)
    counts = torch.zeros(planes, dtype=SUMS, device=device)
    first, last = inside[0].start or 0, inside[0].stop or image.shape[1]
    for start, following in itertools.zip_longest(starts, starts[1:]):
        corners = itertools.product((start,), *in_plane)
        regions = [
            region for region in (region_at(corner, tile) for corner in corners) if wanted(region)
        ]
        for fold, state in enumerate(weights):
            if len(weights) > 1 or start == starts[0]:
                network.load_state_dict(state)
            for region, logits in predicted(network, image, regions, window, device):
                sums[fold][:, :, region[1], region[2]] += logits * gaussian
        for region in regions:
            counts[:, region[1], region[2]] += gaussian
        final = tile[0] if following is None else following - start
        begin, end = max(first - start, 0), min(last - start, final)
        if begin < end:
            part = (slice(begin, end), *inside[1:])
            mean = mean_of(sums[BOTH + part], counts[part])
            yield Slab(start + begin - first, mean)
        if following is not None:
            sums, counts = advanced(sums, 2, final), advanced(counts, 0, final)


def region_at(corner: Sequence[int], tile: Sequence[int]) -> Region:
    """The region of a tile."""
    z, y, x = (slice(at, at + size) for at, size in zip(corner, tile, strict=True))
    return z, y, x


def predicted(
    network: nn.Module,
    image: torch.Tensor,
    regions: Sequence[Region],
    window: Window,
    device: torch.device,
) -> Iterator[tuple[Region, torch.Tensor]]:
    """The logits (classes, *tile) of each region, averaged over mirrored views."""
    size = window.tiles_at_once
    for some in (regions[at : at + size] for at in range(0, len(regions), size)):
        tiles = torch.stack([image[ALL + region] for region in some])
        x = tiles.reshape(*tiles.shape[:2], *window.patch_size).contiguous().to(device)
        with window.computes_in(device):
            logits = network(x)
            flips = window.flips()
            for axes in flips:
                logits += torch.flip(network(torch.flip(x, axes)), axes)
            if flips:
                logits /= len(flips) + 1
        yield from zip(some, logits.reshape(*logits.shape[:2], *window.shape), strict=True)


def mean_of(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The mean over tiles, then over folds, rounded to float16 after each step as nnU-Net does.

    Args:
        sums: (folds, classes, *spatial), weighted sums over tiles.
        counts: (*spatial), the sums of the weights; 0 where no tile was predicted.

    Raises:
        FloatingPointError: one is infinite or no number.
    """
    total, *others = torch.where(counts > 0, sums / counts, 0.0)
    total = total.clone()
    for one in others:
        total += one
    if others:
        total /= len(sums)
    if not torch.isfinite(total).all():
        raise FloatingPointError("the network's output is infinite or not a number")
    return total


def advanced(buffer: torch.Tensor, axis: int, planes: int) -> torch.Tensor:
    """The buffer without its first planes, and as many zeros at its end."""
    kept = buffer.narrow(axis, planes, buffer.shape[axis] - planes)
    empty = torch.zeros_like(buffer.narrow(axis, 0, planes))
    return torch.cat([kept, empty], axis)
