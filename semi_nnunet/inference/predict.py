"""Predict files or arrays with one trained model, one after another, in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_raw

from semi_nnunet.core.devices import choose_device
from semi_nnunet.deploy.trained import TrainedModel, find_model, find_models
from semi_nnunet.evaluation.pieces import keep_largest_component
from semi_nnunet.inference.earlier import (
    OPTIONS,
    EarlierPredictions,
    describe_options,
    find_folder_problems,
    list_images,
    list_networks,
)
from semi_nnunet.inference.folder import FolderPredictor, keeps_largest_component
from semi_nnunet.inference.model import (
    ALIKE,
    EXACT,
    ImagePredictor,
    PredictionOptions,
    make_prediction_options,
)
from semi_nnunet.inference.review import (
    calibrate_expected_dice,
    is_reviewed,
    remove_reviews,
    write_review,
)
from semi_nnunet.raw.description import find_cases, get_channel_names, warn_of_misnamed_images
from semi_nnunet.raw.layout import DATASET_JSON, FINAL_CHECKPOINT, MODEL
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, is_one_piece
from semi_nnunet.util.errors import Problem, UserError, collect_errors, printable, raise_if_any
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.memory import at_most
from semi_nnunet.util.provenance import FileRecord, read_inputs, require_unchanged

REFUSED = "nothing can be predicted:"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionRequest:
    """A model to predict with, and how.

    Args:
        model: its name or folder.
        coarse: those of another model, which finds the foreground.
        checkpoint: name of the file in each fold.
        options, device, max_memory: of the prediction; the memory in GiB.
        largest_component: None: as the model's dataset.json says.
    """

    model: str
    coarse: str | None
    checkpoint: str
    options: PredictionOptions
    device: torch.device
    max_memory: float | None
    largest_component: bool | None

    def find_model(self) -> TrainedModel:
        """Find the model; raise a :class:`UserError` if there is none."""
        return find_model(self.model, self.checkpoint)

    def find_models(self) -> list[TrainedModel]:
        """Find the model and the coarse one.

        Raises:
            UserError: one is missing, or they do not fit together.
        """
        names = [self.model] if self.coarse is None else [self.model, self.coarse]
        return find_models(names, self.checkpoint)

    def load(self) -> ImagePredictor:
        """Load the models; see :meth:`find_models`."""
        return load_predictor(self.find_models(), self.options, self.device)


def predict_images(
    model: str | Path,
    images: str | Path | Sequence[np.ndarray],
    out: str | Path | None = None,
    *,
    spacings: Sequence[Sequence[float]] | None = None,
    speed: str = ALIKE,
    mirror: bool | None = None,
    step: float | None = None,
    coarse: str | Path | None = None,
    device: str | None = None,
    max_memory: float | None = None,
    checkpoint: str = FINAL_CHECKPOINT,
    resume: bool = False,
    uncertainty: bool = False,
    largest_component: bool | None = None,
) -> list[Path] | list[np.ndarray]:
    """Predict files or arrays with a trained model, see :func:`semi_nnunet.predict`.

    Logits of the whole image are never held, so little memory is needed. The first stage of a
    cascade is predicted before the second. Arrays have the axes of nnU-Net's readers: (channels, z,
    y, x), for 2-D images (channels, 1, y, x) with a spacing of (999, y, x).

    Args:
        speed: see :func:`~.model.make_prediction_options`.
        model, images, out, spacings, mirror, step, coarse, device, max_memory, checkpoint, resume,
            uncertainty, largest_component: see :func:`semi_nnunet.predict`.

    Raises:
        UserError: lists all problems with the arguments, among them files in ``out`` that are not
            predictions and would be lost. Images of a folder that cannot be predicted are listed
            after all others were predicted.
    """
    require_files_or_arrays(images, out, spacings)
    if speed == EXACT and largest_component is None:
        largest_component = False
    problems, torch_device, options = list[Problem](), torch.device("cpu"), PredictionOptions()
    if uncertainty and coarse is not None:
        message = "needs the probabilities of all tiles, which --coarse skips"
        problems.append(Problem("--uncertainty", message, "leave one of them out"))
    if uncertainty and not isinstance(images, (str, Path)):
        problems.append(Problem("uncertainty", "is written to files", "give a folder of images"))
    with collect_errors(problems, "--device"):
        torch_device = torch.device(choose_device(device))
    with collect_errors(problems, "--step-size"):
        options = make_prediction_options(speed, torch_device, mirror=mirror, step=step)
    request = PredictionRequest(
        str(model), None if coarse is None else str(coarse), checkpoint, options, torch_device,
        max_memory, largest_component,
    )  # fmt: skip
    if isinstance(images, (str, Path)):
        return predict_folder(
            request, Path(images), Path(str(out)), problems, resume=resume, uncertainty=uncertainty
        )
    return predict_arrays(request, list(zip(images, spacings or (), strict=True)), problems)


def require_files_or_arrays(images: Any, out: Any, spacings: Sequence[Any] | None) -> None:
    """Check that a folder of images comes with an output folder, and arrays with spacings.

    Raises:
        UserError: one of them is missing, or belongs to the other kind.
    """
    if isinstance(images, (str, Path)):
        if out is None:
            raise UserError("predictions of a folder need an output folder", fix="out=FOLDER")
        if spacings is not None:
            raise UserError("spacings belong to arrays, not to a folder", fix="leave them out")
    elif out is not None:
        raise UserError("labels of arrays are returned, not written to out", fix="leave it out")
    elif isinstance(images, np.ndarray) or not isinstance(images, Sequence):
        raise UserError(
            f"images must be a folder or a list of arrays, got {type(images).__name__}",
            fix="images=[array, ...]",
        )
    elif spacings is None or len(spacings) != len(images):
        raise UserError(
            f"spacings must be given for each of the {len(images)} arrays, got "
            f"{'none' if spacings is None else len(spacings)}",
            fix="spacings=[(z, y, x), ...]",
        )


def predict_arrays(
    request: PredictionRequest,
    pairs: Sequence[tuple[np.ndarray, Sequence[float]]],
    problems: list[Problem],
) -> list[np.ndarray]:
    """Predict arrays; see :func:`predict_images`.

    Args:
        request: the model and the options.
        pairs: each image with its spacing.
        problems: found so far.
    """
    with collect_errors(problems, "-m"):
        request.find_models()
    with collect_errors(problems, "-m"):
        channels = len(get_channel_names(request.find_model().dataset_json))
        problems += find_array_problems(pairs, channels)
    raise_if_any(REFUSED, [*dict.fromkeys(problems)])  # both checks name a missing model
    with at_most(request.max_memory):
        predictor = request.load()
        labels = (
            predictor(np.asarray(image, np.float32), {"spacing": list(spacing)})
            for image, spacing in pairs
        )
        if not keeps_largest_component(predictor, request.largest_component):
            return [*labels]
        foreground = predictor.label_manager.foreground_labels
        return [keep_largest_component(label, foreground) for label in labels]


def predict_folder(
    request: PredictionRequest,
    images: Path,
    out: Path,
    problems: list[Problem],
    *,
    resume: bool,
    uncertainty: bool,
) -> list[Path]:
    """Predict a folder of images; see :func:`predict_images`.

    Args:
        request: the model and the options.
        images, out: folders.
        problems: found so far.
        resume, uncertainty: see :func:`semi_nnunet.predict`.
    """
    networks = dict[str, Path]()
    with collect_errors(problems, "-m"):
        networks = list_networks(request.find_models())
    with collect_errors(problems, "-m"):
        model = request.find_model()
        description, ending = model.dataset_json, model.dataset_json["file_ending"]
        cases = find_cases(images, ending)
        earlier = EarlierPredictions.of_folder(out, cases, ending)
        problems += find_folder_problems(cases, images, description, networks, earlier)
        if not resume:
            problems += earlier.find_edit_problems()
    raise_if_any(REFUSED, [*dict.fromkeys(problems)])  # both checks name a missing model
    for problem in () if request.largest_component is not None else find_changed_rule(model):
        logger.warning(printable(problem.as_warning()))
    warn_of_misnamed_images(images, cases, ending)
    with at_most(request.max_memory):
        predictor = request.load()
        folder_predictor = FolderPredictor(
            predictor, images, out, request.max_memory, request.largest_component,
            writes_maps=uncertainty, writes_record=True,
        )  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / DATASET_JSON, description)  # names the labels
        inputs: dict[str, Path | str] = {
            **networks,
            OPTIONS: describe_options(predictor)
            + ", largest component" * folder_predictor.largest_component,
            **list_images(cases),
        }
        records = read_inputs(inputs, FileRecord.of_any)  # a broken image is reported later
        earlier.replace_outdated(inputs, {MODEL: model.name, **records})
        kept = earlier.list_complete() if resume else {}
        if uncertainty:
            reviewed = {c: path for c, path in kept.items() if is_reviewed(out, c, ending)}
            kept = reviewed | earlier.edited
        left = {case: files for case, files in cases.items() if case not in kept}
        remove_reviews(out, left, ending)
        try:
            files = [*kept.values(), *(folder_predictor.predict(left) if left else ())]
        finally:
            if uncertainty:
                calibration = calibrate_expected_dice(model, predictor.reader_writer)
                write_review(out, cases, description, calibration)
                logger.info(str(calibration))
        require_unchanged(records, inputs)
        return files


def find_array_problems(
    pairs: Iterable[tuple[np.ndarray, Sequence[float]]], channels: int
) -> Iterator[Problem]:
    """Yield a problem for each array or spacing that nnU-Net's readers would not return."""
    for number, (image, spacing) in enumerate(pairs):
        shape = np.shape(image)
        if len(shape) != 4 or shape[0] != channels or 0 in shape:
            rule = f"must have the axes ({channels} channels, z, y, x), got the shape {shape}"
            yield Problem(f"images[{number}]", rule, "correct the array; 2-D images have z = 1")
        elif not np.issubdtype(kind := np.asarray(image).dtype, np.number):
            yield Problem(f"images[{number}]", f"must be numbers, got {kind}", "correct the array")
        elif not np.isfinite(image).all():
            rule = "must be finite, and has NaN or infinite values"
            yield Problem(f"images[{number}]", rule, "replace them")
        if len(spacing) != 3 or min(spacing) <= 0:
            rule = f"must be three sizes in mm, (z, y, x), got {tuple(spacing)}"
            yield Problem(f"spacings[{number}]", rule, "correct it; 2-D images have (999, y, x)")


