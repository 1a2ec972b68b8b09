"""Evaluate a folder of predictions: every case and class, on the native grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from tqdm import tqdm

from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.evaluation.lesions import (
    LesionOverlaps,
    describe_lesion_columns,
    find_lesions,
    measure_lesions,
)
from semi_nnunet.evaluation.metrics import (
    UNDEFINED,
    Measure,
    compute_dice,
    count_shared,
    describe_columns,
    find_size_column,
    mask_metrics,
)
from semi_nnunet.evaluation.pieces import Pieces, count_pieces, keep_largest_component
from semi_nnunet.raw.description import list_cases
from semi_nnunet.raw.layout import GROUND_TRUTH, suggest_new_copy
from semi_nnunet.raw.lesion_rules import LesionRule
from semi_nnunet.raw.readers import (
    SPACING_RTOL,
    BrokenFileError,
    Geometry,
    describe_geometry_difference,
    read_with_nnunet,
)
from semi_nnunet.util.errors import Problem, UserError, raise_if_any, shorten_reason
from semi_nnunet.util.parallel import in_processes
from semi_nnunet.verify.file_bytes import check_presence, scan_raw
from semi_nnunet.verify.image_files import find_label_value_problem, find_non_finite_problem

COUNTS = ("TP", "FP", "FN", "TN", "n_pred", "n_ref")  # nnU-Net's, in voxels


@dataclass(frozen=True)
class FilePair:
    """A predicted file and its reference."""

    case: str
    prediction: str
    reference: str


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics and counts of one class in one case; NaN if the case does not annotate the class.

    Args:
        case: name of the case.
        name: name of the class.
        metrics: column -> value.
        counts: nnU-Net's, in voxels.
        lesions: of the class; None if lesions are not measured, or the class is not annotated.
        voxel_size: product of the spacings.
        pieces: of all classes of the case; None if they are not counted.
        dice_of_largest: Dice of the class if only the largest piece of the prediction counted.
    """

    case: str
    name: str
    metrics: dict[str, float]
    counts: Mapping[str, float]
    lesions: LesionOverlaps | None = None
    voxel_size: float = 1.0
    pieces: Pieces | None = None
    dice_of_largest: float = UNDEFINED


@dataclass(frozen=True)
class EvaluationProtocol:
    """The labelling that files must follow, and the measure of every class.

    Args:
        labelling: of predictions and references.
        measures: name of the class -> unit and tolerances.
        lesion_rules: by which lesions match; (): lesions are not measured.
    """

    labelling: Labelling
    measures: Mapping[str, Measure]
    lesion_rules: tuple[LesionRule, ...] = ()

    def describe_columns(self, measure: Measure) -> dict[str, str]:
        """Return the meaning of each column of the tables."""
        return describe_columns(measure) | describe_lesion_columns(self.lesion_rules)


def find_pairs(
    predictions: Path, references: Path, ending: str, partial_ok: bool
) -> list[FilePair]:
    """Match the files of two folders by their names; hidden files (from macOS) are ignored.

    Raises:
        UserError: a folder has no such file, or a file has no counterpart. References without a
            prediction are accepted if ``partial_ok``.
    """
    predicted, referenced = ({*list_cases(folder, ending)} for folder in (predictions, references))
    problems = [
        Problem(str(folder), f"holds no file *{ending}", "correct the folder, or dataset.json")
        for folder, names in ((predictions, predicted), (references, referenced))
        if not names
    ]
    if not problems:
        fix = f"add the reference to {references}, or remove the prediction"
        problems += [
            Problem(f"{case}{ending}", "is predicted, but has no reference", fix)
            for case in sorted(predicted - referenced)
        ]
        fix = "predict it, or use --incomplete to evaluate only the predicted cases"
        problems += [
            Problem(f"{case}{ending}", f"has no prediction in {predictions}", fix)
            for case in sorted(referenced - predicted)
            if not partial_ok
        ]
    raise_if_any("Predictions and references do not match:", problems)
    return list_pairs(predictions, references, ending)


