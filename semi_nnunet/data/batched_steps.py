"""nnU-Net's transforms as steps on a whole batch: drawn on the host, applied on any device.

A step asks nnU-Net's own transform object for the parameters of each sample, so that ranges and
probabilities are the object's; ``augment/`` applies them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from semi_nnunet.augment import batched_intensity as intensity
from semi_nnunet.augment.batched_labels import at_scales, fill_outside, replace_label, to_regions
from semi_nnunet.augment.batched_spatial import (
    crop_centre,
    mirror,
    resample_image,
    resample_labels,
    sampling_grid,
    sampling_matrix,
)


@dataclass(frozen=True)
class Patches:
    """What the steps change.

    Args:
        x: (B, C, *spatial).
        labels: (B, channels, *spatial), or a list of them after the step of deep supervision.
        larger: images and labels of the samples to be turned or scaled alone, before the crop; None
            where ``x`` and ``labels`` are not cropped yet.
    """

    x: torch.Tensor
    labels: Any
    larger: tuple[torch.Tensor, torch.Tensor] | None = None


class Choice(NamedTuple):
    """What a step does to a batch, as the host knows it.

    Args:
        known: what is needed before the launch: sizes, axes.
        table: numbers that the device needs, as rows of equal length.
    """

    known: Any
    table: Sequence[Sequence[float]] = ()


class Step(ABC):
    """One of nnU-Net's transforms on a whole batch.

    Args:
        transform: nnU-Net's object.
        chance: nnU-Net's object that draws whether a sample is transformed; None: every one is.
    """

    def __init__(self, transform: Any, chance: Any = None):
        self.transform, self.chance = transform, chance

    @staticmethod
    def unsupported(transform: Any) -> list[str]:
        """The transform's attributes that the step does not know."""
        return []

    def draw(self, image: torch.Tensor) -> Any:
        """Random parameters of a sample, from the global generators; None: it is left alone.

        Args:
            image: (C, *spatial) before the step, whose values are not looked at.
        """
        if self.chance is not None and not self.chance.get_parameters()["apply_transform"]:
            return None
        return self.parameters(image)

    def parameters(self, image: torch.Tensor) -> Any:
        """What nnU-Net's transform draws for a sample that is transformed."""
        return self.transform.get_parameters(image=image)

    def size_after(self, spatial: Sequence[int]) -> Sequence[int]:
        """The size of a patch after the step."""
        return spatial

    @abstractmethod
    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> Choice | None:
        """What the parameters of the samples come to; None: nothing is done."""

    @abstractmethod
    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        """Transform patches; their memory may be written to.

        Args:
            patches: on any device.
            known, table: of the :class:`Choice`; the table on the device, float32.
        """


