"""Predict files or arrays with one trained model, one after another, in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from nnunetv2.paths import nnUNet_raw

from semi_nnunet.deploy.trained import TrainedModel, find_model, find_models
from semi_nnunet.evaluation.pieces import keep_largest_component
from semi_nnunet.inference.model import (
    ALIKE,
    EXACT,
    ImagePredictor,
    PredictionOptions,
    TileTooLargeError,
    make_prediction_options,
)
from semi_nnunet.inference.review import (
    assess_prediction,
    calibrate_expected_dice,
    count_near_voxels,
    find_map,
    is_reviewed,
    remove_reviews,
    write_facts,
    write_review,
)
from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.raw.description import (
    find_cases,
    find_misnamed_images,
    get_channel_names,
    list_cases,
    without_own_keys,
)
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    EARLIER_RECORD,
    FINAL_CHECKPOINT,
    MODEL,
    NETWORK,
    PREDICTED_FROM,
)
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, is_one_piece
from semi_nnunet.raw.readers import choose_reader
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import (
    Problem,
    UserError,
    collect_errors,
    printable,
    raise_if_any,
    shorten_reason,
)
from semi_nnunet.util.failures import is_of_machine, is_of_memory
from semi_nnunet.util.files import could_not_write, file_in_the_way, optional_json, write_json
from semi_nnunet.util.memory import at_most
from semi_nnunet.util.names import list_first
from semi_nnunet.util.progress import CaseLines
from semi_nnunet.util.provenance import (
    FileRecord,
    Inputs,
    Records,
    compare_inputs,
    read_inputs,
    read_record,
    require_unchanged,
    write_record,
)
from semi_nnunet.verify.file_bytes import require_complete_image
from semi_nnunet.verify.integrity import find_image_problems

OPTIONS = "options"  # in a record of predictions
COARSE, FIRST_STAGE = "the coarse network", "first stage of "  # the same
REFUSED = "nothing can be predicted:"
Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


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
    if speed == EXACT and largest_component is None:
        largest_component = False
    problems, torch_device = list[Problem](), torch.device("cpu")
    if uncertainty and coarse is not None:
        message = "needs the probabilities of all tiles, which --coarse skips"
        problems.append(Problem("--uncertainty", message, "leave one of them out"))
    if uncertainty and not isinstance(images, (str, Path)):
        problems.append(Problem("uncertainty", "is written to files", "give a folder of images"))
    models: list[TrainedModel] = []
    with collect_errors(problems, "--device"):
        torch_device = torch.device(find_resources(device).device)
    with collect_errors(problems, "--step-size"):
        options = make_prediction_options(speed, torch_device, mirror=mirror, step=step)
    with collect_errors(problems, "-m"):
        folders = [str(folder) for folder in (model, coarse) if folder is not None]
        models = find_models(folders, checkpoint)
    if not isinstance(images, (str, Path)):
        pairs = list(zip(images, spacings or (), strict=True))
        with collect_errors(problems, "-m"):
            description = find_model(str(model), checkpoint).dataset_json
            problems += find_array_problems(pairs, len(get_channel_names(description)))
        raise_if_any(REFUSED, [*dict.fromkeys(problems)])
        with at_most(max_memory):
            predictor = load_predictor(model, coarse, options, torch_device, checkpoint)
            labels = (
                predictor(np.asarray(image, np.float32), {"spacing": list(spacing)})
                for image, spacing in pairs
            )
            if not keeps_largest_component(predictor, largest_component):
                return [*labels]
            foreground = predictor.label_manager.foreground_labels
            return [keep_largest_component(label, foreground) for label in labels]
    folder = Path(str(out))
    with collect_errors(problems, "-m"):
        description = find_model(str(model), checkpoint).dataset_json
        cases = find_cases(images, description["file_ending"])
        networks = list_networks(models)
        earlier = read_prediction_record(folder)
        problems += find_folder_problems(
            cases, Path(images), folder, description, networks, earlier
        )
        edited = find_edited_labels(folder, cases, description["file_ending"])
        for path in () if resume else edited.values():
            fix = "move it away, accept it (semi_nnunet accept), or keep it: --c"
            problems.append(Problem(str(path), "was changed since it was predicted", fix))
    raise_if_any(REFUSED, [*dict.fromkeys(problems)])  # both checks name a missing model
    for problem in () if largest_component is not None else find_changed_rule(models[0]):
        logger.warning(printable(problem.as_warning()))
    for misplaced in find_misnamed_images(images, cases, [description["file_ending"]]):
        logger.warning(printable(f"left out: {misplaced}"))
    with at_most(max_memory):
        predictor = load_predictor(model, coarse, options, torch_device, checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / DATASET_JSON, description)  # names the labels
        inputs: dict[str, Path | str] = {
            **networks,
            OPTIONS: describe_options(predictor)
            + ", largest component" * keeps_largest_component(predictor, largest_component),
            **list_images(cases),
        }
        records = read_inputs(inputs, FileRecord.of_any)  # a broken image is reported later
        outdated = [c for c in find_outdated_cases(cases, earlier, inputs) if c not in edited]
        if edited:
            logger.warning(f"labels that were changed by hand stay: {list_first([*edited])}")
        ending = description["file_ending"]
        for path in find_predictions(folder, outdated, ending).values():
            path.unlink()  # else a killed command would leave it as one of the present image
        write_record(folder / PREDICTED_FROM, {MODEL: models[0].name, **records})
        (folder / EARLIER_RECORD).unlink(missing_ok=True)
        if others := sorted({*list_cases(folder, ending)} - {*cases}):
            logger.warning(
                f"{folder} also holds earlier predictions of other images: {list_first(others)}"
            )
        kept = find_predictions(folder, cases, ending) if resume else {}
        if uncertainty:
            kept = {c: path for c, path in kept.items() if is_reviewed(folder, c, ending)} | edited
        left = {case: files for case, files in cases.items() if case not in kept}
        remove_reviews(folder, left, ending)
        folder_predictor = FolderPredictor(
            predictor, Path(images), folder, max_memory, largest_component,
            writes_maps=uncertainty, writes_record=True,
        )  # fmt: skip
        try:
            files = [*kept.values(), *(folder_predictor.predict(left) if left else ())]
        finally:
            if uncertainty:
                calibration = calibrate_expected_dice(models[0], predictor.reader_writer)
                write_review(folder, cases, description, calibration)
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


def keeps_largest_component(predictor: ImagePredictor, requested: bool | None) -> bool:
    """Return whether only the largest component of predictions is kept.

    Args:
        predictor: of the model.
        requested: None: as the model's dataset.json says.
    """
    return is_one_piece(predictor.loaded.dataset_json) if requested is None else requested


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


def list_images(cases: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Return the images of cases by their names in a record of predictions."""
    return {f"image {Path(file).name}": Path(file) for files in cases.values() for file in files}


