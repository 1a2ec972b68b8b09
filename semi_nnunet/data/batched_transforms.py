"""nnU-Net's training transforms on a whole batch, made from its own ``ComposeTransforms``."""

from __future__ import annotations

import itertools
from typing import Any

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

from semi_nnunet.data import batched_steps as steps
from semi_nnunet.util.errors import UserError

STEPS: dict[type, type[steps.Step]] = {
    SpatialTransform: steps.SpatialStep,
    MirrorTransform: steps.MirrorStep,
    GaussianNoiseTransform: steps.NoiseStep,
    GaussianBlurTransform: steps.BlurStep,
    MultiplicativeBrightnessTransform: steps.BrightnessStep,
    ContrastTransform: steps.ContrastStep,
    SimulateLowResolutionTransform: steps.LowResolutionStep,
    GammaTransform: steps.GammaStep,
    MaskImageTransform: steps.MaskStep,
    RemoveLabelTransform: steps.RemoveLabelStep,
    ConvertSegmentationToRegionsTransform: steps.RegionsStep,
    DownsampleSegForDSTransform: steps.ScalesStep,
}
BY_CHANCE = (steps.AppearanceStep,)  # what may stand in a RandomTransform


class BatchedTransforms:
    """nnU-Net's transforms of a training, on a batch that is on any device.

    Parameters are drawn where the batch is loaded (:meth:`draw`), by nnU-Net's own objects, in the
    order in which nnU-Net draws them.

    Args:
        transforms: what nnU-Net's loader would apply to each sample.

    Raises:
        UserError: there are transforms, or attributes of them, that are not known here.
    """

    def __init__(self, transforms: ComposeTransforms):
        self.steps, refused = steps_of(transforms)
        if refused:
            raise UserError(
                f"augmentation=device must know every transform of the training, and does not know "
                f"{'; '.join(refused)}",
                fix="set augmentation=workers, which applies nnU-Net's own",
            )

    def draw(self, x: torch.Tensor) -> dict[str, Any]:
        """Random parameters for the samples of a batch, from the global generators.

        Args:
            x: (B, C, *spatial), whose values are not looked at.

        Returns:
            For :meth:`cut` and :meth:`__call__`; its only tensor is what the device needs, float32.
        """
        sizes = [tuple(x.shape[2:])]
        for step in self.steps:
            sizes.append(tuple(step.size_after(sizes[-1])))
        images = [torch.empty(()).expand(x.shape[1], *size) for size in sizes[:-1]]
        drawn = [
            [step.draw(image) for step, image in zip(self.steps, images, strict=True)] for _ in x
        ]
        chosen, numbers = [], list[float]()
        for number, step in enumerate(self.steps):
            choice = step.choose([sample[number] for sample in drawn], sizes[number])
            if choice is not None:
                rows = len(choice.table)
                chosen.append((number, choice.known, rows, len(choice.table[0]) if rows else 0))
                numbers += itertools.chain.from_iterable(choice.table)
        return {"steps": chosen, "numbers": torch.tensor(numbers, dtype=torch.float32)}

    def cut(
        self, x: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """What :meth:`__call__` is to be given, with less to move: the samples that are turned or
        scaled keep the larger patches that they need, beside the cropped patches of all.
        """
        first = self.steps[0] if self.steps else None
        if not isinstance(first, steps.SpatialStep):
            return x, labels, drawn
        known = next(known for number, known, *_ in drawn["steps"] if number == 0)
        patches = first.cut(steps.Patches(x, labels), known)
        return patches.x, patches.labels, {**drawn, "larger": patches.larger}

    @torch.no_grad()
    def __call__(
        self, x: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """The transformed batch; nothing waits for the device.

        Args:
            x: (B, C, *spatial).
            labels: integers (B, channels, *spatial).
            drawn: of :meth:`draw` or :meth:`cut`.

        Returns:
            As nnU-Net's loader returns them: images, and labels or a list of them.
        """
        numbers, larger = drawn["numbers"].to(x.device, non_blocking=True), drawn.get("larger")
        if larger is not None:
            larger = tuple(part.to(x.device, non_blocking=True) for part in larger)
        x = x.clone(memory_format=torch.contiguous_format)
        labels = labels.clone(memory_format=torch.contiguous_format)
        patches, begin = steps.Patches(x, labels, larger), 0
        for number, known, rows, width in drawn["steps"]:
            table = numbers[begin : begin + rows * width].view(rows, width)
            patches = self.steps[number].apply(patches, known, table)
            begin += rows * width
        return patches.x, patches.labels


def steps_of(transforms: Any) -> tuple[list[steps.Step], list[str]]:
    """The steps for nnU-Net's transforms, and what there are no steps for, in words."""
    if type(transforms) is not ComposeTransforms:
        return [], [type(transforms).__name__]
    made: list[steps.Step] = []
    refused: list[str] = []
    flat, places = False, [type(part) for part in transforms.transforms]
    for place, part in enumerate(transforms.transforms):
        if type(part) in (Convert3DTo2DTransform, Convert2DTo3DTransform):
            flat = type(part) is Convert3DTo2DTransform
            around = places[place : place + 3] if flat else places[max(place - 2, 0) : place + 1]
            if around != [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]:
                refused.append(f"{type(part).__name__} around other than one SpatialTransform")
            continue
        chance = part if type(part) is RandomTransform else None
        inner = part if chance is None else part.transform
        kind, name = STEPS.get(type(inner)), type(inner).__name__
        if kind is None or (chance is not None and not issubclass(kind, BY_CHANCE)):
            refused.append(name if chance is None else f"{name} by chance")
        elif attributes := kind.unsupported(inner):
            refused.append(f"{name} with {', '.join(attributes)}")
        elif kind is steps.SpatialStep:
            made.append(steps.SpatialStep(inner, flat))
        else:
            made.append(kind(inner, chance))
    return made, refused