def find_changed_rule(model: TrainedModel) -> Iterator[Problem]:
    """Yield a problem if "one_piece" of the model's data set has changed since the training.

    Args:
        model: whose data set may be in nnUNet_raw on this machine.
    """
    if not nnUNet_raw.is_set():
        return
    path = Path(nnUNet_raw.require()) / str(model.plans["dataset_name"]) / DATASET_JSON
    description, used = optional_json(path), is_one_piece(model.dataset_json)
    if not description or is_one_piece(description) == used:
        return
    option = "--no-largest-component" if used else "--largest-component"
    now, then = json.dumps(not used), json.dumps(used)
    yield Problem(
        str(path),
        f'"{ONE_PIECE_KEY}" is {now}, and {then} in the {DATASET_JSON} of the model, which is used',
        f"{option}, or semi_nnunet preprocess and crossval, which update the model",
    )


def load_predictor(
    models: Sequence[TrainedModel], options: PredictionOptions, device: torch.device
) -> ImagePredictor:
    """Load a model, and the coarse one that finds the foreground, if there is a second one.

    Raises:
        UserError: the first stage of a model is missing.
    """
    fine, *coarse = models
    finder = ImagePredictor(coarse[0], options, device) if coarse else None
    return ImagePredictor(fine, options, device, finder)