def list_pairs(predictions: Path, references: Path, ending: str) -> list[FilePair]:
    """Return the cases that have a file in both folders, sorted."""
    common = {*list_cases(predictions, ending)} & {*list_cases(references, ending)}
    return [
        FilePair(case, str(predictions / f"{case}{ending}"), str(references / f"{case}{ending}"))
        for case in sorted(common)
    ]


def make_protocol(
    labelling: Labelling,
    examples: Iterable[str],
    tolerances: Sequence[float],
    class_tolerances: Mapping[str, float],
    missed_distance: float | None = None,
    in_voxels: bool = False,
    lesion_rules: tuple[LesionRule, ...] = (),
) -> EvaluationProtocol:
    """Choose the measure of every class, in the unit that the files have.

    Args:
        labelling: of predictions and references.
        examples: the files, or some of them.
        tolerances: of every class.
        class_tolerances: class -> its own tolerance, reported under the name "own"; {}: none.
        missed_distance: see :class:`Measure`.
        in_voxels: whether the user asks for voxels.
        lesion_rules: by which lesions match; (): lesions are not measured.

    Raises:
        UserError: ``class_tolerances`` do not name all classes.
    """
    if class_tolerances and set(class_tolerances) != set(labelling.classes):
        raise UserError(
            f"a tolerance for each class must name all of them, {', '.join(labelling.classes)}; "
            f"got {', '.join(class_tolerances)}",
            fix="correct --class-tolerances",
        )
    unit, axes = detect_unit_and_axes(labelling.reader, examples, in_voxels)
    shared = {f"{size:g}{unit}": size for size in tolerances}
    measures = {}
    for name in labelling.classes:
        special = {"own": class_tolerances[name]} if class_tolerances else {}
        measures[name] = Measure({**shared, **special}, unit, missed_distance, axes)
    return EvaluationProtocol(labelling, measures, lesion_rules)


def detect_unit_and_axes(
    reader: type[Any], examples: Iterable[str], in_voxels: bool
) -> tuple[str, int]:
    """Return the unit of distances and the number of axes of the images: see :class:`Measure`.

    Images are flat if all of them have one slice.
    """
    if reader is NaturalImage2DIO:
        return "pixels", 2
    try:
        arrays = (read_with_nnunet(example, reader, is_label=True)[0] for example in examples)
        is_flat = all(array.shape[1] == 1 for array in arrays)
    except BrokenFileError:  # reported later, together with the other files
        return "mm", 3
    return "voxels" if in_voxels else "mm", 2 if is_flat else 3


def evaluate_pairs(
    pairs: Sequence[FilePair], protocol: EvaluationProtocol, num_processes: int
) -> list[ClassMetrics]:
    """Check all files, then measure all classes of all cases.

    Raises:
        UserError: lists every file that cannot be read, holds undeclared or non-finite values, or
            does not lie on the voxels of its reference.
    """
    checks = in_processes(partial(find_case_problems, protocol), pairs, num_processes, "evaluates")
    bar = tqdm(checks, total=len(pairs), desc="checking", unit="case", disable=None)
    problems = [problem for case_problems in bar for problem in case_problems]
    raise_if_any("Some files cannot be evaluated:", problems)
    results = in_processes(partial(measure_named_case, protocol), pairs, num_processes, "evaluates")
    bar = tqdm(results, total=len(pairs), desc="evaluating", unit="case", disable=None)
    return [row for rows in bar for row in rows]


def find_case_problems(protocol: EvaluationProtocol, pair: FilePair) -> list[Problem]:
    """Return everything that is wrong with the files of a case."""
    problems, geometries, labelling = [], [], protocol.labelling
    for path in (pair.prediction, pair.reference):
        try:
            check_presence(path)
            raw = scan_raw(path)
            array, geometry, _ = read_with_nnunet(path, labelling.reader, is_label=True)
        except BrokenFileError as error:
            is_copy = Path(path).parent.name == GROUND_TRUTH
            fix = suggest_new_copy(Path(path)) if is_copy else error.fix
            problems.append(Problem(path, str(error), fix))
            continue
        geometries.append(geometry)
        checks = (
            find_non_finite_problem(array, raw, is_label=True),
            find_label_value_problem(array, labelling.allowed),
        )
        problems += [Problem(path, *check) for check in checks if check]
    if len(geometries) < 2:
        return problems
    if difference := describe_geometry_difference(geometries[0], geometries[1], SPACING_RTOL):
        message = f"must lie on the voxels of its reference, but has {difference}"
        fix = "resample it to the reference, or correct the headers"
        problems.append(Problem(pair.prediction, message, fix))
    return problems


