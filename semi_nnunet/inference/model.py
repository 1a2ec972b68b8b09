"""Predict labels or probabilities of image after image with a trained model, in little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from semi_nnunet.core.pseudo_labels import most_probable
from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.mirrors import load_mirror_choice
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.resampling import GridPair, match_spacing, resample_image_to_grid
from semi_nnunet.inference.sliding_window import Region, Slab, Window, pad_to_tile, predict_slabs
from semi_nnunet.inference.views import make_views
from semi_nnunet.networks.frozen import unwrap_compiled
from semi_nnunet.training.precision import computes_bfloat16_fast
from semi_nnunet.training.prediction import append_previous_stage
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_memory

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class TileTooLargeError(UserError):
    """Report that the memory does not hold the smallest tile of the network."""


EXACT, ALIKE, FAST = SPEEDS = ("exact", "alike", "fast")
MIRRORED = {EXACT: True, ALIKE: None, FAST: False}  # see mirror of PredictionOptions


@dataclass(frozen=True)
class PredictionOptions:
    """The way in which an image is predicted; the defaults give nnU-Net's labels.

    Args:
        mirror: average over mirrored images, where the training allows it; or the axes along which
            to mirror. None: the axes that ``semi_nnunet tune`` chose for the model, else all.
        step: between tiles, as a fraction of the patch.
        precision: of the network; None: as nnU-Net.
        dtype: in which logits are resampled.
        tiles_at_once: number of tiles in a batch.
        views: names of views whose logits are averaged, see :mod:`~.inference.views`.
        shrink_tiles: continue with smaller tiles, which changes labels slightly, if the memory is
            too small.
    """

    mirror: bool | tuple[int, ...] | None = True
    step: float = 0.5
    precision: torch.dtype | None = None
    dtype: torch.dtype = torch.float64
    tiles_at_once: int = 1
    views: tuple[str, ...] = ()
    shrink_tiles: bool = True


def make_prediction_options(
    speed: str,
    device: torch.device,
    mirror: bool | tuple[int, ...] | None = None,
    step: float | None = None,
) -> PredictionOptions:
    """Return the options of a speed.

    >>> make_prediction_options("fast", torch.device("cpu"), step=0.75).mirror
    False

    Args:
        speed: "exact": nnU-Net's; "alike": the same in the fastest precision; "fast": also without
            mirrored images.
        device: to compute on.
        mirror, step: of :class:`PredictionOptions`; None: those of the speed.

    Raises:
        UserError: the speed is unknown, or the step is not above 0 and at most 1.
    """
    if speed not in SPEEDS:
        raise UserError(f"speed must be one of {', '.join(SPEEDS)}, got {speed}", fix="choose one")
    if step is not None and not 0 < step <= 1:
        raise UserError(
            f"the step between tiles must be above 0 and at most 1 patch, got {step}",
            fix="0.5 is nnU-Net's",
        )
    exact, half = speed == EXACT, device.type == "cpu" and computes_bfloat16_fast()
    return PredictionOptions(
        mirror=MIRRORED[speed] if mirror is None else mirror,
        step=0.5 if step is None else step,
        precision=torch.bfloat16 if half and not exact else None,
        dtype=torch.float64 if exact else torch.float32,
        tiles_at_once=4 if device.type == "cuda" and not exact else 1,
    )


def choose_mirror_axes(
    model: TrainedModel, allowed: Sequence[int] | None, options: PredictionOptions
) -> tuple[int, ...]:
    """Return the axes along which images are mirrored.

    Args:
        model: that predicts.
        allowed: axes that its training mirrored.
        options: of the prediction.
    """
    mirror = options.mirror
    if mirror is None:
        choice = load_mirror_choice(model)
        mirror = True if choice is None else choice.axes
    if isinstance(mirror, bool):
        return tuple(allowed or ()) if mirror else ()
    return tuple(axis for axis in allowed or () if axis in mirror)


class CoarsePredictor(Protocol):
    """A function that returns labels of an image in the image's own frame."""

    def __call__(self, image: np.ndarray, properties: Mapping[str, Any]) -> np.ndarray: ...