def describe_options(predictor: ImagePredictor) -> str:
    """Return the options and, if ``tune`` chose some, the axes of mirrored images."""
    stages = list[ImagePredictor]()
    for last in (predictor, predictor.coarse):
        stage = last if isinstance(last, ImagePredictor) else None
        while stage is not None:
            stages.append(stage)
            stage = stage.previous
    allowed = [tuple(stage.loaded.allowed_mirroring_axes or ()) for stage in stages]
    axes = [stage.window.mirror_axes for stage in stages]
    is_tuned = predictor.options.mirror is None and axes != allowed
    return f"{predictor.options}, mirrored along {axes}" if is_tuned else str(predictor.options)


def list_networks(models: Sequence[TrainedModel]) -> dict[str, Path]:
    """Return the checkpoints of the model and of the coarse one, with their first stages."""
    networks = dict[str, Path]()
    for title, model in zip((NETWORK, COARSE), models, strict=False):
        stage: TrainedModel | None = model
        while stage is not None:
            for fold, path in stage.checkpoints.items():
                networks[name_network(title, fold, stage.folds)] = path
            title, stage = f"{FIRST_STAGE}{title}", stage.previous
    return networks


def name_network(title: str, fold: str, folds: Collection[str]) -> str:
    """Return the name of a network in a record; that of an only fold is not named after it."""
    return title if len(folds) == 1 else f"{title} of fold {fold}"


