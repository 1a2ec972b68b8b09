"""Loading: a batch is a function of seed, stream, step and rank, whatever workers and restarts do.

:class:`StepDataset` makes the batches of a step with nnU-Net's own patch sampling and
batchgeneratorsv2 transforms; :class:`StepLoader` brings them, step after step, from torch's worker
processes. A stream is nnU-Net's loader of labelled cases, or a loader of unlabelled cases that
:func:`make_unlabelled_loader` makes like it.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
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
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch.utils.data import DataLoader, Dataset

from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.unlabelled import UnlabelledDataset
from semi_nnunet.util.errors import UserError
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
LABEL_ONLY = (DownsampleSegForDSTransform, ConvertSegmentationToRegionsTransform)
PREFETCHED = 2  # batches that a worker process prepares ahead


@dataclass(frozen=True)
class LabelledBatch:
    """Patches with labels.

    Args:
        x: (B, C, *spatial).
        target: in the format of nnU-Net's loss.
        keys: the case ids.
        annotated: bool (B, classes or regions), which of them each patch annotates; None if every
            case of the data set annotates all.
        pasted: bool (B, 1, *spatial), voxels of unlabelled patches with pseudo labels, see
            :func:`semi_nnunet.training.batches.paste_boxes`; None: no pasted boxes.
    """

    x: torch.Tensor
    target: Any
    keys: tuple[str, ...]
    annotated: torch.Tensor | None = None
    pasted: torch.Tensor | None = None


@dataclass(frozen=True)
class UnlabelledBatch:
    """Patches without labels.

    Args:
        x_weak: (B, C, *spatial), geometry only.
        x_strong: the same voxels after appearance changes.
        mask: bool (B, 1, *spatial), False in the padding outside the image, and where a partly
            labelled case is annotated.
        keys: the case ids.
    """

    x_weak: torch.Tensor
    x_strong: torch.Tensor
    mask: torch.Tensor
    keys: tuple[str, ...]


class StepDataset(Dataset[list[dict[str, dict[str, Any]]]]):
    """The batches of optimizer step ``step`` as item ``step``: ``accumulate_batches`` of them.

    Args:
        streams: name -> nnU-Net data loader; each batch is {name: {"data", "target", "keys"}}.
        accumulate_batches: number of batches a step.
        augmentations: name of a stream -> transforms that its batches get later, on the device;
            their random numbers are drawn here, as "drawn" of the batch.
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
            {name: self._make_batch(name, step, index) for name in self.streams}
            for index in range(self.accumulate_batches)
        ]

    def cases_of(self, step: int) -> list[str]:
        """Return the cases of a step's batches without reading their images."""
        cases: list[str] = []
        for index in range(self.accumulate_batches):
            for name, loader in self.streams.items():
                with seeded(self.seed, name, step, self.rank, index):
                    cases += map(str, loader.get_indices())  # a batch draws them first
        return cases

    def _make_batch(self, stream: str, step: int, index: int) -> dict[str, Any]:
        with seeded(self.seed, stream, step, self.rank, index):
            batch = dict(self.streams[stream].generate_train_batch())
            if (transforms := self.augmentations.get(stream)) is not None:
                x, labels = batch["data"], batch["target"]
                x, labels, drawn = transforms.cut(x, labels, transforms.draw(x))
                batch |= {"data": x, "target": labels, "drawn": drawn}
        return {**batch, "keys": tuple(str(key) for key in batch["keys"])}


