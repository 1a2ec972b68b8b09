"""Predict a folder of images: the next one is read, and the last one written, meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semi_nnunet.evaluation.pieces import keep_largest_component
from semi_nnunet.inference.model import ImagePredictor, TileTooLargeError
from semi_nnunet.inference.review import (
    assess_prediction,
    count_near_voxels,
    find_map,
    write_facts,
)
from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.raw.pieces import is_one_piece
from semi_nnunet.raw.readers import choose_reader
from semi_nnunet.util.errors import Problem, UserError, shorten_reason
from semi_nnunet.util.failures import is_of_machine, is_of_memory
from semi_nnunet.util.files import could_not_write
from semi_nnunet.util.progress import CaseLines
from semi_nnunet.verify.file_bytes import require_complete_image
from semi_nnunet.verify.integrity import find_image_problems

Item = TypeVar("Item")
Result = TypeVar("Result")


def keeps_largest_component(predictor: ImagePredictor, requested: bool | None) -> bool:
    """Return whether only the largest component of predictions is kept.

    Args:
        predictor: of the model.
        requested: None: as the model's dataset.json says.
    """
    return is_one_piece(predictor.loaded.dataset_json) if requested is None else requested


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