def read_prediction_record(folder: Path) -> Records:
    """Return the record of the predictions in a folder; {} if there is no record.

    Earlier versions recorded only names and checksums of the models.
    """
    if (folder / PREDICTED_FROM).is_file():
        return read_record(folder / PREDICTED_FROM)
    records = dict[str, FileRecord | str]()
    for (key, model), title in zip(
        optional_json(folder / EARLIER_RECORD).items(), (NETWORK, COARSE), strict=False
    ):
        if key == "predicted_by":
            records[MODEL] = model["model"]
        while model is not None:
            for fold, digest in model["folds"].items():
                records[name_network(title, fold, model["folds"])] = digest
            title, model = f"{FIRST_STAGE}{title}", model.get("previous")
    return records


def find_outdated_cases(
    cases: Mapping[str, Sequence[str]], earlier: Records, inputs: Inputs
) -> list[str]:
    """Return the cases whose predictions were made from other images, or in another way.

    Args:
        cases: case -> its images.
        earlier: the record of the predictions; of earlier versions, it lacks images and options.
        inputs: the present ones.
    """
    if OPTIONS not in earlier and not any(name.startswith("image ") for name in earlier):
        return []
    changed = {*compare_inputs(earlier, inputs)}
    if OPTIONS in changed:
        return list(cases)
    return [
        case for case, files in cases.items() if changed.intersection(list_images({case: files}))
    ]


def find_edited_labels(folder: Path, cases: Iterable[str], ending: str) -> dict[str, Path]:
    """Return case -> its file, for labels that were corrected after their prediction.

    Labels of earlier versions have no record and are not returned.
    """
    written = WrittenLabels(folder)
    edited = written.read().keys() - written.list_unchanged()
    return find_predictions(folder, [case for case in cases if case in edited], ending)


def find_predictions(folder: Path, cases: Iterable[str], ending: str) -> dict[str, Path]:
    """Return case -> its file, for cases whose prediction is complete."""
    paths = {case: folder / f"{case}{ending}" for case in cases}
    return {case: path for case, path in paths.items() if path.is_file() and is_complete(path)}


def is_complete(image: Path) -> bool:
    """Return whether a file holds all of its image, as far as its format allows to tell."""
    try:
        require_complete_image(image)
    except OSError:
        return False
    return True


def find_folder_problems(
    cases: Mapping[str, Any],
    images: Path,
    out: Path,
    description: Mapping[str, Any],
    networks: Inputs,
    earlier: Records,
) -> Iterator[Problem]:
    """Yield a problem if there are no images, or if files in the output folder would be lost.

    Earlier predictions of the same models are replaced; those of others would mix with the new.

    Args:
        cases: of the images.
        images, out: folders.
        description: content of the model's dataset.json.
        networks: of the models, see :func:`list_networks`; empty if one is missing.
        earlier: record of the present predictions.
    """
    ending = description["file_ending"]
    if not cases:
        message = f"holds no image CASE_0000{ending}"
        if images.is_dir():
            yield Problem(str(images), message, "correct the folder, or name its files so")
        else:
            yield Problem(str(images), "is no folder of images", "correct the folder")
    if file := file_in_the_way(out):
        yield Problem(str(out), f"must be a folder, got the file {file}", "choose another -o")
        return
    if images.exists() and out.exists() and out.samefile(images):
        message = "must be another folder than that of the images"
        yield Problem(str(out), message, "choose another -o")
        return
    lost = [name for name in (f"{case}{ending}" for case in cases) if (out / name).exists()]
    path = out / DATASET_JSON
    if path.exists() and not (
        path.is_file() and is_same_description(optional_json(path), description)
    ):
        message = f"must be new, or hold predictions of this model, got another {DATASET_JSON}"
        yield Problem(str(out), message, "choose another -o, or remove that folder")
        return
    known = {name: entry for name, entry in earlier.items() if is_network(name)}
    if known and networks and compare_inputs(known, networks):
        name = earlier.get(MODEL, "another model")
        message = f"must be new, or hold predictions of this model, got those of {name} with "
        yield Problem(
            str(out), f"{message}other weights", "choose another -o, or remove that folder"
        )
    elif not earlier and (kept := sorted({*list_cases(out, ending)} - {*cases})):
        message = f"holds {kept[0]}{ending} of an unknown model, which would be mixed with others"
        yield Problem(str(out), message, "choose another -o, or remove that folder")
    elif lost and not path.exists():
        message = f"holds {lost[0]}, which is not a prediction of ours and would be lost"
        yield Problem(str(out), message, "choose another -o")


