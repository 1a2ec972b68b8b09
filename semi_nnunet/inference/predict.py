"""Predict files or arrays with one trained model, one after another, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from tqdm import tqdm

from semi_nnunet.data.file_bytes import require_whole, short_reason
from semi_nnunet.data.integrity import image_problems, reader_class
from semi_nnunet.data.raw_description import cases_in, misnamed
from semi_nnunet.deploy.trained import find_model, find_models
from semi_nnunet.inference.model import (
    ALIKE,
    ImagePredictor,
    Options,
    TileTooLarge,
    options_of,
)
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import Problem, UserError, collect_errors, printable, raise_if_any
from semi_nnunet.util.failures import is_of_machine, is_of_memory
from semi_nnunet.util.files import could_not_write, file_in_the_way, optional_json, write_json
from semi_nnunet.util.memory import at_most

DESCRIPTION = "dataset.json"
REFUSED = "nothing can be predicted:"
Item = TypeVar("Item")
Result = TypeVar("Result")


@overload
def predict(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    speed: str = ALIKE,
    mirror: bool | None = None,
    step: float | None = None,
    coarse: str | Path | None = None,
    device: str | None = None,
    max_memory: float | None = None,
) -> list[Path]: ...


@overload
def predict(
    model: str | Path,
    images: Sequence[np.ndarray],
    *,
    spacings: Sequence[Sequence[float]],
    speed: str = ALIKE,
    mirror: bool | None = None,
    step: float | None = None,
    coarse: str | Path | None = None,
    device: str | None = None,
    max_memory: float | None = None,
) -> list[np.ndarray]: ...


def predict(
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
) -> list[Path] | list[np.ndarray]:
    """Predict images with a trained model, as ``nnUNetv2_predict`` does: files, or arrays.

    Logits of the whole image are never held, so that little memory is needed. A cascade's second
    stage asks its first one before it. For the probabilities, or a pool of images that several
    processes share, see :func:`semi_nnunet.pseudo_label`.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION, or a fold in it, as it is or below
            nnUNet_results, of nnU-Net's trainers or ours; the logits of its folds are averaged.
        images: folder of files CASE_0000.ending; or arrays (channels, *spatial) with the axes in
            the order in which nnU-Net's readers give them, for 2-D images (channels, 1, y, x).
        out: folder for the segmentations, where ``images`` is a folder.
        spacings: of each array, in mm in the order of its axes, for 2-D images (999, y, x).
        speed: "exact": the labels of nnUNetv2_predict; "alike": the same tiles and mirrored images
            in the device's fastest precision; "fast": without mirrored images.
        mirror: average over mirrored images, where the training allows it. None: as speed says;
            "alike" mirrors along the axes that :func:`semi_nnunet.tune` chose, where it did.
        step: between tiles, as a fraction of the patch. None: as speed says.
        coarse: another model of the same data set, such as its 3d_lowres, that is asked first:
            tiles without foreground of it are background. None: all tiles are predicted.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one, else the CPU.
        max_memory: main memory in GiB that this process may have (Linux): tiles become smaller, the
            next image is not read meanwhile, and an image that needs more is named. None: no limit.

    Returns:
        The files that were written, or an array of labels (*spatial) for each image.

    Raises:
        UserError: the model or the images are not there, ``out`` or ``spacings`` is missing, the
            device does not exist, the program itself takes more than ``max_memory``, or files in
            ``out`` would be lost that are no predictions; names all that is wrong. Images of a
            folder that cannot be predicted are named after all others were predicted.
    """
    if not isinstance(images, (str, Path)) and (spacings is None or len(spacings) != len(images)):
        raise UserError(
            f"spacings must be given for each of the {len(images)} arrays, got "
            f"{'none' if spacings is None else len(spacings)}",
            fix="spacings=[(z, y, x), ...]",
        )
    if isinstance(images, (str, Path)) and out is None:
        raise UserError("predictions of a folder need another for themselves", fix="out=FOLDER")
    wrong, place = list[Problem](), torch.device("cpu")
    with collect_errors(wrong, "--device"):
        place = torch.device(find_resources(device).device)
    with collect_errors(wrong, "--step"):
        options = options_of(speed, place, mirror=mirror, step=step)
    with collect_errors(wrong, "-m"):
        find_models([str(one) for one in (model, coarse) if one is not None])
    if not isinstance(images, (str, Path)):
        raise_if_any(REFUSED, wrong)
        pairs = zip(images, spacings or (), strict=True)
        with at_most(max_memory):
            loaded = predictor_of(model, coarse, options, place)
            return [
                loaded(np.asarray(image, np.float32), {"spacing": list(spacing)})
                for image, spacing in pairs
            ]
    folder = Path(str(out))
    with collect_errors(wrong, "-m"):
        description = find_model(str(model)).dataset_json
        cases = cases_in(images, description["file_ending"])
        wrong += folder_problems(cases, Path(images), folder, description)
    raise_if_any(REFUSED, [*dict.fromkeys(wrong)])  # that there is no model was found twice
    for one in misnamed(images, cases, [description["file_ending"]]):
        print(printable(f"left out: {one}"), file=sys.stderr)
    with at_most(max_memory):
        loaded = predictor_of(model, coarse, options, place)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / DESCRIPTION, description)  # says what the labels are
        return FolderPredictor(loaded, Path(images), folder, max_memory).predict(cases)


def folder_problems(
    cases: Mapping[str, Any], images: Path, out: Path, description: Mapping[str, Any]
) -> Iterator[Problem]:
    """Images that are not there, and a folder for segmentations in which something would be lost.

    Predictions that are there are replaced: they lie beside the same dataset.json.

    Args:
        cases: of the images.
        images, out: folders.
        description: content of the model's dataset.json.
    """
    ending = description["file_ending"]
    if not cases:
        got = "no such image" if images.is_dir() else "no folder"
        what = f"holds no image CASE_0000{ending}, got {got}"
        yield Problem(str(images), what, "correct the folder, or name its files so")
    if there := file_in_the_way(out):
        yield Problem(str(out), f"must be a folder, got the file {there}", "choose another -o")
        return
    if images.exists() and out.exists() and out.samefile(images):
        what = "must be another folder than that of the images"
        yield Problem(str(out), what, "choose another -o")
        return
    lost = [name for name in (f"{case}{ending}" for case in cases) if (out / name).exists()]
    beside = out / DESCRIPTION
    if beside.exists() and not (beside.is_file() and alike(optional_json(beside), description)):
        what = f"must be new, or of predictions of this model, got another {DESCRIPTION}"
        yield Problem(str(out), what, "choose another -o, or remove that folder")
    elif lost and not beside.exists():
        what = f"holds {lost[0]}, which is no prediction of ours and would be lost"
        yield Problem(str(out), what, "choose another -o")


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two dataset.json are of the same data set, of which one may have grown since."""
    ours, theirs = ({**each, "numTraining": None} for each in (one, other))
    return ours == theirs