class SpatialStep(Step):
    """Rotation, scaling and the crop to the patch size; of flat patches slice by slice."""

    def __init__(self, transform: Any, flat: bool = False):
        super().__init__(transform)
        self.flat, self.size = flat, tuple(int(edge) for edge in transform.patch_size)
        self._small = copy.copy(transform)  # whose grid of one voxel takes no time
        self._small.patch_size, self._small._grid_cache = (1,) * len(self.size), {}
        value = transform.padding_value_image
        self.value = float(value) if transform.padding_mode_image == "constant" else 0.0
        outside = transform.padding_value_seg
        self.outside = int(outside) if transform.border_mode_seg == "constant" else 0

    @staticmethod
    def unsupported(transform: Any) -> list[str]:
        known: dict[str, tuple[Any, ...]] = {
            "p_elastic_deform": (0,),
            "random_crop": (False,),
            "align_corners": (False,),
            "mode_image": ("bilinear", "nearest"),
            "mode_seg": ("bilinear", "nearest"),
            "padding_mode_image": ("zeros", "constant"),
            "border_mode_seg": ("zeros", "constant"),
            "seg_tiebreak": ("nearest",),
        }
        found = {name: getattr(transform, name) for name in known}
        return [f"{name}={value}" for name, value in found.items() if value not in known[name]]

    def parameters(self, image: torch.Tensor) -> Any:
        image = image.flatten(0, 1) if self.flat else image
        return self._small.get_parameters(image=image)

    def size_after(self, spatial: Sequence[int]) -> Sequence[int]:
        return (*spatial[: 1 if self.flat else 0], *self.size)

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> Choice | None:
        source = spatial[1:] if self.flat else spatial
        table = []
        for sample, params in enumerate(drawn):
            if params["affine"] is not None:
                matrix = sampling_matrix(params["affine"].tolist(), source, self.size)
                table.append([float(sample), *(value for row in matrix for value in row)])
        return Choice([int(row[0]) for row in table], table)

    def cut(self, patches: Patches, known: Any) -> Patches:
        """Crop all, and keep the larger patches of those samples alone that need them."""
        x, labels = self._flattened(patches.x), self._flattened(patches.labels)
        larger = tuple(torch.stack([p[i] for i in known]) if known else p[:0] for p in (x, labels))
        cropped = crop_centre(x, self.size, self.value)
        cropped_labels = crop_centre(labels, self.size, self.outside)
        depth = patches.x.shape[2]
        both = [
            part.unflatten(1, (-1, depth)) if self.flat else part
            for part in (cropped, cropped_labels)
        ]
        return Patches(both[0], both[1], (larger[0], larger[1]))

    def _flattened(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1, 2) if self.flat else x

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        patches = self.cut(patches, known) if patches.larger is None else patches
        if known and patches.larger is not None:
            index, axes = table[:, 0].long(), len(self.size)
            grid = sampling_grid(table[:, 1:].view(-1, axes, axes + 1), self.size)
            mode, mode_labels = self.transform.mode_image, self.transform.mode_seg
            image = resample_image(patches.larger[0], grid, self.value, mode)
            found = resample_labels(patches.larger[1], grid, self.outside, mode_labels)
            self._flattened(patches.x).index_copy_(0, index, image)
            self._flattened(patches.labels).index_copy_(0, index, found)
        return Patches(patches.x, patches.labels)


class MirrorStep(Step):
    """Mirroring of each sample along axes of its own."""

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> Choice | None:
        axes = [list(params["axes"]) for params in drawn]
        return Choice(axes) if any(axes) else None

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        return Patches(mirror(patches.x, known), mirror(patches.labels, known))


class LabelStep(Step):
    """A step without random parameters."""

    def parameters(self, image: torch.Tensor) -> Any:
        return None

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> Choice | None:
        return Choice(True)


class MaskStep(LabelStep):
    """Voxels outside the body are a value in the channels that were normalised without them."""

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        part = self.transform
        outside = patches.labels[:, part.channel_idx_in_seg] < 0
        x = fill_outside(patches.x, outside, part.apply_to_channels, part.set_outside_to)
        return Patches(x, patches.labels)


class RemoveLabelStep(LabelStep):
    """One label becomes another."""

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        part, x = self.transform, patches.x
        channels = part.segmentation_channels
        return Patches(x, replace_label(patches.labels, part.label_value, part.set_to, channels))


class RegionsStep(LabelStep):
    """Labels become regions."""

    def __init__(self, transform: Any, chance: Any = None):
        super().__init__(transform, chance)
        self.regions = [[int(label) for label in region.tolist()] for region in transform.regions]

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        labels = patches.labels[:, self.transform.channel_in_seg]
        return Patches(patches.x, to_regions(labels, self.regions))


class ScalesStep(LabelStep):
    """Labels at every scale of deep supervision."""

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        axes, scales = patches.labels.ndim - 2, self.transform.ds_scales
        each = [scale if isinstance(scale, tuple | list) else [scale] * axes for scale in scales]
        return Patches(patches.x, at_scales(patches.labels, each))


