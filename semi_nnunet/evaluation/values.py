"""A metric of every case, as trainings predicted it: read from their tables, kept in one file.

Such a file holds what :mod:`semi_nnunet.evaluation.comparison` needs, so that trainings of several
machines can be compared as one, and a comparison repeated without its trainings.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.data.patients import PatientOf, itself
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, write_csv

SIGNED = ("volume", "area", "relative")  # too much is as bad as too little
OVERLAPS = ("dice", "iou", "nsd")  # from 0 to 1
LOWER_IS_BETTER = ("hd95", "asd", "assd", *SIGNED)
LARGEST = 1e12  # of distances and volumes; more is none
NO_VALUES = "the files hold no values. Fix: write them by semi_nnunet compare --write-values"
SUBSETS = ("validation", "test")
COLUMNS = (
    "dataset", "plans", "subset", "trainer", "configuration", "fold", "seed", "case", "patient",
    "class",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What is compared: a trainer with a configuration."""

    trainer: str
    configuration: str


Table = tuple[Model, str, int, Path]  # model, fold, seed, metrics.csv
Origin = tuple[str, str]  # name of the data set without its number, plans


@dataclass(frozen=True)
class Value:
    """A metric of one class of one case, as one training predicted it.

    Args:
        model: of the training.
        fold: of the training.
        seed: of the training.
        case: that it predicted.
        name: of the class.
        value: of the metric; NaN where it is not defined.
        patient: of the case, where one is told.
    """

    model: Model
    fold: str
    seed: int
    case: str
    name: str
    value: float
    patient: str = ""

    @property
    def whose(self) -> str:
        """The patient; a case of which none is told is one itself."""
        return self.patient or self.case

    @property
    def key(self) -> tuple[Model, str, int, str, str]:
        """What has one value."""
        return self.model, self.fold, self.seed, self.case, self.name


def higher_is_better(metric: str) -> bool:
    """Overlaps grow, distances and volume differences shrink."""
    return not metric.startswith(LOWER_IS_BETTER)


def read_values(
    tables: Iterable[Table], metric: str, patient_of: PatientOf = itself
) -> tuple[list[Value], list[str]]:
    """Collect a metric from tables of :mod:`semi_nnunet.evaluation.tables`.

    Args:
        tables: model, fold, seed and metrics.csv of each training.
        metric: a column.
        patient_of: case -> its patient.

    Returns:
        The values, and the tables that are not there.

    Raises:
        UserError: a table lacks the column, or it is none of a metric.
    """
    values: list[Value] = []
    missing: list[str] = []
    for model, fold, seed, path in tables:
        if not path.is_file():
            missing.append(str(path))
            continue
        columns, rows = read_csv(path)
        if metric not in numbers_of(columns):
            raise UserError(
                f"{path} has no column {metric!r}",
                fix=f"choose from "
                f"{', '.join(numbers_of(columns))}; if other tables have it, this one was measured "
                f"otherwise: remove it and run semi_nnunet crossval",
            )
        require_whole(path, rows)
        for number, row in enumerate(rows, start=2):
            try:
                value = float(row[metric]) if row[metric] else math.nan
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {number} must hold a number as {metric} ({error})",
                    fix="remove that file, and measure again (semi_nnunet crossval)",
                ) from error
            value = abs(value) if metric.startswith(SIGNED) else value
            case = row["case"]
            values.append(Value(model, fold, seed, case, row["class"], value, patient_of(case)))
    return values, missing


