"""A trained model that predicts the labels of image after image, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from semi_nnunet.core.pseudo_labels import most_probable
from semi_nnunet.deploy.loading import load_parts
from semi_nnunet.deploy.mirrors import mirrors_of
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.image_resampling import resampled_image
from semi_nnunet.inference.resampling import Grids, spacing_like
from semi_nnunet.inference.sliding_window import Region, Slab, Window, padded, slabs
from semi_nnunet.networks.frozen import unwrapped
from semi_nnunet.training.precision import computes_bfloat16_fast
from semi_nnunet.training.prediction import with_previous_stage
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_memory


class TileTooLarge(UserError):
    """The memory does not hold the smallest tile of the network."""


EXACT, ALIKE, FAST = SPEEDS = ("exact", "alike", "fast")
MIRRORED = {EXACT: True, ALIKE: None, FAST: False}  # see mirror of Options


@dataclass(frozen=True)
class Options:
    """What an image is predicted with.

    Args:
        mirror: whether to average over mirrored images, where the training allows it; or the axes
            along which they are mirrored. None: those that ``semi_nnunet tune`` chose for the
            model, where it did, else all.
        step: between tiles, as a fraction of the patch.
        precision: of the network; None: as nnU-Net.
        dtype: in which logits are resampled.
        tiles_at_once: that the network sees together.
    """

    mirror: bool | tuple[int, ...] | None = True
    step: float = 0.5
    precision: torch.dtype | None = None
    dtype: torch.dtype = torch.float64
    tiles_at_once: int = 1


def options_of(
    speed: str,
    device: torch.device,
    mirror: bool | tuple[int, ...] | None = None,
    step: float | None = None,
) -> Options:
    """The options of a speed, with what is asked for otherwise.

    Args:
        speed: "exact": nnU-Net's; "alike": the same in the fastest precision; "fast": also without
            mirrored images.
        device: to compute on.
        mirror, step: of :class:`Options`; None: as the speed says.

    Raises:
        UserError: there is no such speed, or the step is not above 0 and at most 1.
    """
    if speed not in SPEEDS:
        raise UserError(f"speed must be one of {', '.join(SPEEDS)}, got {speed}", fix="choose one")
    if step is not None and not 0 < step <= 1:
        raise UserError(
            f"the step between tiles must be above 0 and at most 1 patch, got {step}",
            fix="0.5 is nnU-Net's",
        )
    exact, half = speed == EXACT, device.type == "cpu" and computes_bfloat16_fast()
    return Options(
        mirror=MIRRORED[speed] if mirror is None else mirror,
        step=0.5 if step is None else step,
        precision=torch.bfloat16 if half and not exact else None,
        dtype=torch.float64 if exact else torch.float32,
        tiles_at_once=4 if device.type == "cuda" and not exact else 1,
    )


def mirror_axes(
    model: TrainedModel, allowed: Sequence[int] | None, options: Options
) -> tuple[int, ...]:
    """The axes along which images are mirrored.

    Args:
        model: that predicts.
        allowed: by its training.
        options: what is asked for.
    """
    wanted = options.mirror
    if wanted is None:
        found = mirrors_of(model.folder)
        wanted = True if found is None else found.axes
    if isinstance(wanted, bool):
        return tuple(allowed or ()) if wanted else ()
    return tuple(axis for axis in allowed or () if axis in wanted)


class Labels(Protocol):
    """What gives labels of an image in its own frame."""

    def __call__(self, image: np.ndarray, properties: Mapping[str, Any]) -> np.ndarray: ...


class ImagePredictor:
    """Predicts images with one model, and those of a cascade's first stage before it.

    Args:
        model: any trained model of nnU-Net's or ours.
        options: see :class:`Options`.
        device: to compute on.
        coarse: gives labels of an image in a cheap way; tiles far from its foreground are left out.
            None: all tiles are predicted.
    """

    def __init__(
        self,
        model: TrainedModel,
        options: Options,
        device: torch.device,
        coarse: Labels | None = None,
    ):
        self.predictor = load_parts(model)
        self.options, self.device, self.coarse = options, device, coarse
        self.network = unwrapped(self.predictor.network).to(device).eval()
        before = model.previous
        self.previous = None if before is None else ImagePredictor(before, options, device, coarse)
        axes = mirror_axes(model, self.predictor.allowed_mirroring_axes, options)
        patch = tuple(self.configuration.patch_size)
        self.window = Window(patch, options.step, axes, options.precision, options.tiles_at_once)

    @property
    def configuration(self) -> Any:
        """nnU-Net's manager of the configuration."""
        return self.predictor.configuration_manager

    @property
    def reader_writer(self) -> Any:
        """nnU-Net's, for the files of the data set."""
        return self.predictor.plans_manager.image_reader_writer_class()

    def __call__(self, image: np.ndarray, properties: Mapping[str, Any]) -> np.ndarray:
        """The labels (*spatial) of an image (channels, *spatial) as nnU-Net's readers give it.

        Args:
            image: the caller keeps no other reference to it where memory is short.
            properties: at least the spacing, as nnU-Net's readers give it.

        Raises:
            TileTooLarge: the memory is too small even for the smallest tile.
        """
        before = None if self.previous is None else self.previous(image, properties)
        wanted = None if self.coarse is None else self.coarse(image, properties)
        prepared = self._prepared(image, properties, before, wanted)
        del image, before, wanted
        return self._with_tiles_that_fit(prepared)

    def _prepared(
        self,
        image: np.ndarray,
        properties: Mapping[str, Any],
        before: np.ndarray | None,
        coarse: np.ndarray | None,
    ) -> Prepared:
        """The image as the network sees it."""
        plans, configuration = self.predictor.plans_manager, self.configuration
        preprocessor = configuration.preprocessor_class(verbose=False)
        if before is not None or type(preprocessor) is not DefaultPreprocessor:
            labels = None if before is None else before[None].astype(np.float32)
            data, labels_before, found = preprocessor.run_case_npy(
                image, labels, dict(properties), plans, configuration, self.predictor.dataset_json
            )
            if before is not None:
                manager = self.predictor.label_manager
                data = with_previous_stage(data, labels_before[0], manager)
        else:
            exact = self.options.dtype == torch.float64
            data, found = preprocessed(image, properties, plans, configuration, preprocessor, exact)
        own = [found["spacing"][axis] for axis in plans.transpose_forward]
        target = tuple(int(size) for size in found["shape_after_cropping_and_before_resampling"])
        spacing = spacing_like(configuration.spacing, target, own[0])
        resample, shape = configuration.resampling_fn_probabilities, tuple(data.shape[1:])
        grids = Grids(shape, target, spacing, tuple(own), resample, self.options.dtype)
        near = None
        if coarse is not None:
            box = bounding_box_to_slice(found["bbox_used_for_cropping"])
            near = nearest_on(coarse.transpose(plans.transpose_forward)[box] > 0, shape)
        return Prepared(torch.from_numpy(data), found, grids, near)

    def _with_tiles_that_fit(self, prepared: Prepared) -> np.ndarray:
        """The labels; where memory runs out, fewer tiles at once, then smaller ones."""
        while True:
            try:
                return self._labels(prepared, self.window)
            except (RuntimeError, MemoryError) as error:
                if not is_of_memory(error):
                    raise
                less = smaller(self.window, self._divisor())
                if less is None:
                    reason = str(error).splitlines()[0]
                    raise TileTooLarge(
                        f"the memory of {self.device} must hold a tile of the network, got: "
                        f"{reason}. Fix: free memory, or choose another --device"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.window = less
            print(
                f"the memory was too small; going on with {less.tiles_at_once} tiles of "
                f"{less.patch_size} at once"
            )

    def _divisor(self) -> tuple[int, ...]:
        """What the edges of a tile must be multiples of."""
        strides = self.configuration.network_arch_init_kwargs.get("strides")
        if strides is None:  # an architecture without stages
            return tuple(self.configuration.patch_size)
        each = [[one] * len(self.configuration.patch_size) if isinstance(one, int) else one
                for one in strides]  # fmt: skip
        return tuple(int(size) for size in np.prod(each, axis=0))

    def _labels(self, prepared: Prepared, window: Window) -> np.ndarray:
        """Run the network over the image and collect its labels in the image's own frame."""
        manager, found = self.predictor.label_manager, prepared.properties
        plans = self.predictor.plans_manager
        dtype = np.uint8 if len(manager.foreground_labels) < 255 else np.uint16
        whole = np.zeros(found["shape_before_cropping"], dtype)
        cropped = whole[bounding_box_to_slice(found["bbox_used_for_cropping"])]
        logits = slabs(
            self.network, self.predictor.list_of_parameters, prepared.data,
            manager.num_segmentation_heads, window, self.device, prepared.wanted(window),
        )  # fmt: skip
        if self.device.type == "mps":  # it has no float64
            logits = (Slab(slab.start, slab.logits.cpu()) for slab in logits)
        for slab in prepared.grids.resampled(logits):
            labels = labels_of(slab.logits, manager)
            cropped[slab.start : slab.start + labels.shape[0]] = labels
        return whole.transpose(plans.transpose_backward)


@dataclass(frozen=True)
class Prepared:
    """An image as the network sees it.

    Args:
        data: (channels, *spatial), float32.
        properties: nnU-Net's, of how it was cropped.
        grids: between which logits are resampled.
        near: bool (*spatial), where a coarse prediction has foreground; None: unknown.
    """

    data: torch.Tensor
    properties: dict[str, Any]
    grids: Grids
    near: np.ndarray | None

    def wanted(self, window: Window) -> Callable[[Region], bool]:
        """Says of a tile of the padded image whether foreground is near."""
        if self.near is None:
            return lambda region: True
        near, _ = padded(torch.from_numpy(self.near)[None], window)
        return lambda region: bool(near[0][region].any())


def preprocessed(
    image: np.ndarray,
    properties: Mapping[str, Any],
    plans: Any,
    configuration: Any,
    how: Any,
    exact: bool,
) -> tuple[np.ndarray, dict[str, Any]]:
    """What nnU-Net's DefaultPreprocessor.run_case_npy gives for an image without labels.

    That also resamples a map of what lies outside the nonzero voxels, which only labels need.

    Args:
        image: (channels, *spatial).
        properties: with the spacing.
        plans, configuration: nnU-Net's managers.
        how: nnU-Net's preprocessor.
        exact: whether to resample in float64, to the last bit as nnU-Net.

    Returns:
        (channels, *spatial) float32, and the properties with what was cropped.
    """
    forward = plans.transpose_forward
    data = image.astype(np.float32).transpose(0, *(axis + 1 for axis in forward))
    found, own = dict(properties), [properties["spacing"][axis] for axis in forward]
    found["shape_before_cropping"] = data.shape[1:]
    data, outside, found["bbox_used_for_cropping"] = crop_to_nonzero(data)
    found["shape_after_cropping_and_before_resampling"] = data.shape[1:]
    target = spacing_like(configuration.spacing, data.shape[1:], own[0])
    shape = compute_new_shape(data.shape[1:], own, target)
    intensities = plans.foreground_intensity_properties_per_channel
    data = how._normalize(data, outside, configuration, intensities)
    del outside
    resample = configuration.resampling_fn_data
    if exact:
        return np.asarray(resample(data, shape, own, target)), found
    return resampled_image(data, shape, own, target, resample), found


def labels_of(logits: torch.Tensor, manager: Any) -> np.ndarray:
    """The labels (*spatial) of logits (classes or regions, *spatial), as nnU-Net finds them.

    The highest logit is found on the device, so that the labels alone are copied: of 14 classes,
    512 x 512 x 200 voxels of logits are 1.4 GiB. Regions are nnU-Net's to find.
    """
    if manager.has_regions:
        return np.asarray(manager.convert_logits_to_segmentation(logits.cpu()))
    found = most_probable(logits, 0)
    return found.to(torch.uint8 if len(logits) <= 256 else torch.int32).cpu().numpy()


def nearest_on(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mask on another grid of the same field of view: the nearest voxels."""
    for axis, size in enumerate(shape):
        index = (np.arange(size) + 0.5) * mask.shape[axis] / size
        mask = mask.take(index.astype(np.int64), axis)
    return mask


def smaller(window: Window, divisor: Iterable[int]) -> Window | None:
    """A window that needs about half of the memory; None: there is none."""
    if window.tiles_at_once > 1:
        return replace(window, tiles_at_once=window.tiles_at_once // 2)
    patch, least = list(window.patch_size), list(divisor)
    for axis in sorted(range(len(patch)), key=lambda axis: -patch[axis]):
        half = patch[axis] // 2 // least[axis] * least[axis]
        if half >= 2 * least[axis]:
            patch[axis] = half
            return replace(window, patch_size=cast(tuple[int, ...], tuple(patch)))
    return None
