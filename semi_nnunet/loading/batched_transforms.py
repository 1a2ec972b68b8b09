"""nnU-Net's training transforms on a whole batch: drawn on the host, applied on any device.

:class:`BatchedTransforms` is made from nnU-Net's own ``ComposeTransforms``. Each of its steps draws
the parameters of every sample from nnU-Net's transform object, so ranges and probabilities are
those of the object; ``augment/`` applies them.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from semi_nnunet.augment import batched
from semi_nnunet.augment.batched import (
    build_sampling_grid,
    build_sampling_matrix,
    crop_centre,
    downsample_labels,
    fill_outside,
    mirror_samples,
    replace_label,
    resample_image,
    resample_labels,
    to_regions,
)
from semi_nnunet.util.errors import UserError


class BatchedTransforms:
    """nnU-Net's transforms of a training, for a batch on any device.

    The process that loads the batch draws the parameters (:meth:`draw`), with nnU-Net's own
    objects and in nnU-Net's order.

    >>> from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    >>> transforms = BatchedTransforms(ComposeTransforms([MirrorTransform((0, 1))]))
    >>> x, labels = torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    >>> x, labels = transforms(x, labels, transforms.draw(x))

    Args:
        transforms: the transforms that nnU-Net's loader would apply to each sample.

    Raises:
        UserError: transforms, or attributes of them, have no counterpart.
    """

    def __init__(self, transforms: ComposeTransforms):
        self.steps, unsupported = build_steps(transforms)
        if unsupported:
            raise UserError(
                f"augmentation=device must know every transform of the training, and does not know "
                f"{'; '.join(unsupported)}",
                fix="set augmentation=workers, which applies nnU-Net's own",
            )

    def draw(self, x: torch.Tensor) -> dict[str, Any]:
        """Draw random parameters for the samples of a batch, from the global generators.

        Args:
            x: (B, C, *spatial), used only for its shape.

        Returns:
            Parameters for :meth:`cut` and :meth:`__call__`; the only tensor holds the numbers that
            the device needs, float32.
        """
        sizes = [tuple(x.shape[2:])]
        for step in self.steps:
            sizes.append(tuple(step.size_after(sizes[-1])))
        images = [torch.empty(()).expand(x.shape[1], *size) for size in sizes[:-1]]
        drawn = [
            [step.draw(image) for step, image in zip(self.steps, images, strict=True)] for _ in x
        ]
        choices, numbers = [], list[float]()
        for index, step in enumerate(self.steps):
            choice = step.choose([sample[index] for sample in drawn], sizes[index])
            if choice is not None:
                rows = len(choice.table)
                width = len(choice.table[0]) if rows else 0
                choices.append((index, choice.host, rows, width))
                numbers += itertools.chain.from_iterable(choice.table)
        return {"steps": choices, "numbers": torch.tensor(numbers, dtype=torch.float32)}

    def cut(
        self, x: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Crop the patches before they are moved to the device.

        Only the samples that are rotated or scaled also keep their larger patches.

        Returns:
            Arguments for :meth:`__call__`.
        """
        spatial = self.steps[0] if self.steps else None
        if not isinstance(spatial, SpatialStep):
            return x, labels, drawn
        samples = next(host for index, host, *_ in drawn["steps"] if index == 0)
        patches = spatial.cut(PatchBatch(x, labels), samples)
        return patches.x, patches.labels, {**drawn, "larger": patches.larger}

    @torch.no_grad()
    def __call__(
        self, x: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Transform a batch without waiting for the device.

        Args:
            x: (B, C, *spatial).
            labels: integers (B, channels, *spatial).
            drawn: of :meth:`draw` or :meth:`cut`.

        Returns:
            Images, and labels or a list of them, as nnU-Net's loader returns them.
        """
        numbers, larger = drawn["numbers"].to(x.device, non_blocking=True), drawn.get("larger")
        if larger is not None:
            larger = tuple(tensor.to(x.device, non_blocking=True) for tensor in larger)
        x = x.clone(memory_format=torch.contiguous_format)
        labels = labels.clone(memory_format=torch.contiguous_format)
        patches, start = PatchBatch(x, labels, larger), 0
        for index, host, rows, width in drawn["steps"]:
            table = numbers[start : start + rows * width].view(rows, width)
            patches = self.steps[index].apply(patches, host, table)
            start += rows * width
        return patches.x, patches.labels


def build_steps(transforms: Any) -> tuple[list[BatchStep], list[str]]:
    """Return the steps for nnU-Net's transforms, and descriptions of unsupported ones."""
    if type(transforms) is not ComposeTransforms:
        return [], [type(transforms).__name__]
    steps: list[BatchStep] = []
    unsupported: list[str] = []
    flat, types = False, [type(transform) for transform in transforms.transforms]
    for index, transform in enumerate(transforms.transforms):
        if type(transform) in (Convert3DTo2DTransform, Convert2DTo3DTransform):
            flat = type(transform) is Convert3DTo2DTransform
            around = types[index : index + 3] if flat else types[max(index - 2, 0) : index + 1]
            if around != [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]:
                name = type(transform).__name__
                unsupported.append(f"{name} around other than one SpatialTransform")
            continue
        chance = transform if type(transform) is RandomTransform else None
        inner = transform if chance is None else transform.transform
        step, name = STEPS.get(type(inner)), type(inner).__name__
        if step is None or (chance is not None and not issubclass(step, BY_CHANCE)):
            unsupported.append(name if chance is None else f"{name} by chance")
        elif attributes := step.unsupported(inner):
            unsupported.append(f"{name} with {', '.join(attributes)}")
        elif step is SpatialStep:
            steps.append(SpatialStep(inner, flat))
        else:
            steps.append(step(inner, chance))
    return steps, unsupported


# ---- steps ----


@dataclass(frozen=True)
class PatchBatch:
    """The patches that the steps change.

    Args:
        x: (B, C, *spatial).
        labels: (B, channels, *spatial), or a list of them after the step of deep supervision.
        larger: uncropped images and labels of the samples that are rotated or scaled; None before
            ``x`` and ``labels`` are cropped.
    """

    x: torch.Tensor
    labels: Any
    larger: tuple[torch.Tensor, torch.Tensor] | None = None


class StepChoice(NamedTuple):
    """The parameters of a step for a batch.

    Args:
        host: parameters that the host needs, such as sizes and axes.
        table: numbers that the device needs, as rows of equal length.
    """

    host: Any
    table: Sequence[Sequence[float]] = ()


class BatchStep(ABC):
    """One of nnU-Net's transforms on a whole batch.

    Args:
        chance: nnU-Net's object that draws whether a sample is transformed; None: always.
    """

    def __init__(self, transform: Any, chance: Any = None):
        self.transform, self.chance = transform, chance

    @staticmethod
    def unsupported(transform: Any) -> list[str]:
        """Return the transform's attributes that the step does not support."""
        return []

    def draw(self, image: torch.Tensor) -> Any:
        """Draw the parameters of a sample from the global generators; None leaves it unchanged.

        Args:
            image: (C, *spatial) before the step, used only for its shape.
        """
        if self.chance is not None and not self.chance.get_parameters()["apply_transform"]:
            return None
        return self.parameters(image)

    def parameters(self, image: torch.Tensor) -> Any:
        """Draw the parameters of nnU-Net's transform."""
        return self.transform.get_parameters(image=image)

    def size_after(self, spatial: Sequence[int]) -> Sequence[int]:
        """Return the size of a patch after the step."""
        return spatial

    @abstractmethod
    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> StepChoice | None:
        """Combine the parameters of the samples; None if the step changes nothing."""

    @abstractmethod
    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        """Transform patches, perhaps in place.

        Args:
            table: of the :class:`StepChoice`, on the device, float32.
        """


class SpatialStep(BatchStep):
    """Rotation, scaling and the crop to the patch size; flat patches slice by slice."""

    def __init__(self, transform: Any, flat: bool = False):
        super().__init__(transform)
        self.flat, self.size = flat, tuple(int(edge) for edge in transform.patch_size)
        self._small = copy.copy(transform)  # its grid of one voxel takes no time
        self._small.patch_size, self._small._grid_cache = (1,) * len(self.size), {}
        value = transform.padding_value_image
        self.value = float(value) if transform.padding_mode_image == "constant" else 0.0
        outside = transform.padding_value_seg
        self.outside = int(outside) if transform.border_mode_seg == "constant" else 0

    @staticmethod
    def unsupported(transform: Any) -> list[str]:
        supported: dict[str, tuple[Any, ...]] = {
            "p_elastic_deform": (0,),
            "random_crop": (False,),
            "align_corners": (False,),
            "mode_image": ("bilinear", "nearest"),
            "mode_seg": ("bilinear", "nearest"),
            "padding_mode_image": ("zeros", "constant"),
            "border_mode_seg": ("zeros", "constant"),
            "seg_tiebreak": ("nearest",),
        }
        values = {name: getattr(transform, name) for name in supported}
        return [f"{name}={value}" for name, value in values.items() if value not in supported[name]]

    def parameters(self, image: torch.Tensor) -> Any:
        image = image.flatten(0, 1) if self.flat else image
        return self._small.get_parameters(image=image)

    def size_after(self, spatial: Sequence[int]) -> Sequence[int]:
        return (*spatial[: 1 if self.flat else 0], *self.size)

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> StepChoice | None:
        source = spatial[1:] if self.flat else spatial
        table = []
        for sample, params in enumerate(drawn):
            if params["affine"] is not None:
                matrix = build_sampling_matrix(params["affine"].tolist(), source, self.size)
                table.append([float(sample), *(value for row in matrix for value in row)])
        return StepChoice([int(row[0]) for row in table], table)

    def cut(self, patches: PatchBatch, samples: Sequence[int]) -> PatchBatch:
        """Crop all patches, and keep the larger patches of some samples."""
        x, labels = self._flatten(patches.x), self._flatten(patches.labels)
        larger = tuple(
            torch.stack([tensor[i] for i in samples]) if samples else tensor[:0]
            for tensor in (x, labels)
        )
        x = crop_centre(x, self.size, self.value)
        labels = crop_centre(labels, self.size, self.outside)
        if self.flat:
            depth = patches.x.shape[2]
            x, labels = x.unflatten(1, (-1, depth)), labels.unflatten(1, (-1, depth))
        return PatchBatch(x, labels, (larger[0], larger[1]))

    def _flatten(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1, 2) if self.flat else x

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        patches = self.cut(patches, host) if patches.larger is None else patches
        if host and patches.larger is not None:
            index, axes = table[:, 0].long(), len(self.size)
            grid = build_sampling_grid(table[:, 1:].view(-1, axes, axes + 1), self.size)
            mode, mode_labels = self.transform.mode_image, self.transform.mode_seg
            image = resample_image(patches.larger[0], grid, self.value, mode)
            labels = resample_labels(patches.larger[1], grid, self.outside, mode_labels)
            self._flatten(patches.x).index_copy_(0, index, image)
            self._flatten(patches.labels).index_copy_(0, index, labels)
        return PatchBatch(patches.x, patches.labels)


class MirrorStep(BatchStep):
    """Mirroring of each sample along its own axes."""

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> StepChoice | None:
        axes = [list(params["axes"]) for params in drawn]
        return StepChoice(axes) if any(axes) else None

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        return PatchBatch(mirror_samples(patches.x, host), mirror_samples(patches.labels, host))


class LabelStep(BatchStep):
    """A step without random parameters."""

    def parameters(self, image: torch.Tensor) -> Any:
        return None

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> StepChoice | None:
        return StepChoice(True)


class MaskStep(LabelStep):
    """Fill outside the body, in the channels that were normalised inside it."""

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        mask = self.transform
        outside = patches.labels[:, mask.channel_idx_in_seg] < 0
        x = fill_outside(patches.x, outside, mask.apply_to_channels, mask.set_outside_to)
        return PatchBatch(x, patches.labels)


class RemoveLabelStep(LabelStep):
    """Replacement of one label by another."""

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        old, new = self.transform.label_value, self.transform.set_to
        channels = self.transform.segmentation_channels
        return PatchBatch(patches.x, replace_label(patches.labels, old, new, channels))


class RegionsStep(LabelStep):
    """Conversion of labels to regions."""

    def __init__(self, transform: Any, chance: Any = None):
        super().__init__(transform, chance)
        self.regions = [[int(label) for label in region.tolist()] for region in transform.regions]

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        labels = patches.labels[:, self.transform.channel_in_seg]
        return PatchBatch(patches.x, to_regions(labels, self.regions))


class ScalesStep(LabelStep):
    """Labels at every scale of deep supervision."""

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        axes, scales = patches.labels.ndim - 2, self.transform.ds_scales
        scales = [scale if isinstance(scale, tuple | list) else [scale] * axes for scale in scales]
        return PatchBatch(patches.x, downsample_labels(patches.labels, scales))


class AppearanceStep(BatchStep):
    """A change of some channels of some samples; each is a row.

    A subclass defines the rows of nnU-Net's parameters (:meth:`rows`), the numbers that the device
    needs (:meth:`encode`), and the change of the rows (:meth:`change`).
    """

    @abstractmethod
    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        """Return the changed channels, each with its parameters."""

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        """Return the parameters for the host, and the numbers of each row for the device."""
        return None, [[float(value)] for value in values]

    @abstractmethod
    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        """Return rows (n, *spatial), changed by the numbers (n, k)."""

    def choose(self, drawn: Sequence[Any], spatial: Sequence[int]) -> StepChoice | None:
        rows = [
            (float(sample), float(int(channel)), value)
            for sample, params in enumerate(drawn)
            if params is not None
            for channel, value in self.rows(params, spatial)
        ]
        if not rows:
            return None
        host, numbers = self.encode([value for *_, value in rows])
        table = [[*row[:2], *row_numbers] for row, row_numbers in zip(rows, numbers, strict=True)]
        return StepChoice(host, table)

    def apply(self, patches: PatchBatch, host: Any, table: torch.Tensor) -> PatchBatch:
        x = patches.x
        index = (table[:, 0] * x.shape[1] + table[:, 1]).long()
        flat = x.flatten(0, 1)
        flat.index_copy_(0, index, self.change(flat.index_select(0, index), table[:, 2:], host))
        return patches


class NoiseStep(AppearanceStep):
    """Gaussian noise; the host draws its seed, the device the noise."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        channels, sigmas = params["apply_idx"].tolist(), params["sigmas"]
        sigmas = sigmas if isinstance(sigmas, list) else [sigmas] * len(channels)
        return list(zip(channels, sigmas, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return int(torch.randint(2**62, ())), [[float(value)] for value in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.add_noise(rows, numbers[:, 0], host)


class BlurStep(AppearanceStep):
    """Gaussian blur, with a width for each axis."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        channels = params["apply_to_channel"].nonzero()[:, 0].tolist()
        sigmas = params["sigmas"]
        sigmas = [sigmas] * len(channels) if self.transform.synchronize_channels else sigmas
        return list(zip(channels, sigmas, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        radii = [
            max(batched.kernel_radius(sigma) for sigma in axis)
            for axis in zip(*values, strict=True)
        ]
        numbers = [
            [
                weight
                for pair in zip(sigmas, radii, strict=True)
                for weight in batched.list_kernel_weights(*pair)
            ]
            for sigmas in values
        ]
        return [2 * radius + 1 for radius in radii], numbers

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.blur(rows, numbers.split(host, dim=1))


class BrightnessStep(AppearanceStep):
    """Multiplicative brightness."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        return list(zip(params["apply_to_channel"], params["multipliers"], strict=True))

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.multiply(rows, numbers[:, 0])


class ContrastStep(BrightnessStep):
    """Contrast around the mean."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        return [] if params["multipliers"] is None else super().rows(params, spatial)

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.change_contrast(rows, numbers[:, 0], self.transform.preserve_range)


class LowResolutionStep(AppearanceStep):
    """Low resolution: downsampling, and interpolation back."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        shapes = [
            [round(edge * scale) for edge, scale in zip(spatial, scales, strict=True)]
            for scales in params["scales"].tolist()
        ]
        return list(zip(params["apply_to_channel"], shapes, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return values, [[] for _ in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.lower_resolution(rows, host)


class GammaStep(AppearanceStep):
    """Gamma: a power of the values, perhaps of the inverted image."""

    def rows(self, params: Any, spatial: Sequence[int]) -> list[tuple[int, Any]]:
        if params["gamma"] is None:
            return []
        sign = [-1.0 if inverted else 1.0 for inverted in params["invert_image"]]
        columns = params["gamma"].tolist(), sign, params["retain_stats"].float().tolist()
        values = list(zip(*columns, strict=True))
        return list(zip(params["apply_to_channel"].tolist(), values, strict=True))

    def encode(self, values: list[Any]) -> tuple[Any, list[list[float]]]:
        return None, [list(value) for value in values]

    def change(self, rows: torch.Tensor, numbers: torch.Tensor, host: Any) -> torch.Tensor:
        return batched.change_row_gamma(rows, *numbers.unbind(1))


# nnU-Net's transform -> its step
STEPS: dict[type, type[BatchStep]] = {
    SpatialTransform: SpatialStep,
    MirrorTransform: MirrorStep,
    GaussianNoiseTransform: NoiseStep,
    GaussianBlurTransform: BlurStep,
    MultiplicativeBrightnessTransform: BrightnessStep,
    ContrastTransform: ContrastStep,
    SimulateLowResolutionTransform: LowResolutionStep,
    GammaTransform: GammaStep,
    MaskImageTransform: MaskStep,
    RemoveLabelTransform: RemoveLabelStep,
    ConvertSegmentationToRegionsTransform: RegionsStep,
    DownsampleSegForDSTransform: ScalesStep,
}
BY_CHANCE = (AppearanceStep,)  # the steps that RandomTransform may hold