def is_network(name: str) -> bool:
    """Return whether an entry of a record names a network, neither an image nor options."""
    return name.removeprefix(FIRST_STAGE).startswith((NETWORK, COARSE))


def is_same_description(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two dataset.json describe the same data set, apart from size and our keys.

    >>> is_same_description({"labels": {}, "numTraining": 5}, {"labels": {}, "one_piece": True})
    True
    """
    ours, theirs = without_own_keys(first), without_own_keys(second)
    return {**ours, "numTraining": None} == {**theirs, "numTraining": None}


def load_predictor(
    model: str | Path,
    coarse: str | Path | None,
    options: PredictionOptions,
    device: torch.device,
    checkpoint: str = FINAL_CHECKPOINT,
) -> ImagePredictor:
    """Load a model, and optionally the coarse one for finding the foreground.

    Raises:
        UserError: a model or its first stage is missing, or the two do not fit together.
    """
    names = [str(name) for name in (model, coarse) if name is not None]
    fine, *coarse_models = find_models(names, checkpoint)
    finder = ImagePredictor(coarse_models[0], options, device) if coarse_models else None
    return ImagePredictor(fine, options, device, finder)


class FolderPredictor:
    """A predictor of a folder that reads the next image and writes the last one meanwhile.

    Args:
        predictor: of one image.
        images: their folder.
        out: folder for the segmentations.
        max_memory: limit in GiB that holds already; with a limit, nothing is read ahead.
        largest_component: see :func:`keeps_largest_component`.
        writes_maps: also write a map of uncertainty for each image.
        writes_record: also record the checksum of each label, to notice corrections later.
    """

    def __init__(
        self,
        predictor: ImagePredictor,
        images: Path,
        out: Path,
        max_memory: float | None = None,
        largest_component: bool | None = None,
        writes_maps: bool = False,
        writes_record: bool = False,
    ):
        self.predictor, self.images, self.out = predictor, images, out
        self.writes_maps, self.writes_record = writes_maps, writes_record
        self.max_memory = max_memory
        self.largest_component = keeps_largest_component(predictor, largest_component)
        self.description = predictor.loaded.dataset_json
        self.ending = self.description["file_ending"]

    def predict(self, cases: dict[str, list[str]]) -> list[Path]:
        """Predict the cases and return the files.

        Args:
            cases: case -> its channel files.

        Raises:
            UserError: some could not be predicted; all others are.
            DiskError: the disk is full or not writable; earlier files are complete.
        """
        problems: list[Problem] = []
        written: list[Future[Path]] = []
        reader = choose_reader(
            self.description, [file for files in cases.values() for file in files]
        )
        lines = CaseLines(len(cases))
        with ThreadPoolExecutor(1) as writing:
            read, in_order = partial(self._read, reader), list(cases.items())
            images = map_ahead(read, in_order) if self.max_memory is None else map(read, in_order)
            for case, image in images:
                if isinstance(image, Problem):
                    problems.append(image)
                    continue
                try:
                    labels, probabilities = self._predict(*image)
                except Exception as error:
                    problems.append(self._make_problem(case, error))
                    continue
                for future in written[-1:]:
                    future.result()  # at most one waits
                written.append(writing.submit(self._write, case, labels, image[1], probabilities))
                lines.finish(case)
        files = [future.result() for future in written]
        if problems:
            raise UserError(
                f"{len(problems)} of {len(cases)} images could not be predicted; all others are in "
                f"{self.out}:",
                problems,
            )
        return files

    def _predict(
        self, image: np.ndarray, properties: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the labels, and the probabilities if a map is to be made from them."""
        probabilities = None
        if self.writes_maps:
            labels, probabilities = self.predictor.predict_probabilities(image, properties)
        else:
            labels = self.predictor(image, properties)
        if self.largest_component:
            foreground = self.predictor.label_manager.foreground_labels
            labels = keep_largest_component(labels, foreground)
        return labels, probabilities

    def _make_problem(self, case: str, error: Exception) -> Problem:
        """Return the problem of a case that could not be predicted.

        Raises:
            Exception: the error, if the case did not cause it.
        """
        no_memory = isinstance(error, TileTooLargeError) or is_of_memory(error)
        if self.max_memory is not None and no_memory:
            message = f"needs more memory than --max-memory {self.max_memory:g} (GiB)"
            return Problem(case, message, "raise it, or leave the image out")
        if isinstance(error, UserError) or is_of_machine(error):
            raise error
        message = f"cannot be predicted: {shorten_reason(error)}"
        return Problem(case, message, "correct its files or leave it out")

    def _read(
        self, reader: type[Any], case_and_files: tuple[str, Sequence[str]]
    ) -> tuple[str, Problem | tuple[np.ndarray, dict[str, Any]]]:
        """Return the case with its image and properties, or with its problem."""
        case, files = case_and_files
        if problems := find_image_problems(self.images, self.description, reader, case, files):
            return case, self._mention_limit(problems[0])
        try:
            image, properties = self.predictor.reader_writer.read_images(list(files))
        except Exception as error:  # of any type: there are many readers
            message = f"cannot be read: {shorten_reason(error)}"
            return case, self._mention_limit(
                Problem(case, message, "copy it again, or leave it out")
            )
        return case, (image, properties)

    def _mention_limit(self, problem: Problem) -> Problem:
        """Add the limit of memory: readers do not always report that it was the cause."""
        if self.max_memory is None:
            return problem
        message = f"within --max-memory {self.max_memory:g} (GiB): {problem.what}"
        return replace(problem, what=message, fix=f"raise it, or {problem.fix}")

    def _write(
        self,
        case: str,
        labels: np.ndarray,
        properties: dict[str, Any],
        probabilities: np.ndarray | None,
    ) -> Path:
        """Write the labels of a case, and its map of uncertainty if there are probabilities.

        Raises:
            DiskError: the disk is full or not writable; no incomplete file remains.
        """
        if probabilities is not None:
            plans = self.predictor.loaded.plans_manager
            near = count_near_voxels(properties["spacing"], plans, self.predictor.configuration)
            percent, facts = assess_prediction(labels, probabilities, self.description, near)
            path = find_map(self.out, case, self.ending)
            path.parent.mkdir(exist_ok=True)
            self._write_voxels(path, percent, properties)
            write_facts(self.out, case, facts)
        path = self._write_voxels(self.out / f"{case}{self.ending}", labels, properties)
        if self.writes_record:
            WrittenLabels(self.out).record(case, path)
        return path

    def _write_voxels(self, path: Path, labels: np.ndarray, properties: dict[str, Any]) -> Path:
        """Write a file with the geometry of the image; see :meth:`_write`."""
        try:
            self.predictor.reader_writer.write_seg(labels, str(path), properties)
            require_complete_image(path)
        except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as RuntimeError
            path.unlink(missing_ok=True)
            state = "Cases that were predicted earlier are complete"
            raise could_not_write(path, error, path.parent, state=state) from error
        return path


def map_ahead(do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of ``do`` in order; compute the next one in a thread meanwhile.

    >>> list(map_ahead(str.upper, ["a", "b"]))
    ['A', 'B']
    """
    with ThreadPoolExecutor(1) as executor:
        waiting: Future[Result] | None = None
        for item in items:
            following = executor.submit(do, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
