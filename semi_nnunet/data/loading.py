"""Batches as a function of (seed, stream, step, rank): workers and restarts change nothing.

nnU-Net's own patch sampling and batchgeneratorsv2 transforms run inside; torch's DataLoader brings
the batches of the coming steps in worker processes.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset

from semi_nnunet.data.batched_transforms import BatchedTransforms
from semi_nnunet.util.seeds import seeded

APPEARANCE = (
    GaussianNoiseTransform,
    GaussianBlurTransform,
    MultiplicativeBrightnessTransform,
    ContrastTransform,
    SimulateLowResolutionTransform,
    GammaTransform,
)
INTERPOLATED = (SpatialTransform, Convert3DTo2DTransform, Convert2DTo3DTransform)
PREFETCHED = 2  # batches that a worker process prepares ahead
LABEL_ONLY = (DownsampleSegForDSTransform, ConvertSegmentationToRegionsTransform)


@dataclass(frozen=True)
class LabelledBatch:
    """Patches with labels.

    Args:
        x: (B, C, *spatial).
        target: as nnU-Net's loss wants it.
        keys: the case ids.
        annotated: bool (B, classes or regions), which of them each patch annotates; None where
            every case of the data set annotates all.
    """

    x: torch.Tensor
    target: Any
    keys: tuple[str, ...]
    annotated: torch.Tensor | None = None


@dataclass(frozen=True)
class UnlabelledBatch:
    """Patches without labels.

    Args:
        x_weak: (B, C, *spatial), geometry only.
        x_strong: the same voxels after appearance changes.
        mask: bool (B, 1, *spatial), False in the padding outside the image.
        keys: the case ids.
    """

    x_weak: torch.Tensor
    x_strong: torch.Tensor
    mask: torch.Tensor
    keys: tuple[str, ...]


def reproducible(transform: BasicTransform) -> BasicTransform:
    """A copy of nnU-Net's transforms whose result depends on the random numbers alone.

    nnU-Net's blur times two implementations and takes the faster one; they differ in the last bits.
    """
    transform = copy.deepcopy(transform)
    for part in getattr(transform, "transforms", [transform]):
        inner = part.transform if isinstance(part, RandomTransform) else part
        if hasattr(inner, "benchmark"):
            inner.benchmark = False
    return transform


def geometry_of(transforms: ComposeTransforms, interpolated: bool = True) -> ComposeTransforms:
    """nnU-Net's training transforms without those that change appearance or only make targets.

    What stays is applied to unlabelled images: mirroring, in a cascade the augmentation of the
    previous stage's channels, and, if ``interpolated``, rotation, scaling and the crop that goes
    with them. The removal of the label -1 goes, too: it marks padding.
    """
    goes = (*APPEARANCE, *LABEL_ONLY, RemoveLabelTransform, *(() if interpolated else INTERPOLATED))

    def stays(part: BasicTransform) -> bool:
        return not isinstance(part.transform if isinstance(part, RandomTransform) else part, goes)

    return ComposeTransforms([part for part in transforms.transforms if stays(part)])


class UnlabelledSampling(nnUNetDataLoader):
    """nnU-Net's patch sampling for images without labels, where an ignore label plays no part."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.has_ignore = False

    def get_bbox(self, data_shape: Any, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """nnU-Net's box, moved back inside where it looked for foreground beyond the upper end."""
        lower, _ = super().get_bbox(data_shape, *args, **kwargs)
        for axis, (size, patch, pad) in enumerate(
            zip(data_shape, self.patch_size, self.need_to_pad, strict=True)
        ):
            lower[axis] = min(lower[axis], max(size - patch, 0) + pad // 2 + pad % 2)
        return lower, [start + patch for start, patch in zip(lower, self.patch_size, strict=True)]


class StepDataset(Dataset[list[dict[str, dict[str, Any]]]]):
    """Item ``step`` is what optimizer step ``step`` trains on: ``accumulate_batches`` batches.

    Args:
        streams: name -> nnU-Net data loader; each batch is {name: {"data", "target", "keys"}}.
        seed: of the training.
        rank: of the process, so that DDP processes see different patches.
        accumulate_batches: batches an optimizer step adds up.
        augmentations: stream -> the transforms that are applied to its batches later, on the
            device; their random numbers are drawn here, as "drawn" of the batch.
    """

    def __init__(
        self,
        streams: Mapping[str, nnUNetDataLoader],
        seed: int,
        rank: int,
        accumulate_batches: int = 1,
        augmentations: Mapping[str, BatchedTransforms] | None = None,
    ):
        self.streams, self.seed, self.rank = dict(streams), seed, rank
        self.accumulate_batches = accumulate_batches
        self.augmentations = dict(augmentations or {})

    def __getitem__(self, step: int) -> list[dict[str, dict[str, Any]]]:
        return [
            {name: self._batch(name, step, part) for name in self.streams}
            for part in range(self.accumulate_batches)
        ]

    def cases_of(self, step: int) -> list[str]:
        """The cases whose images the batches of a step are cut from; none is read for it."""
        cases: list[str] = []
        for part in range(self.accumulate_batches):
            for name, loader in self.streams.items():
                with seeded(self.seed, name, step, self.rank, part):
                    cases += map(str, loader.get_indices())  # the first that a batch draws
        return cases

    def _batch(self, stream: str, step: int, part: int) -> dict[str, Any]:
        with seeded(self.seed, stream, step, self.rank, part):
            batch = dict(self.streams[stream].generate_train_batch())
            if (later := self.augmentations.get(stream)) is not None:
                x, labels = batch["data"], batch["target"]
                x, labels, drawn = later.cut(x, labels, later.draw(x))
                batch |= {"data": x, "target": labels, "drawn": drawn}
        return {**batch, "keys": tuple(str(key) for key in batch["keys"])}


class StepLoader(Iterator[Any]):
    """Endless iterator over the steps ``first, first + 1, ...``.

    Args:
        dataset: see :class:`StepDataset`.
        first: the step to begin with, which is all that resuming needs.
        workers: processes that prepare batches ahead; 0 prepares each here when it is asked for.
        pin_memory: for a CUDA device.
        period: wrap around after so many steps: epochs are validated on the same batches.

    Attributes:
        waited: seconds in which batches were waited for, without the first, before which workers
            start.
        begun: when the first batch came, in seconds of time.perf_counter; None: not yet.
    """

    def __init__(
        self,
        dataset: StepDataset,
        first: int,
        workers: int,
        pin_memory: bool,
        period: int | None = None,
    ):
        self.dataset, self.first, self.period = dataset, first, period
        self.workers, self.pin_memory = workers, pin_memory
        self._batches: Iterator[Any] | None = None
        self._given = 0
        self.waited = 0.0
        self.begun: float | None = None

    def _steps(self) -> Iterator[int]:
        return map(self._step, itertools.count())

    def _step(self, number: int) -> int:
        """The step of the batch of that number, from 0."""
        return self.first + number if self.period is None else (self.first + number) % self.period

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(
                DataLoader(
                    self.dataset,
                    batch_size=None,
                    sampler=self._steps(),  # type: ignore[arg-type]
                    num_workers=self.workers,
                    pin_memory=self.pin_memory,
                    prefetch_factor=PREFETCHED if self.workers else None,
                    persistent_workers=False,
                )
            )
        asked = time.perf_counter()
        batch = next(self._batches)
        came = time.perf_counter()
        if self.begun is None:
            self.begun = came
        else:
            self.waited += came - asked
        self._given += 1
        return batch

    def cases_of_ended_workers(self) -> list[str]:
        """The cases of the batches that ended worker processes had begun or were to begin next.

        Workers take turns, so that the number of a batch says whose it was.
        """
        processes = getattr(self._batches, "_workers", ())  # torch has no public name for them
        ended = {number for number, process in enumerate(processes) if not process.is_alive()}
        coming = range(self._given, self._given + PREFETCHED * len(processes))
        steps = [self._step(number) for number in coming if number % self.workers in ended]
        return list(dict.fromkeys(case for step in steps for case in self.dataset.cases_of(step)))

    def close(self) -> None:
        """Stop the worker processes."""
        self._batches = None
