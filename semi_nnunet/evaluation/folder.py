"""Evaluate a folder of predictions: every case and class, on the native grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from tqdm import tqdm

from semi_nnunet.data.file_bytes import BrokenFileError, check_presence, scan_raw, short_reason
from semi_nnunet.data.image_files import (
    SPACING_RTOL,
    Geometry,
    finite_problem,
    geometry_difference,
    label_problem,
    read_with_nnunet,
)
from semi_nnunet.data.raw_description import files_in
from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.evaluation.metrics import UNDEFINED, Measure, column_meanings, mask_metrics
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.parallel import in_processes

COUNTS = ("TP", "FP", "FN", "TN", "n_pred", "n_ref")  # nnU-Net's, in voxels


@dataclass(frozen=True)
class Pair:
    """A predicted file and its reference."""

    case: str
    prediction: str
    reference: str


@dataclass(frozen=True)
class Row:
    """What was found for one class of one case; NaN where the case does not annotate the class."""

    case: str
    name: str
    metrics: dict[str, float]
    counts: Mapping[str, float]


@dataclass(frozen=True)
class Protocol:
    """What all cases are held to, and measured by.

    Args:
        labelling: of predictions and references.
        measures: name of the class -> in what it is measured.
    """

    labelling: Labelling
    measures: Mapping[str, Measure]


def find_pairs(predictions: Path, references: Path, ending: str, partial_ok: bool) -> list[Pair]:
    """Match the files of two folders by their names; hidden ones, as macOS leaves, do not count.

    Raises:
        UserError: a folder has no such file, or a file has no counterpart. A reference without a
            prediction is none if ``partial_ok``.
    """
    ours, theirs = (
        {
            name.removesuffix(ending)
            for name in files_in(folder)
            if name.endswith(ending) and not name.startswith(".")
        }
        for folder in (predictions, references)
    )
    problems = [
        Problem(str(folder), f"holds no file *{ending}", "correct the folder, or dataset.json")
        for folder, names in ((predictions, ours), (references, theirs))
        if not names
    ]
    if not problems:
        fix = f"add the reference to {references}, or remove the prediction"
        problems += [
            Problem(f"{case}{ending}", "is predicted and has no reference", fix)
            for case in sorted(ours - theirs)
        ]
        fix = "predict it, or give --partial to evaluate what is there"
        problems += [
            Problem(f"{case}{ending}", f"has no prediction in {predictions}", fix)
            for case in sorted(theirs - ours)
            if not partial_ok
        ]
    raise_if_any("Predictions and references do not match:", problems)
    return [
        Pair(case, str(predictions / f"{case}{ending}"), str(references / f"{case}{ending}"))
        for case in sorted(ours & theirs)
    ]


def make_protocol(
    labelling: Labelling,
    example: str,
    tolerances: Sequence[float],
    own_tolerances: Mapping[str, float],
    missed_distance: float | None = None,
    in_voxels: bool = False,
) -> Protocol:
    """Measures of every class, in the unit that such files have.

    Args:
        labelling: of predictions and references.
        example: one of the files.
        tolerances: of every class.
        own_tolerances: class -> its tolerance, reported as the tolerance "own"; {}: none.
        missed_distance: see :class:`Measure`.
        in_voxels: whether the user asks for voxels.

    Raises:
        UserError: a class and its tolerance do not match.
    """
    if own_tolerances and set(own_tolerances) != set(labelling.classes):
        raise UserError(
            f"a tolerance for each class must name all of them, {', '.join(labelling.classes)}; "
            f"got {', '.join(own_tolerances)}",
            fix="correct --class-tolerances",
        )
    unit, axes = unit_and_axes(labelling.reader, example, in_voxels)
    shared = {f"{size:g}{unit}": size for size in tolerances}
    measures = {}
    for name in labelling.classes:
        own = {"own": own_tolerances[name]} if own_tolerances else {}
        measures[name] = Measure({**shared, **own}, unit, missed_distance, axes)
    return Protocol(labelling, measures)


def unit_and_axes(reader: type[Any], example: str, in_voxels: bool) -> tuple[str, int]:
    """What distances are measured in, and how many axes the images have: see :class:`Measure`."""
    if reader is NaturalImage2DIO:
        return "pixels", 2
    try:
        array, _, _ = read_with_nnunet(example, reader, is_label=True)
    except BrokenFileError:  # it is named with the others
        return "mm", 3
    return "voxels" if in_voxels else "mm", 2 if array.shape[1] == 1 else 3


def evaluate_pairs(pairs: Sequence[Pair], protocol: Protocol, num_processes: int) -> list[Row]:
    """Check all files, then measure all classes of all cases.

    Raises:
        UserError: every file that cannot be read, holds a value that is not declared or not
            finite, or does not lie on the voxels of its reference.
    """
    checks = in_processes(partial(case_problems, protocol), pairs, num_processes, "evaluates")
    bar = tqdm(checks, total=len(pairs), desc="checking", unit="case", disable=None)
    problems = [problem for found in bar for problem in found]
    raise_if_any("Some files cannot be evaluated:", problems)
    results = in_processes(partial(safe_rows, protocol), pairs, num_processes, "evaluates")
    bar = tqdm(results, total=len(pairs), desc="evaluating", unit="case", disable=None)
    return [row for rows in bar for row in rows]


def case_problems(protocol: Protocol, pair: Pair) -> list[Problem]:
    """What is wrong with a case."""
    problems, geometries, labelling = [], [], protocol.labelling
    for path in (pair.prediction, pair.reference):
        try:
            check_presence(path)
            raw = scan_raw(path)
            array, geometry, _ = read_with_nnunet(path, labelling.reader, is_label=True)
        except BrokenFileError as error:
            problems.append(Problem(path, str(error), error.fix))
            continue
        geometries.append(geometry)
        found = (
            finite_problem(array, raw, is_label=True),
            label_problem(array, labelling.allowed),
        )
        problems += [Problem(path, *wrong) for wrong in found if wrong]
    if len(geometries) < 2:
        return problems
    if difference := geometry_difference(geometries[0], geometries[1], SPACING_RTOL):
        what = f"must lie on the voxels of its reference, but has {difference}"
        fix = "resample it to the reference, or mend the headers"
        problems.append(Problem(pair.prediction, what, fix))
    return problems


def safe_rows(protocol: Protocol, pair: Pair) -> list[Row]:
    """The metrics of a case; a strange one is named."""
    try:
        return case_rows(protocol, pair)
    except Exception as error:
        raise UserError(f"case {pair.case} cannot be evaluated: {short_reason(error)}") from error


def case_rows(protocol: Protocol, pair: Pair) -> list[Row]:
    """The metrics of every class of a case."""
    labelling = protocol.labelling
    told = labelling.classes_of(pair.case)
    prediction, geometry, _ = read_with_nnunet(pair.prediction, labelling.reader, is_label=True)
    reference, _, _ = read_with_nnunet(pair.reference, labelling.reader, is_label=True)
    prediction, reference, spacing = in_its_dimensions(prediction[0], reference[0], geometry)
    counts = reference != labelling.ignore if labelling.ignore is not None else None
    rows = []
    for name, values in labelling.classes.items():
        if name not in told:
            nothing = dict.fromkeys(column_meanings(protocol.measures[name]), UNDEFINED)
            rows.append(Row(pair.case, name, nothing, dict.fromkeys(COUNTS, UNDEFINED)))
            continue
        ours, theirs = np.isin(prediction, values), np.isin(reference, values)
        if counts is not None:
            ours, theirs = ours & counts, theirs & counts
        voxels = ours.size if counts is None else int(np.count_nonzero(counts))
        metrics = mask_metrics(ours, theirs, spacing, protocol.measures[name])
        rows.append(Row(pair.case, name, metrics, confusion(ours, theirs, voxels)))
    return rows


def in_its_dimensions(
    prediction: np.ndarray, reference: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """A single slice is an image of two dimensions: its surface is its contour."""
    if prediction.shape[0] == 1:
        return prediction[0], reference[0], geometry.spacing[1:]
    return prediction, reference, geometry.spacing


def confusion(ours: np.ndarray, theirs: np.ndarray, voxels: int) -> dict[str, int]:
    """nnU-Net's counts."""
    tp = int(np.count_nonzero(ours & theirs))
    n_pred, n_ref = int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))
    fp, fn = n_pred - tp, n_ref - tp
    return dict(zip(COUNTS, (tp, fp, fn, voxels - tp - fp - fn, n_pred, n_ref), strict=True))