def require_whole(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Check that a table has every class of every case, as it was written.

    Raises:
        UserError: it has not, or has none.
    """
    of_cases = defaultdict[str, set[str]](set)
    for row in rows:
        of_cases[row["case"]].add(row["class"])
    classes = set().union(*of_cases.values())
    torn = [case for case, names in of_cases.items() if names != classes]
    if torn or not rows:
        lacks = f"not all of them of {torn[0]}" if torn else "it holds no case"
        raise UserError(
            f"{path} must have a line for every class of every case, but {lacks}",
            fix="remove it, and measure again (semi_nnunet crossval)",
        )


def numbers_of(columns: Iterable[str]) -> list[str]:
    """The columns that hold metrics."""
    return [column for column in columns if column not in ("case", "class")]


def is_defined(values: Iterable[Value]) -> bool:
    """Of any class of any case: one that no mask shows has no distance."""
    return any(v.name and not math.isnan(v.value) for v in values)


def defined_nowhere(metric: str) -> UserError:
    """There are tables, but no number in the column."""
    return UserError(
        f"{metric} must be defined for one class of one case at least, and is for none: no mask "
        f"shows them",
        fix="choose another with --metric, or look at the predictions",
    )


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
    path: Path, values: Mapping[str, Sequence[Value]], metric: str, origin: Origin
) -> None:
    """Write values of "validation" and "test" cases to one CSV file, to the sixth digit.

    Args:
        path: the file.
        values: subset -> values.
        metric: which it is, the name of the last column; what is undefined is left empty.
        origin: of what data set and plans they are.
    """
    rows = [
        (*origin, subset, v.model.trainer, v.model.configuration, v.fold, v.seed, v.case, v.whose,
         v.name, "" if math.isnan(v.value) else round(v.value, 6))
        for subset, of_subset in values.items()
        for v in of_subset
    ]  # fmt: skip
    write_csv(path, [(*COLUMNS, metric), *rows])


def read_written(path: Path, metric: str) -> tuple[dict[str, list[Value]], Origin | None]:
    """Read a file of :func:`write_values`.

    Args:
        path: the file.
        metric: that it has to hold.

    Returns:
        Subset -> values, and what data set and plans they are of; None of a file without any.

    Raises:
        UserError: it is absent, no such file, damaged, or of another metric.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file that exists", fix="correct --values")
    fix = "Fix: write it by semi_nnunet compare --write-values, with the same --metric"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # a spreadsheet begins it so
            reader = csv.reader(file)
            header, *rows = [(row, reader.line_num) for row in reader if row] or [([], 0)]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})", fix="make it readable") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} must be a CSV file in UTF-8 ({error}). {fix}") from error
    if header[0] != [*COLUMNS, metric]:
        wanted = ", ".join([*COLUMNS, metric])
        found = ", ".join(header[0]) or "nothing"
        raise UserError(f"{path} must have the columns {wanted}, got {found}. {fix}")
    values: dict[str, list[Value]] = {}
    origins = set[Origin]()
    for row, line in rows:
        try:
            dataset, plans, subset, trainer, configuration, fold, seed, *about, text = row
            case, patient, name = about
            value = float(text) if text else math.nan
            require_possible(value, metric)
            if subset not in SUBSETS:
                raise ValueError(f"{subset!r} is neither {' nor '.join(SUBSETS)}")
            names = (dataset, plans, trainer, configuration, fold, case, name)
            if any(not one or one != one.strip() for one in names):
                raise ValueError("a name is empty, or has blanks around it")
            one = Value(Model(trainer, configuration), fold, int(seed), case, name, value, patient)
        except ValueError as error:
            raise UserError(
                f"{path}, line {line} must hold {len(header[0])} values, numbers as seed and "
                f"{metric}, which may be empty ({error}). {fix}"
            ) from error
        origins.add((dataset, plans))
        values.setdefault(subset, []).append(one)
    return values, one_origin(path, origins)


def require_possible(value: float, metric: str) -> None:
    """Check a number that stands in a file; NaN may.

    Raises:
        ValueError: the metric cannot be that.
    """
    most = 1.0 if metric.startswith(OVERLAPS) else LARGEST
    if value < 0 or value > most:
        raise ValueError(f"{metric} cannot be {value:g}")


def one_origin(path: Path, origins: set[Origin]) -> Origin | None:
    """The only one, if there is any.

    Raises:
        UserError: there are several.
    """
    if len(origins) > 1:
        listed = " and ".join(f"{dataset} with {plans}" for dataset, plans in sorted(origins))
        raise UserError(
            f"values of one data set and one name of plans can be compared, with {path} they are "
            f"of {listed}",
            fix="leave some of the files out",
        )
    return next(iter(origins), None)


def read_all_written(
    paths: Iterable[Path], metric: str, own: Origin | None = None
) -> tuple[dict[str, list[Value]], Origin | None]:
    """The values of several files as one, which have to be of ``own``; see :func:`read_written`."""
    values: dict[str, list[Value]] = {}
    for path in paths:
        of_file, origin = read_written(path, metric)
        own = one_origin(path, {one for one in (own, origin) if one is not None})
        for subset, of_subset in of_file.items():
            values[subset] = together(values.get(subset, []), of_subset, metric)
    return values, own


def together(first: Iterable[Value], second: Iterable[Value], metric: str) -> list[Value]:
    """Values of both, each once.

    Raises:
        UserError: a training of the same seed has two values of a case, or a case two patients.
    """
    known: dict[tuple[Model, str, int, str, str], Value] = {}
    for v in with_patients([*first, *second]):
        before = known.setdefault(v.key, v).value
        if not math.isclose(before, v.value, rel_tol=0, abs_tol=1e-6) and not (
            math.isnan(before) and math.isnan(v.value)
        ):
            raise UserError(
                f"{v.model.trainer} {v.model.configuration}, fold {v.fold}, seed {v.seed} was "
                f"trained twice: case {v.case} has {metric} {before:.6f} here and {v.value:.6f} "
                f"elsewhere",
                fix="leave one of them out (--values, -tr)",
            )
    return list(known.values())


def with_patients(values: Sequence[Value]) -> list[Value]:
    """The same, where one tells the patient of a case and another, written before, does not.

    Raises:
        UserError: two tell different ones.
    """
    told = defaultdict[str, set[str]](set)
    for v in values:
        told[v.case] |= {v.whose} - {v.case}
    for case, patients in told.items():
        if len(patients) > 1:
            raise UserError(
                f"case {case} must be of one patient, got {' and '.join(sorted(patients))}",
                fix="tell 'patient' alike in every dataset.json, and write the values again",
            )
    return [replace(v, patient=next(iter(told[v.case]), v.case)) for v in values]