class StepLoader(Iterator[Any]):
    """Endless iterator over the batches of steps ``first, first + 1, ...``.

    >>> loader = StepLoader({4: "batch of step 4", 5: "batch of step 5"}, 4, 0, False)
    >>> next(loader), next(loader)
    ('batch of step 4', 'batch of step 5')

    Args:
        first: the step to begin with, which is all that resuming needs.
        workers: processes that prepare batches ahead; with 0, this process prepares them on demand.
        pin_memory: for a CUDA device.
        period: wrap around after so many steps, so that all epochs validate on the same batches.

    Attributes:
        waited: seconds of waiting for batches, without the first one, which waits for the workers
            to start.
        begun: time of the first batch, in seconds of time.perf_counter, or None.
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
        self._served = 0
        self.waited = 0.0
        self.begun: float | None = None

    def _step(self, number: int) -> int:
        """Return the step of batch ``number``, from 0."""
        return self.first + number if self.period is None else (self.first + number) % self.period

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(
                DataLoader(
                    self.dataset,
                    batch_size=None,
                    sampler=map(self._step, itertools.count()),  # type: ignore[arg-type]
                    num_workers=self.workers,
                    pin_memory=self.pin_memory,
                    prefetch_factor=PREFETCHED if self.workers else None,
                    persistent_workers=False,
                )
            )
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except (OSError, EOFError) as error:
            if self._wait_for_ended_workers():
                raise RuntimeError(f"a DataLoader worker has ended: {error}") from error
            raise
        end = time.perf_counter()
        if self.begun is None:
            self.begun = end
        else:
            self.waited += end - start
        self._served += 1
        return batch

    def list_cases_of_ended_workers(self) -> list[str]:
        """Return the cases of the batches that ended worker processes were preparing.

        Workers take turns, so a batch's number determines its worker.
        """
        ended = self._list_ended_workers()
        upcoming = range(self._served, self._served + PREFETCHED * self.workers)
        steps = [self._step(number) for number in upcoming if number % self.workers in ended]
        return list(dict.fromkeys(case for step in steps for case in self.dataset.cases_of(step)))

    @property
    def _processes(self) -> Sequence[BaseProcess]:
        return getattr(self._batches, "_workers", ())  # torch has no public name for them

    def _list_ended_workers(self) -> list[int]:
        return [number for number, process in enumerate(self._processes) if not process.is_alive()]

    def _wait_for_ended_workers(self, seconds: float = 5) -> list[int]:
        """List the ended workers after a broken connection, which a dying one breaks first."""
        dying = {process.sentinel: process for process in self._processes}
        for sentinel in wait(dying, seconds) if dying else []:
            dying[sentinel].join()  # type: ignore[index]
        return self._list_ended_workers()

    def close(self) -> None:
        """Stop the worker processes."""
        self._batches = None


# ---- streams ----


class UnlabelledDataLoader(nnUNetDataLoader):
    """nnU-Net's data loader for images without labels. The ignore label has no effect."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.has_ignore = False

    def get_bbox(self, data_shape: Any, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """Return nnU-Net's box, moved back if foreground sampling put it beyond the upper end."""
        lower, _ = super().get_bbox(data_shape, *args, **kwargs)
        for axis, (size, patch, pad) in enumerate(
            zip(data_shape, self.patch_size, self.need_to_pad, strict=True)
        ):
            lower[axis] = min(lower[axis], max(size - patch, 0) + pad // 2 + pad % 2)
        return lower, [start + patch for start, patch in zip(lower, self.patch_size, strict=True)]


def make_unlabelled_loader(
    labelled: nnUNetDataLoader,
    dataset: UnlabelledDataset,
    batch_size: int,
    label_manager: Any,
    foreground_oversampling: float,
    interpolated: bool,
) -> UnlabelledDataLoader:
    """Make a loader of unlabelled cases like the one of labelled cases.

    Args:
        labelled: nnU-Net's loader of the labelled training cases.
        foreground_oversampling: probability of a patch where labelled cases have foreground.
        interpolated: rotate and scale as nnU-Net does the labelled patches. Otherwise crop inside
            the image and only mirror, so that the teacher sees the original voxels.
    """
    start = 1 if labelled.patch_size_was_2d else 0  # nnU-Net keeps a 2-D patch as a flat 3-D one
    # nnU-Net reads a larger patch to rotate it, which extends far beyond small images
    return UnlabelledDataLoader(
        dataset,
        batch_size,
        (labelled.patch_size if interpolated else labelled.final_patch_size)[start:],
        labelled.final_patch_size[start:],
        label_manager,
        oversample_foreground_percent=foreground_oversampling if dataset.prior else 0.0,
        transforms=select_geometry(labelled.transforms, interpolated),
        probabilistic_oversampling=True,
    )


def get_loader_dataset(loader: nnUNetDataLoader) -> nnUNetBaseDataset:
    """Return the data set of one of nnU-Net's loaders, which has no public name for it."""
    return loader._data


def compute_sampling_probabilities(
    cases: Sequence[str], pseudo_labelled: Collection[str], labelled_share: float | None
) -> np.ndarray | None:
    """Return the probability of each case for nnU-Net's loader, or None for equal ones.

    >>> compute_sampling_probabilities(["a", "p1", "p2"], {"p1", "p2"}, 0.5).tolist()
    [0.5, 0.25, 0.25]

    Args:
        pseudo_labelled: cases that a model labelled; may hold more than ``cases``.
        labelled_share: share of the patches that come from annotated cases. None: in proportion to
            their number, as nnU-Net does.

    Raises:
        UserError: all cases or none are pseudo-labelled.
    """
    if labelled_share is None:
        return None
    is_pseudo = np.array([case in pseudo_labelled for case in cases])
    count = is_pseudo.sum()
    if count in (0, len(cases)):
        raise UserError(
            f"labelled_share ({labelled_share}) mixes annotated and pseudo-labelled cases, but "
            f"{'all' if count else 'none'} of the {len(cases)} training cases are pseudo-labelled",
            fix="leave it out of plans['semi'], or make a data set by semi_nnunet pseudo-dataset",
        )
    labelled = labelled_share / (len(cases) - count)
    return np.where(is_pseudo, (1.0 - labelled_share) / count, labelled)


# ---- transforms of streams ----


def make_reproducible(transform: BasicTransform) -> BasicTransform:
    """Return a copy of nnU-Net's transforms whose result depends only on the random numbers.

    nnU-Net's blur times two implementations and takes the faster one; they differ in the last bits.
    """
    transform = copy.deepcopy(transform)
    for step in getattr(transform, "transforms", [transform]):
        inner = step.transform if isinstance(step, RandomTransform) else step
        if hasattr(inner, "benchmark"):
            inner.benchmark = False
    return transform


def select_geometry(transforms: ComposeTransforms, interpolated: bool = True) -> ComposeTransforms:
    """Return those of nnU-Net's training transforms that unlabelled images get.

    These are mirroring; in a cascade, the augmentation of the previous stage's channels; and, if
    ``interpolated``, rotation, scaling and their crop. Changes of appearance and of labels are
    dropped, also the removal of the label -1, which marks padding.
    """
    dropped = (*APPEARANCE, *LABEL_ONLY, RemoveLabelTransform)
    dropped += () if interpolated else INTERPOLATED

    def is_dropped(step: BasicTransform) -> bool:
        return isinstance(step.transform if isinstance(step, RandomTransform) else step, dropped)

    return ComposeTransforms([step for step in transforms.transforms if not is_dropped(step)])