class ImagePredictor:
    """A trained model that predicts image after image, after the first stage of its cascade if any.

    Logits of the whole image are only held if views are averaged.

    Args:
        model: any trained model of nnU-Net's or ours.
        options: see :class:`PredictionOptions`; they also hold for the first stage.
        device: to compute on.
        coarse: a cheap predictor; tiles far from the foreground that it finds are background.
            None: all tiles are predicted.
    """

    def __init__(
        self,
        model: TrainedModel,
        options: PredictionOptions,
        device: torch.device,
        coarse: CoarsePredictor | None = None,
    ):
        self.loaded = load_model(model)
        self.options, self.device, self.coarse = options, device, coarse
        self.network = unwrap_compiled(self.loaded.network).to(device).eval()
        stage = model.previous
        self.previous = None if stage is None else ImagePredictor(stage, options, device, coarse)
        axes = choose_mirror_axes(model, self.loaded.allowed_mirroring_axes, options)
        patch = tuple(self.configuration.patch_size)
        self.window = Window(patch, options.step, axes, options.precision, options.tiles_at_once)
        self.views = make_views(options.views, self.configuration.spacing)

    @property
    def configuration(self) -> Any:
        """nnU-Net's manager of the configuration."""
        return self.loaded.configuration_manager

    @property
    def label_manager(self) -> Any:
        """nnU-Net's manager of the labels."""
        return self.loaded.label_manager

    @property
    def reader_writer(self) -> Any:
        """nnU-Net's reader and writer of the data set's files."""
        return self.loaded.plans_manager.image_reader_writer_class()

    def __call__(self, image: np.ndarray, properties: Mapping[str, Any]) -> np.ndarray:
        """Return the labels (*spatial) of an image (channels, *spatial) from nnU-Net's readers.

        Args:
            image: the caller keeps no other reference to it where memory is short.
            properties: from nnU-Net's readers, at least the spacing.

        Raises:
            TileTooLargeError: the memory is too small even for the smallest tile.
        """
        previous = None if self.previous is None else self.previous(image, properties)
        coarse = None if self.coarse is None else self.coarse(image, properties)
        prepared = self._prepare(image, properties, previous, coarse)
        del image, previous, coarse
        return self._with_tiles_that_fit(prepared, self._collect_labels)

    def predict_probabilities(
        self, image: np.ndarray, properties: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels (*spatial) and float32 probabilities (C, *spatial) of an image.

        They are those of nnUNetv2_predict --save_probabilities; all tiles are predicted.

        Args:
            image, properties: as in :meth:`__call__`.

        Raises:
            TileTooLargeError: the memory is too small even for the smallest tile.
        """
        previous = None
        if self.previous is not None:
            previous, _ = self.previous.predict_probabilities(image, properties)
        prepared = self._prepare(image, properties, previous, None)
        del image, previous
        return self._with_tiles_that_fit(prepared, self._collect_probabilities)

    def _prepare(
        self,
        image: np.ndarray,
        properties: Mapping[str, Any],
        previous: np.ndarray | None,
        coarse: np.ndarray | None,
    ) -> PreparedImage:
        """Preprocess an image, with the labels of the cascade's first stage if there is one."""
        plans, configuration = self.loaded.plans_manager, self.configuration
        preprocessor = configuration.preprocessor_class(verbose=False)
        if previous is not None or type(preprocessor) is not DefaultPreprocessor:
            labels = None if previous is None else previous[None].astype(np.float32)
            data, resampled_labels, cropping = preprocessor.run_case_npy(
                image, labels, dict(properties), plans, configuration, self.loaded.dataset_json
            )
            if previous is not None:
                data = append_previous_stage(data, resampled_labels[0], self.label_manager)
        else:
            exact = self.options.dtype == torch.float64
            data, cropping = preprocess_image(
                image, properties, plans, configuration, preprocessor, exact
            )
        image_spacing = [cropping["spacing"][axis] for axis in plans.transpose_forward]
        target = tuple(int(n) for n in cropping["shape_after_cropping_and_before_resampling"])
        spacing = match_spacing(configuration.spacing, target, image_spacing[0])
        resample, shape = configuration.resampling_fn_probabilities, tuple(data.shape[1:])
        grids = GridPair(shape, target, spacing, tuple(image_spacing), resample, self.options.dtype)
        near_foreground = None
        if coarse is not None:
            box = bounding_box_to_slice(cropping["bbox_used_for_cropping"])
            near_foreground = resize_mask(coarse.transpose(plans.transpose_forward)[box] > 0, shape)
        return PreparedImage(torch.from_numpy(data), len(image), cropping, grids, near_foreground)

    def _with_tiles_that_fit(
        self, prepared: PreparedImage, collect: Callable[[PreparedImage, Window], Result]
    ) -> Result:
        """Call ``collect``; if memory runs out, with fewer tiles at once, then with smaller ones.

        Raises:
            TileTooLargeError: the memory is too small even for the smallest tile.
        """
        while True:
            try:
                return collect(prepared, self.window)
            except (RuntimeError, MemoryError) as error:
                if not (self.options.shrink_tiles and is_of_memory(error)):
                    raise
                window = shrink_window(self.window, self._divisor())
                if window is None:
                    reason = str(error).splitlines()[0]
                    raise TileTooLargeError(
                        f"the memory of {self.device} must hold a tile of the network, got: "
                        f"{reason}",
                        fix="free memory, or choose another --device",
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.window = window
            logger.info(
                f"the memory was too small; continuing with {window.tiles_at_once} tiles of "
                f"{window.patch_size} at once"
            )

    def _divisor(self) -> tuple[int, ...]:
        """Return the divisors that the edges of a tile must have."""
        strides = self.configuration.network_arch_init_kwargs.get("strides")
        if strides is None:  # an architecture without stages
            return tuple(self.configuration.patch_size)
        axes = len(self.configuration.patch_size)
        per_stage = [[stride] * axes if isinstance(stride, int) else stride for stride in strides]
        return tuple(int(size) for size in np.prod(per_stage, axis=0))

    def _predict_logits(self, prepared: PreparedImage, window: Window) -> Iterator[Slab]:
        """Yield slabs of logits on the grid of the cropped image."""

        def predict_view(data: torch.Tensor, *wants: Callable[[Region], bool]) -> Iterator[Slab]:
            return predict_slabs(
                self.network, self.loaded.list_of_parameters, data,
                self.label_manager.num_segmentation_heads, window, self.device, *wants,
            )  # fmt: skip

        slabs: Iterable[Slab]
        if len(self.views) == 1:
            slabs = predict_view(prepared.data, prepared.is_wanted(window))
        else:
            mean = torch.zeros(())
            for view in self.views:
                changed = view.of(prepared.data, prepared.image_channels).contiguous()
                logits = torch.cat([slab.logits.cpu() for slab in predict_view(changed)], 1)
                mean = mean + view.back(logits).float() / len(self.views)
            slabs = [Slab(0, mean)]
        if self.device.type == "mps":  # it has no float64
            slabs = (Slab(slab.start, slab.logits.cpu()) for slab in slabs)
        return prepared.grids.resampled(slabs)

    def _collect_labels(self, prepared: PreparedImage, window: Window) -> np.ndarray:
        """Run the network over the image and return its labels in the image's own frame."""
        labels, cropped = self._make_empty_labels(prepared)
        for slab in self._predict_logits(prepared, window):
            slab_labels = convert_to_labels(slab.logits, self.label_manager)
            cropped[slab.start : slab.start + len(slab_labels)] = slab_labels
        return labels.transpose(self.loaded.plans_manager.transpose_backward)

    def _collect_probabilities(
        self, prepared: PreparedImage, window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the network over the image; return labels and probabilities in its own frame."""
        manager, backward = self.label_manager, self.loaded.plans_manager.transpose_backward
        labels, cropped = self._make_empty_labels(prepared)
        probabilities = np.zeros((manager.num_segmentation_heads, *labels.shape), np.float32)
        if not manager.has_regions:
            probabilities[0] = 1  # cropped voxels are background
        box = (slice(None), *prepared.cropped_box)
        inside = probabilities[box]
        for slab in self._predict_logits(prepared, window):
            values = manager.apply_inference_nonlin(slab.logits.cpu())
            planes = slice(slab.start, slab.start + values.shape[1])
            inside[:, planes] = values.numpy()
            cropped[planes] = manager.convert_probabilities_to_segmentation(values).numpy()
        axes = (0, *(axis + 1 for axis in backward))
        return labels.transpose(backward), probabilities.transpose(axes)

    def _make_empty_labels(self, prepared: PreparedImage) -> tuple[np.ndarray, np.ndarray]:
        """Return background for the whole image, and the view of it that is not cropped away."""
        dtype = np.uint8 if len(self.label_manager.foreground_labels) < 255 else np.uint16
        labels = np.zeros(prepared.cropping["shape_before_cropping"], dtype)
        return labels, labels[prepared.cropped_box]


@dataclass(frozen=True)
class PreparedImage:
    """An image on the grid of the network.

    Args:
        data: (channels, *spatial), float32.
        image_channels: number of them that are the image's; others are labels of the first stage.
        cropping: nnU-Net's properties, which say how the image was cropped.
        grids: between which logits are resampled.
        near_foreground: bool (*spatial), foreground of a coarse prediction; None: unknown.
    """

    data: torch.Tensor
    image_channels: int
    cropping: dict[str, Any]
    grids: GridPair
    near_foreground: np.ndarray | None

    @property
    def cropped_box(self) -> tuple[slice, ...]:
        """Box of the whole image that was not cropped away."""
        return tuple(bounding_box_to_slice(self.cropping["bbox_used_for_cropping"]))

    def is_wanted(self, window: Window) -> Callable[[Region], bool]:
        """Return a function that decides whether a tile of the padded image holds foreground."""
        if self.near_foreground is None:
            return lambda region: True
        mask, _ = pad_to_tile(torch.from_numpy(self.near_foreground)[None], window)
        return lambda region: bool(mask[0][region].any())


def preprocess_image(
    image: np.ndarray,
    properties: Mapping[str, Any],
    plans: Any,
    configuration: Any,
    preprocessor: Any,
    exact: bool,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Preprocess an image without labels as nnU-Net's DefaultPreprocessor.run_case_npy does.

    The latter also resamples a mask of the zero voxels, which only labels need.

    Args:
        image: (channels, *spatial).
        properties: with the spacing.
        plans, configuration: nnU-Net's managers.
        preprocessor: nnU-Net's.
        exact: resample in float64, to the last bit as nnU-Net.

    Returns:
        (channels, *spatial) float32, and the properties with those of the cropping.
    """
    forward = plans.transpose_forward
    data = image.astype(np.float32).transpose(0, *(axis + 1 for axis in forward))
    cropping, spacing = dict(properties), [properties["spacing"][axis] for axis in forward]
    cropping["shape_before_cropping"] = data.shape[1:]
    data, outside, cropping["bbox_used_for_cropping"] = crop_to_nonzero(data)
    cropping["shape_after_cropping_and_before_resampling"] = data.shape[1:]
    target = match_spacing(configuration.spacing, data.shape[1:], spacing[0])
    shape = compute_new_shape(data.shape[1:], spacing, target)
    intensities = plans.foreground_intensity_properties_per_channel
    data = preprocessor._normalize(data, outside, configuration, intensities)
    del outside
    resample = configuration.resampling_fn_data
    if exact:
        return np.asarray(resample(data, shape, spacing, target)), cropping
    return resample_image_to_grid(data, shape, spacing, target, resample), cropping


def convert_to_labels(logits: torch.Tensor, manager: Any) -> np.ndarray:
    """Convert logits (classes or regions, *spatial) to labels (*spatial) as nnU-Net does.

    The highest logit is found on the device, so that only labels are copied: of 14 classes,
    512 x 512 x 200 voxels of logits are 1.4 GiB. nnU-Net converts regions.
    """
    if manager.has_regions:
        return np.asarray(manager.convert_logits_to_segmentation(logits.cpu()))
    labels = most_probable(logits, 0)
    return labels.to(torch.uint8 if len(logits) <= 256 else torch.int32).cpu().numpy()


def resize_mask(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize a mask to another grid of the same field of view by taking nearest voxels.

    >>> resize_mask(np.array([True, False]), (4,))
    array([ True,  True, False, False])
    """
    for axis, size in enumerate(shape):
        index = (np.arange(size) + 0.5) * mask.shape[axis] / size
        mask = mask.take(index.astype(np.int64), axis)
    return mask


def shrink_window(window: Window, divisor: Iterable[int]) -> Window | None:
    """Return a window that needs about half of the memory, or None for the smallest one.

    >>> shrink_window(Window((96, 160)), divisor=(16, 16)).patch_size
    (96, 80)
    """
    if window.tiles_at_once > 1:
        return replace(window, tiles_at_once=window.tiles_at_once // 2)
    patch, least = list(window.patch_size), list(divisor)
    for axis in sorted(range(len(patch)), key=lambda axis: -patch[axis]):
        half = patch[axis] // 2 // least[axis] * least[axis]
        if half >= 2 * least[axis]:
            patch[axis] = half
            return replace(window, patch_size=cast(tuple[int, ...], tuple(patch)))
    return None
