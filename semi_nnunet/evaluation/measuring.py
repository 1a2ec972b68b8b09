"""Measure a folder of predictions against a folder of references, and write the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.data.raw_description import read_description
from semi_nnunet.evaluation.folder import evaluate_pairs, find_pairs, make_protocol
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.evaluation.tables import write_tables
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.names import below_one


@dataclass(frozen=True)
class Evaluated:
    """What was measured.

    Args:
        folder: of metrics.csv, metrics.json and summary.json.
        cases: how many there are.
        content: of metrics.json: "mean" holds class -> column -> mean over the cases,
            "foreground_mean" column -> mean over the classes, "cases" every case; distances are in
            the unit that a column's name ends with.
    """

    folder: Path
    cases: int
    content: dict[str, Any]


def evaluate(
    predictions: str | Path,
    references: str | Path,
    *,
    out: str | Path | None = None,
    dataset_json: str | Path | None = None,
    tolerances: Sequence[float] = (1.0, 2.0),
    class_tolerances: Mapping[str, float] | Sequence[str] = (),
    in_voxels: bool = False,
    missed_distance: float | None = None,
    partial: bool = False,
    processes: int = 2,
) -> Evaluated:
    """Measure predictions against references: overlap, surfaces, volumes of every case and class.

    Args:
        predictions: folder of predicted files.
        references: folder of reference files of the same names.
        out: folder for the tables; None: beside the predictions.
        dataset_json: says what the classes or regions are; None: the one with the predictions, or
            of the references' data set.
        tolerances: up to which distances surfaces agree, for NSD, in mm.
        class_tolerances: class -> its own tolerance, in mm, or texts such as "liver=5"; empty: none
            has one.
        in_voxels: measure distances and tolerances in voxels.
        missed_distance: distance of a class that only one mask shows, in mm; None: the diagonal of
            the image.
        partial: not every reference needs a prediction.
        processes: that measure.

    Returns:
        The means and all cases, as they were written.

    Raises:
        UserError: files do not match, cannot be read, hold undeclared values or do not lie on the
            voxels of their reference.
    """
    predictions, references = Path(predictions), Path(references)
    own, wrong = own_tolerances(class_tolerances)
    numbers = {"-np": processes}
    wrong += problems(predictions, references, tolerances, own, missed_distance, numbers)
    raise_if_any("The measuring cannot start:", wrong)
    described = Path(dataset_json or find_dataset_json(predictions, references))
    ending = read_description(described.parent, described.name)["file_ending"]
    pairs = find_pairs(predictions, references, ending, partial)
    example = pairs[0].reference
    labelling = read_labelling(described, example)
    protocol = make_protocol(labelling, example, tolerances, own, missed_distance, in_voxels)
    folder = Path(out or predictions)
    folder.mkdir(parents=True, exist_ok=True)  # before the work
    rows = evaluate_pairs(pairs, protocol, processes)
    return Evaluated(folder, len(pairs), write_tables(folder, rows, pairs, protocol))


def problems(
    predictions: Path,
    references: Path,
    tolerances: Sequence[float],
    own: Mapping[str, float],
    missed_distance: float | None,
    numbers: Mapping[str, int],
) -> list[Problem]:
    """What is wrong with the options, before a file is read."""
    sizes = [("--tolerances", size) for size in tolerances]
    sizes += [(f"--class-tolerances {name}", size) for name, size in own.items()]
    if missed_distance is not None:
        sizes.append(("--missed-distance", missed_distance))
    found = [
        Problem(option, f"must be 0 or more, and finite, got {size:g}", "correct it")
        for option, size in sizes
        if not 0 <= size < math.inf
    ]
    found += below_one(numbers)
    found += [
        Problem(option, f"{folder} is no folder", "correct it")
        for option, folder in (("-i", predictions), ("-r", references))
        if not folder.is_dir()
    ]
    return found


def own_tolerances(
    given: Mapping[str, float] | Sequence[str],
) -> tuple[dict[str, float], list[Problem]]:
    """``{"liver": 5}``, or ``["liver=5"]`` as numbers; and what is none."""
    numbers, found = dict[str, float](), list[Problem]()
    if isinstance(given, Mapping):
        return dict(given), found
    for word in given:
        name, _, size = word.rpartition("=")
        if name in numbers:
            what = f"must give {name} one tolerance, got another in {word!r}"
            found.append(Problem("--class-tolerances", what, "leave one of them out"))
        try:
            numbers[name] = float(size)
        except ValueError:
            name = ""
        if not name:
            what = f"must be CLASS=MM, got {word!r}"
            found.append(Problem("--class-tolerances", what, "correct it"))
    return numbers, found


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """The ``dataset.json`` of the predictions, or of the data set of the references."""
    candidates = [
        predictions / "dataset.json",
        references / "dataset.json",
        references.parent / "dataset.json",
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"no dataset.json says what the classes are; looked for {', '.join(map(str, candidates))}",
        fix="give --dataset-json",
    )