def measure_named_case(protocol: EvaluationProtocol, pair: FilePair) -> list[ClassMetrics]:
    """Measure a case; errors name it."""
    try:
        return measure_case_classes(protocol, pair)
    except Exception as error:
        raise UserError(f"case {pair.case} cannot be evaluated: {shorten_reason(error)}") from error


def measure_case_classes(protocol: EvaluationProtocol, pair: FilePair) -> list[ClassMetrics]:
    """Measure every class of a case.

    Pieces are counted where ``dataset.json`` might say "one_piece", or does.
    """
    labelling = protocol.labelling
    annotated = labelling.list_classes(pair.case)
    prediction, geometry, _ = read_with_nnunet(pair.prediction, labelling.reader, is_label=True)
    reference, _, _ = read_with_nnunet(pair.reference, labelling.reader, is_label=True)
    if labelling.one_piece:
        prediction = keep_largest_component(prediction, labelling.foreground)
    prediction, reference, spacing = drop_single_slice(prediction[0], reference[0], geometry)
    largest, pieces = prediction, None
    if labelling.is_complete and not protocol.lesion_rules:
        pieces = count_pieces(prediction > 0, reference > 0)
        if pieces.predicted > 1 and not labelling.one_piece:
            largest = keep_largest_component(prediction, labelling.foreground)
    counts = reference != labelling.ignore if labelling.ignore is not None else None
    voxels = reference.size if counts is None else int(np.count_nonzero(counts))
    rows = []
    for name, values in labelling.classes.items():
        if name not in annotated:
            columns = protocol.describe_columns(protocol.measures[name])
            undefined = dict.fromkeys(columns, UNDEFINED)
            rows.append(ClassMetrics(pair.case, name, undefined, dict.fromkeys(COUNTS, UNDEFINED)))
            continue
        ours, theirs = np.isin(prediction, values), np.isin(reference, values)
        if counts is not None:
            ours, theirs = ours & counts, theirs & counts
        measure, rules = protocol.measures[name], protocol.lesion_rules
        metrics = mask_metrics(ours, theirs, spacing, measure)
        size = float(np.prod(spacing)) if measure.unit == "mm" else 1.0
        if measure.axes > ours.ndim and measure.unit == "mm":  # one slice among volumes
            size *= geometry.spacing[0]
            metrics[find_size_column(measure)[0]] *= geometry.spacing[0]
        lesions = find_lesions(ours, theirs) if rules else None
        if lesions is not None:
            metrics |= measure_lesions(lesions, rules)
        dice_of_largest = metrics["dice"]
        if largest is not prediction:
            dice_of_largest = compute_dice(np.isin(largest, values), theirs)
        confusion = count_confusion(ours, theirs, voxels)
        rows.append(
            ClassMetrics(
                pair.case, name, metrics, confusion, lesions, size, pieces, dice_of_largest
            )
        )
    return rows


def drop_single_slice(
    prediction: np.ndarray, reference: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Make a volume of one slice a 2-D image, so that its surface is its contour."""
    if prediction.shape[0] == 1:
        return prediction[0], reference[0], geometry.spacing[1:]
    return prediction, reference, geometry.spacing


def count_confusion(ours: np.ndarray, theirs: np.ndarray, voxels: int) -> dict[str, int]:
    """Return nnU-Net's counts of two bool masks."""
    tp, n_pred, n_ref = count_shared(ours, theirs)
    fp, fn = n_pred - tp, n_ref - tp
    return dict(zip(COUNTS, (tp, fp, fn, voxels - tp - fp - fn, n_pred, n_ref), strict=True))
