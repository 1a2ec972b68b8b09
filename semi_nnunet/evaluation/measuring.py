"""Measure a folder of predictions against a folder of references, and write the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.evaluation.folder import (
    FilePair,
    evaluate_pairs,
    find_pairs,
    list_pairs,
    make_protocol,
)
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.evaluation.tables import write_tables
from semi_nnunet.raw.classes import ANNOTATED_KEY
from semi_nnunet.raw.description import read_description
from semi_nnunet.raw.layout import DATASET_JSON, MEASURED_FROM
from semi_nnunet.raw.lesion_rules import LESIONS_KEY, get_lesion_rules, parse_lesion_rules
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, is_one_piece
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import sha256_of_json
from semi_nnunet.util.names import below_one
from semi_nnunet.util.provenance import find_changed, recorded


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation.

    Args:
        folder: of metrics.csv, metrics.json and summary.json.
        cases: number of cases.
        content: of metrics.json: "mean" holds class -> column -> mean over the cases,
            "foreground_mean" column -> mean over the classes, "cases" every case; the names of
            columns end with the unit.
        description: the dataset.json that names the classes.
    """

    folder: Path
    cases: int
    content: dict[str, Any]
    description: Path


def evaluate_folders(
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
    lesions: Sequence[float | str] = (),
    processes: int = 2,
) -> EvaluationResult:
    """Measure predictions against references; :func:`semi_nnunet.evaluate` documents it."""
    predictions, references = Path(predictions), Path(references)
    own_sizes, problems = parse_class_tolerances(class_tolerances)
    problems += find_evaluation_problems(
        predictions, references, tolerances, own_sizes, missed_distance, {"-np": processes}
    )
    rules, rule_problems = parse_lesion_rules(lesions, "--lesions")
    raise_if_any("The evaluation cannot start:", [*problems, *rule_problems])
    description = Path(dataset_json or find_dataset_json(predictions, references))
    content = read_description(description.parent, description.name)
    pairs = find_pairs(predictions, references, content["file_ending"], partial)
    labelling = read_labelling(description, pairs[0].reference)
    if rules and labelling.one_piece:
        raise UserError(
            f"--lesions asks to count pieces, and {description} says that the foreground is one",
            fix=f"leave out --lesions, or remove {ONE_PIECE_KEY!r}",
        )
    rules = rules or get_lesion_rules(content)
    protocol = make_protocol(
        labelling, [pair.reference for pair in pairs], tolerances, own_sizes, missed_distance,
        in_voxels, rules,
    )  # fmt: skip
    folder = Path(out or predictions)
    folder.mkdir(parents=True, exist_ok=True)  # fail before the work
    own_options = list_own_options(own_sizes, missed_distance)
    with recorded(folder / MEASURED_FROM, list_inputs(pairs, content) | own_options):
        rows = evaluate_pairs(pairs, protocol, processes)
        written = write_tables(folder, rows, pairs, protocol)
    return EvaluationResult(folder, len(pairs), written, description)


def list_own_options(
    class_tolerances: Mapping[str, float], missed_distance: float | None
) -> dict[str, Path | str]:
    """Return the options that change measures but no name of a column, for their record."""
    options = {"missed distance": missed_distance, "class tolerances": class_tolerances or None}
    return {name: str(value) for name, value in options.items() if value is not None}


def list_inputs(pairs: Sequence[FilePair], description: Mapping[str, Any]) -> dict[str, Path | str]:
    """Return everything that the measures depend on, for :mod:`semi_nnunet.util.provenance`.

    Args:
        description: content of dataset.json.
    """
    classes = {key: description.get(key) for key in ("labels", ANNOTATED_KEY)}
    if rules := get_lesion_rules(description):
        classes[LESIONS_KEY] = [rule.name for rule in rules]
    if is_one_piece(description):
        classes[ONE_PIECE_KEY] = True
    inputs: dict[str, Path | str] = {"classes": sha256_of_json(classes)}
    for pair in pairs:
        inputs[f"prediction {pair.case}"] = Path(pair.prediction)
        inputs[f"reference {pair.case}"] = Path(pair.reference)
    return inputs


def find_changed_inputs(predictions: Path, references: Path, description: Path) -> list[str]:
    """Return what has changed since a folder of predictions was measured.

    Without a record, as of measures by earlier versions, nothing counts as changed.

    Args:
        description: the dataset.json that names the classes.

    Raises:
        UserError: dataset.json cannot be used.
    """
    record = predictions / MEASURED_FROM
    if not record.is_file():
        return []
    content = read_description(description.parent, description.name)
    pairs = list_pairs(predictions, references, content["file_ending"])
    return find_changed(record, list_inputs(pairs, content))


def find_evaluation_problems(
    predictions: Path,
    references: Path,
    tolerances: Sequence[float],
    class_tolerances: Mapping[str, float],
    missed_distance: float | None,
    numbers: Mapping[str, int],
) -> list[Problem]:
    """Return everything that is wrong with the options, before a file is read."""
    sizes = [("--tolerances", size) for size in tolerances]
    sizes += [(f"--class-tolerances {name}", size) for name, size in class_tolerances.items()]
    if missed_distance is not None:
        sizes.append(("--missed-distance", missed_distance))
    problems = [
        Problem(option, f"must be 0 or more, and finite, got {size:g}", "correct it")
        for option, size in sizes
        if not 0 <= size < math.inf
    ]
    problems += below_one(numbers)
    problems += [
        Problem(option, f"{folder} is not a folder", "correct it")
        for option, folder in (("-i", predictions), ("-r", references))
        if not folder.is_dir()
    ]
    return problems


def parse_class_tolerances(
    tolerances: Mapping[str, float] | Sequence[str],
) -> tuple[dict[str, float], list[Problem]]:
    """Parse tolerances of classes, given as a mapping or as texts such as "liver=5".

    Returns:
        Class -> tolerance, and the texts that cannot be parsed.
    """
    numbers, problems = dict[str, float](), list[Problem]()
    if isinstance(tolerances, Mapping):
        return dict(tolerances), problems
    for word in tolerances:
        name, _, size = word.rpartition("=")
        if name in numbers:
            message = f"must give {name} one tolerance, got another in {word!r}"
            problems.append(Problem("--class-tolerances", message, "leave one of them out"))
        try:
            numbers[name] = float(size)
        except ValueError:
            name = ""
        if not name:
            message = f"must be CLASS=MM, got {word!r}"
            problems.append(Problem("--class-tolerances", message, "correct it"))
    return numbers, problems


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """Return the ``dataset.json`` next to the predictions, or of the references' data set."""
    candidates = [
        predictions / DATASET_JSON,
        references / DATASET_JSON,
        references.parent / DATASET_JSON,
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"no dataset.json describes the classes; looked for "
        f"{', '.join(map(str, dict.fromkeys(candidates)))}",
        fix="put it there (semi_nnunet evaluate also takes --dataset-json)",
    )