def predictor_of(
    model: str | Path, coarse: str | Path | None, options: Options, device: torch.device
) -> ImagePredictor:
    """Load a model, and the one that is asked where foreground is.

    Raises:
        UserError: a model is missing, or lacks its first stage, or the two do not fit together.
    """
    first, *others = find_models([str(one) for one in (model, coarse) if one is not None])
    finder = ImagePredictor(others[0], options, device) if others else None
    return ImagePredictor(first, options, device, finder)


class FolderPredictor:
    """Predicts the images of a folder: the next is read, and the last written, meanwhile.

    Args:
        model: loaded.
        images: their folder.
        out: folder for the segmentations.
        max_memory: limit in GiB that holds already; with one, nothing is read meanwhile.
    """

    def __init__(
        self, model: ImagePredictor, images: Path, out: Path, max_memory: float | None = None
    ):
        self.model, self.images, self.out, self.max_memory = model, images, out, max_memory
        self.description = model.predictor.dataset_json
        self.ending = self.description["file_ending"]

    def predict(self, cases: dict[str, list[str]]) -> list[Path]:
        """Predict the cases; returns the files.

        Args:
            cases: case -> its channel files.

        Raises:
            UserError: some could not be predicted; all others are.
            DiskError: the disk is full or not writable; what was written before is whole.
        """
        problems: list[Problem] = []
        written: list[Future[Path]] = []
        reader = reader_class(
            self.description, [file for files in cases.values() for file in files]
        )
        bar = tqdm(total=len(cases), desc="predicting", unit="case", disable=None)
        with ThreadPoolExecutor(1) as writing, bar:
            read, in_order = partial(self._read, reader), list(cases.items())
            each = ahead(read, in_order) if self.max_memory is None else map(read, in_order)
            for case, found in each:
                bar.update()
                if isinstance(found, Problem):
                    problems.append(found)
                    continue
                try:
                    labels = self.model(*found)
                except Exception as error:
                    problems.append(self._problem(case, error))
                    continue
                for one in written[-1:]:
                    one.result()  # at most one waits
                written.append(writing.submit(self._write, case, labels, found[1]))
        files = [one.result() for one in written]
        if problems:
            raise UserError(
                f"{len(problems)} of {len(cases)} images could not be predicted; all others are in "
                f"{self.out}:",
                problems,
            )
        return files

    def _problem(self, case: str, error: Exception) -> Problem:
        """What is told of a case that could not be predicted.

        Raises:
            Exception: the error, where it is not the case's.
        """
        if self.max_memory is not None and (isinstance(error, TileTooLarge) or is_of_memory(error)):
            what = f"needs more memory than --max-memory {self.max_memory:g} (GiB)"
            return Problem(case, what, "raise it, or leave the image out")
        if isinstance(error, UserError) or is_of_machine(error):
            raise error
        what = f"cannot be predicted: {short_reason(error)}"
        return Problem(case, what, "correct its files or leave it out")

    def _read(
        self, reader: type[Any], case_and_files: tuple[str, Sequence[str]]
    ) -> tuple[str, Problem | tuple[np.ndarray, dict[str, Any]]]:
        """The case with its image and properties, or with what is wrong with it."""
        case, files = case_and_files
        if wrong := image_problems(self.images, self.description, reader, case, files):
            return case, self._within_limit(wrong[0])
        try:
            image, properties = self.model.reader_writer.read_images(list(files))
        except Exception as error:  # of any kind: readers are many
            what = f"cannot be read: {short_reason(error)}"
            return case, self._within_limit(Problem(case, what, "copy it again, or leave it out"))
        return case, (image, properties)

    def _within_limit(self, problem: Problem) -> Problem:
        """What is told of a file; readers do not always tell that it was the memory."""
        if self.max_memory is None:
            return problem
        what = f"within --max-memory {self.max_memory:g} (GiB): {problem.what}"
        return replace(problem, what=what, fix=f"raise it, or {problem.fix}")

    def _write(self, case: str, labels: np.ndarray, properties: dict[str, Any]) -> Path:
        """Write the labels of a case.

        Raises:
            DiskError: the disk is full or not writable; no half-written file stays.
        """
        path = self.out / f"{case}{self.ending}"
        try:
            self.model.reader_writer.write_seg(labels, str(path), properties)
            require_whole(path)
        except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as RuntimeError
            path.unlink(missing_ok=True)
            left = "The cases that were predicted before are whole"
            raise could_not_write(path, error, path.parent, left=left) from error
        return path


def ahead(do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of a function, in order; the next one is computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        waiting: Future[Result] | None = None
        for item in items:
            following = executor.submit(do, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