class AppearanceStep(Step):
    """A change of some channels of some samples.

    A subclass says which rows nnU-Net's parameters mean (:meth:`rows`), which numbers the device
    needs of them (:meth:`encode`), and how rows are changed (:meth:`change`).
    """

    @abstractmethod
    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        """The channels that are changed, each with what it is changed by."""

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        """What the host knows of the rows, and the numbers that the device needs of each."""
        return None, [[float(value)] for value in values]

    @abstractmethod
    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        """Rows (n, *spatial), changed by the numbers (n, k)."""

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> Choice | None:
        chosen = [
            (sample, int(channel), value)
            for sample, params in enumerate(drawn)
            if params is not None
            for channel, value in self.rows(params, spatial)
        ]
        if not chosen:
            return None
        known, numbers = self.encode([value for *_, value in chosen])
        places = [[float(sample), float(channel)] for sample, channel, _ in chosen]
        return Choice(known, [[*at, *row] for at, row in zip(places, numbers, strict=True)])

    def apply(self, patches: Patches, known: Any, table: torch.Tensor) -> Patches:
        x = patches.x
        index = (table[:, 0] * x.shape[1] + table[:, 1]).long()
        flat = x.flatten(0, 1)
        flat.index_copy_(0, index, self.change(flat.index_select(0, index), table[:, 2:], known))
        return patches


class NoiseStep(AppearanceStep):
    """Gaussian noise; its seed is drawn here, the noise itself on the device."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        channels, sd = params["apply_idx"].tolist(), params["sigmas"]
        each = sd if isinstance(sd, list) else [sd] * len(channels)
        return list(zip(channels, each, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return int(torch.randint(2**62, ())), [[float(value)] for value in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.add_noise(rows, numbers[:, 0], known)


class BlurStep(AppearanceStep):
    """Gaussian blur, with a width for each axis."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        channels = params["apply_to_channel"].nonzero()[:, 0].tolist()
        sigmas = params["sigmas"]
        each = [sigmas] * len(channels) if self.transform.synchronize_channels else sigmas
        return list(zip(channels, each, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        radii = [
            max(intensity.kernel_radius(sigma) for sigma in axis)
            for axis in zip(*values, strict=True)
        ]
        numbers = [
            [
                weight
                for pair in zip(sigmas, radii, strict=True)
                for weight in intensity.kernel(*pair)
            ]
            for sigmas in values
        ]
        return [2 * radius + 1 for radius in radii], numbers

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.blur(rows, numbers.split(known, dim=1))


class BrightnessStep(AppearanceStep):
    """Multiplicative brightness."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        return list(zip(params["apply_to_channel"], params["multipliers"], strict=True))

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.multiply(rows, numbers[:, 0])


class ContrastStep(BrightnessStep):
    """Contrast around the mean."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        return [] if params["multipliers"] is None else super().rows(params, spatial)

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.change_contrast(rows, numbers[:, 0], self.transform.preserve_range)


class LowResolutionStep(AppearanceStep):
    """Low resolution: sampled down, and interpolated back."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        shapes = [
            [round(edge * scale) for edge, scale in zip(spatial, scales, strict=True)]
            for scales in params["scales"].tolist()
        ]
        return list(zip(params["apply_to_channel"], shapes, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return values, [[] for _ in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.lower_resolution(rows, known)


class GammaStep(AppearanceStep):
    """A power of the values, of the inverted image or not."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        if params["gamma"] is None:
            return []
        sign = [-1.0 if inverted else 1.0 for inverted in params["invert_image"]]
        columns = params["gamma"].tolist(), sign, params["retain_stats"].float().tolist()
        values = list(zip(*columns, strict=True))
        return list(zip(params["apply_to_channel"].tolist(), values, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return None, [list(value) for value in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, known: Any) -> torch.Tensor:
        return intensity.change_gamma(rows, *numbers.unbind(1))
