"""A metric of every case, as trainings predicted it: read from their tables, kept in one file.

Such a file holds what :mod:`semi_nnunet.evaluation.comparison` needs, so that trainings of several
machines can be compared as one, and a comparison repeated without its trainings.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.data.patients import PatientOf
from semi_nnunet.errors import UserError
from semi_nnunet.files import write_csv

SIGNED = ("volume", "relative")  # too much is as bad as too little
LOWER_IS_BETTER = ("hd95", "asd", "assd", *SIGNED)
COLUMNS = ("subset", "trainer", "configuration", "fold", "seed", "case", "patient", "class")


@dataclass(frozen=True)
class Model:
    """What is compared: a trainer with a configuration."""

    trainer: str
    configuration: str


Table = tuple[Model, str, int, Path]  # model, fold, seed, metrics.csv


@dataclass(frozen=True)
class Value:
    """A metric of one class of one case, as one training predicted it."""

    model: Model
    fold: str
    seed: int
    case: str
    name: str
    value: float


def higher_is_better(metric: str) -> bool:
    """Overlaps grow, distances and volume differences shrink."""
    return not metric.startswith(LOWER_IS_BETTER)


def read_values(tables: Iterable[Table], metric: str) -> tuple[list[Value], list[str]]:
    """Collect a metric from tables of :mod:`semi_nnunet.evaluation.tables`.

    Args:
        tables: model, fold, seed and metrics.csv of each training.
        metric: a column.

    Returns:
        The values, see :func:`crediting_absence`, and the tables that are not there.

    Raises:
        UserError: a table lacks the column, or it is none of a metric.
    """
    values: list[Value] = []
    missing: list[str] = []
    for model, fold, seed, path in tables:
        if not path.is_file():
            missing.append(str(path))
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and metric not in numbers_of(rows[0]):
            columns = ", ".join(numbers_of(rows[0]))
            raise UserError(f"{path} has no column {metric!r}. Fix: choose from {columns}")
        for row in rows:
            value = float(row[metric]) if row[metric] else math.nan
            value = abs(value) if metric.startswith(SIGNED) else value
            values.append(Value(model, fold, seed, row["case"], row["class"], value))
    return crediting_absence(values, metric), missing


def numbers_of(columns: Iterable[str]) -> list[str]:
    """The columns that hold metrics."""
    return [column for column in columns if column not in ("case", "class")]


def crediting_absence(values: Sequence[Value], metric: str) -> list[Value]:
    """Finding nothing where nothing is counts as perfect, if another training found something.

    The metric of a class that neither reference nor prediction shows is not defined, and no mean
    counts it; but one who invents the class there gets the worst value, which must not be dropped
    for want of a partner. Where nobody found anything, all stay undefined.
    """
    found = {(v.case, v.name) for v in values if not math.isnan(v.value)}
    perfect = 1.0 if higher_is_better(metric) else 0.0
    return [
        replace(v, value=perfect) if math.isnan(v.value) and (v.case, v.name) in found else v
        for v in values
    ]


def write_values(
    path: Path, values: Mapping[str, Sequence[Value]], metric: str, patient_of: PatientOf
) -> None:
    """Write values of "validation" and "test" cases to one CSV file, to the sixth digit.

    Args:
        path: the file.
        values: subset -> values.
        metric: which it is, the name of the last column; what is undefined is left empty.
        patient_of: case -> its patient.
    """
    rows = [
        (subset, v.model.trainer, v.model.configuration, v.fold, v.seed, v.case,
         patient_of(v.case), v.name, "" if math.isnan(v.value) else round(v.value, 6))
        for subset, of_subset in values.items()
        for v in of_subset
    ]  # fmt: skip
    write_csv(path, [(*COLUMNS, metric), *rows])


def read_written(path: Path, metric: str) -> tuple[dict[str, list[Value]], dict[str, str]]:
    """Read a file of :func:`write_values`.

    Args:
        path: the file.
        metric: that it has to hold.

    Returns:
        Subset -> values, and case -> patient.

    Raises:
        UserError: it is absent, no such file, or of another metric.
    """
    values: dict[str, list[Value]] = {}
    patients: dict[str, str] = {}
    if not path.is_file():
        raise UserError(f"{path} does not exist. Fix: correct --values")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != [*COLUMNS, metric]:
            raise UserError(
                f"{path} must have the columns {', '.join(COLUMNS)}, {metric}, got "
                f"{', '.join(reader.fieldnames or ['nothing'])}. Fix: write it by semi_nnunet "
                f"compare --write-values, with the same --metric"
            )
        for number, row in enumerate(reader, start=2):
            try:
                value = float(row[metric]) if row[metric] else math.nan
                seed = int(row["seed"])
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {number} must hold numbers as seed and {metric} ({error}). "
                    f"Fix: write it anew by semi_nnunet compare --write-values"
                ) from error
            model = Model(row["trainer"], row["configuration"])
            one = Value(model, row["fold"], seed, row["case"], row["class"], value)
            values.setdefault(row["subset"], []).append(one)
            patients[row["case"]] = row["patient"]
    return values, patients


def read_all_written(
    paths: Iterable[Path], metric: str
) -> tuple[dict[str, list[Value]], dict[str, str]]:
    """The values of several files of :func:`write_values` as one; see :func:`read_written`."""
    values: dict[str, list[Value]] = {}
    patients: dict[str, str] = {}
    for path in paths:
        of_file, its_patients = read_written(path, metric)
        patients |= its_patients
        for subset, of_subset in of_file.items():
            values[subset] = together(values.get(subset, []), of_subset, metric)
    return values, patients


def together(first: Sequence[Value], second: Sequence[Value], metric: str) -> list[Value]:
    """Values of both, see :func:`crediting_absence`.

    Raises:
        UserError: a training of the same seed is in both, with other values.
    """
    known = {(v.model, v.fold, v.seed, v.case, v.name): v.value for v in first}
    added = []
    for v in second:
        before = known.get((v.model, v.fold, v.seed, v.case, v.name))
        if before is None:
            added.append(v)
        elif abs(before - v.value) > 1e-6:
            raise UserError(
                f"{v.model.trainer} {v.model.configuration}, fold {v.fold}, seed {v.seed} was "
                f"trained twice: case {v.case} has {metric} {before:.6f} here and {v.value:.6f} "
                f"elsewhere. Fix: leave one of them out (--values, -tr)"
            )
    return crediting_absence([*first, *added], metric)
