"""Values of a metric for every case and class, read from tables of trainings and kept in CSV files.

A CSV file of values holds all that :mod:`semi_nnunet.evaluation.comparison` needs: trainings of
several machines are compared as one, and a comparison is repeated without its trainings.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.raw.folds import PatientOf, case_as_patient
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import parse_csv, read_csv, write_csv
from semi_nnunet.util.names import list_first

SIGNED = ("volume", "area", "relative")  # too much is as bad as too little
LESION_FRACTIONS = ("lesion_f1", "lesion_sensitivity", "lesion_precision", "lesion_dice")
OVERLAPS = ("dice", "iou", "nsd", *LESION_FRACTIONS)  # from 0 to 1
FALSE_POSITIVES = ("lesion_false_positives", "healthy_false_positives")
LOWER_IS_BETTER = ("hd95", "asd", "assd", *FALSE_POSITIVES, *SIGNED)
LARGEST = 1e12  # plausible distance or volume
WRITE_AGAIN = "write it with semi_nnunet compare --write-values and the same --metric"
MEASURE_AGAIN = "remove it, and measure again (semi_nnunet crossval)"
SUBSETS = ("validation", "test")
COLUMNS = (
    "dataset", "plans", "subset", "trainer", "configuration", "fold", "seed", "case", "patient",
    "class",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A trainer with a configuration, which is what gets compared."""

    trainer: str
    configuration: str


Table = tuple[Model, str, int, Path]  # model, fold, seed, metrics.csv
Origin = tuple[str, str]  # name of the data set without its number, plans


@dataclass(frozen=True)
class Value:
    """A metric of one class in one case, as predicted by one training.

    >>> Value(Model("SemiBaselineTrainer", "2d"), "0", 0, "case_1", "liver", 0.8).patient_or_case
    'case_1'

    Args:
        model: trainer and configuration.
        fold: of the training.
        seed: of the training.
        case: name of the case.
        name: name of the class.
        value: of the metric; NaN where it is not defined.
        patient: of the case; empty: unknown.
    """

    model: Model
    fold: str
    seed: int
    case: str
    name: str
    value: float
    patient: str = ""

    @property
    def patient_or_case(self) -> str:
        """Patient of the case. A case without a known patient counts as its own patient."""
        return self.patient or self.case

    @property
    def key(self) -> tuple[Model, str, int, str, str]:
        """Everything that identifies the value."""
        return self.model, self.fold, self.seed, self.case, self.name


def higher_is_better(metric: str) -> bool:
    """Return True for overlaps, False for distances, volume differences and false positives.

    >>> higher_is_better("dice"), higher_is_better("hd95_edge_mm")
    (True, False)
    """
    return not metric.startswith(LOWER_IS_BETTER)


def read_values(
    tables: Iterable[Table], metric: str, patient_of: PatientOf = case_as_patient
) -> tuple[list[Value], list[str]]:
    """Read a metric from tables written by :mod:`semi_nnunet.evaluation.tables`.

    Args:
        tables: model, fold, seed and metrics.csv of each training.
        metric: a column; signed differences are read without their sign.
        patient_of: case -> its patient.

    Returns:
        The values, and the paths of missing tables.

    Raises:
        UserError: a table lacks the column or is incomplete.
    """
    values: list[Value] = []
    missing: list[str] = []
    for model, fold, seed, path in tables:
        if not path.is_file():
            missing.append(str(path))
            continue
        columns, rows = read_csv(path)
        if metric not in (metrics := list_metric_columns(columns)):
            raise UserError(
                f"{path} has no column {metric!r}",
                fix=f"choose from {', '.join(metrics)}; if other tables have it, remove this one "
                "and run semi_nnunet crossval",
            )
        require_complete_table(path, rows)
        for line, row in enumerate(rows, start=2):
            try:
                value = float(row[metric]) if row[metric] else math.nan
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {line} must hold a number as {metric} ({error})",
                    fix=MEASURE_AGAIN,
                ) from error
            value = abs(value) if metric.startswith(SIGNED) else value
            case = row["case"]
            values.append(Value(model, fold, seed, case, row["class"], value, patient_of(case)))
    return values, missing


def require_complete_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Raise if a table lacks a class of a case, or has no case."""
    classes_of_cases = defaultdict[str, set[str]](set)
    for row in rows:
        classes_of_cases[row["case"]].add(row["class"])
    classes = set().union(*classes_of_cases.values())
    incomplete = [case for case, names in classes_of_cases.items() if names != classes]
    if incomplete or not rows:
        reason = f"{incomplete[0]} lacks some" if incomplete else "it holds no case"
        raise UserError(
            f"{path} must have a line for every class of every case, but {reason}",
            fix=MEASURE_AGAIN,
        )


def list_metric_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that hold metrics."""
    return [column for column in columns if column not in ("case", "class")]


def has_defined_value(values: Iterable[Value]) -> bool:
    """Return whether any value is defined; a class without a mask has no distance, for example."""
    return any(v.name and not math.isnan(v.value) for v in values)


def build_undefined_error(metric: str) -> UserError:
    """Return the error for tables in which every value of the metric is undefined."""
    return UserError(
        f"{metric} is not defined for any class of any case, because the masks are empty",
        fix="choose another with --metric, or look at the predictions",
    )


def credit_absence(values: Sequence[Value], metric: str) -> list[Value]:
    """Score a correctly absent class as perfect where another training invented it.

    The metric of a class that neither reference nor prediction shows is undefined, so means skip
    it. A training that invents the class there gets the worst value, which needs a partner to be
    compared with. Where no training predicts the class, all values stay undefined.
    """
    defined = {(v.case, v.name) for v in values if not math.isnan(v.value)}
    perfect = 1.0 if higher_is_better(metric) else 0.0
    return [
        replace(v, value=perfect) if math.isnan(v.value) and (v.case, v.name) in defined else v
        for v in values
    ]


def write_values(
    path: Path, values: Mapping[str, Sequence[Value]], metric: str, origin: Origin
) -> None:
    """Write values of validation and test cases to one CSV file, with six decimals.

    Args:
        path: the file.
        values: "validation" or "test" -> values; undefined ones are left empty.
        metric: its name, which becomes the last column.
        origin: data set and plans of the values.
    """
    rows = [
        (*origin, subset, v.model.trainer, v.model.configuration, v.fold, v.seed, v.case,
         v.patient_or_case, v.name, "" if math.isnan(v.value) else round(v.value, 6))
        for subset, subset_values in values.items()
        for v in subset_values
    ]  # fmt: skip
    write_csv(path, [(*COLUMNS, metric), *rows])


def read_values_file(path: Path, metric: str) -> tuple[dict[str, list[Value]], Origin | None]:
    """Read a file written by :func:`write_values`.

    Args:
        path: the file.
        metric: that it must hold.

    Returns:
        Subset -> values, and their data set and plans (None if there are no values).

    Raises:
        UserError: the file is absent, damaged, or holds another metric.
    """
    if not path.is_file():
        raise UserError(f"{path} is not an existing file", fix="correct --values")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets write a mark
        (_, header), *rows = parse_csv(text) or [(0, [])]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})", fix="make it readable") from error
    except (ValueError, csv.Error) as error:
        what = f"{path} must be a complete CSV file in UTF-8 ({error})"
        raise UserError(what, fix=WRITE_AGAIN) from error
    if header != [*COLUMNS, metric]:
        expected = ", ".join([*COLUMNS, metric])
        columns = ", ".join(header) or "nothing"
        raise UserError(f"{path} must have the columns {expected}, got {columns}", fix=WRITE_AGAIN)
    values: dict[str, list[Value]] = {}
    origins = set[Origin]()
    for line, row in rows:
        try:
            dataset, plans, subset, trainer, configuration, fold, seed, *names, text = row
            case, patient, name = names
            number = float(text) if text else math.nan
            require_possible_value(number, metric)
            if subset not in SUBSETS:
                raise ValueError(f"{subset!r} is neither {' nor '.join(SUBSETS)}")
            names = [dataset, plans, trainer, configuration, fold, case, name]
            if not all(text.isprintable() and text == text.strip() != "" for text in names):
                raise ValueError("a name is empty, or has blanks around it or control characters")
            model = Model(trainer, configuration)
            value = Value(model, fold, int(seed), case, name, number, patient)
        except ValueError as error:
            raise UserError(
                f"{path}, line {line} must hold {len(header)} values, with a number as seed and "
                f"a number or nothing as {metric} ({error})",
                fix=WRITE_AGAIN,
            ) from error
        origins.add((dataset, plans))
        values.setdefault(subset, []).append(value)
    return values, require_one_origin(path, origins)


def build_empty_error(paths: Iterable[Path]) -> UserError:
    """Return the error for files of values that hold none."""
    return UserError(f"the files hold no values: {list_first([*paths])}", fix=WRITE_AGAIN)


def require_possible_value(value: float, metric: str) -> None:
    """Raise ValueError if the metric cannot have this value; NaN is possible."""
    most = 1.0 if metric.startswith(OVERLAPS) else LARGEST
    if value < 0 or value > most:
        raise ValueError(f"{metric} cannot be {value:g}")


def require_one_origin(path: Path, origins: set[Origin]) -> Origin | None:
    """Return the only origin, or None without values; raise if there are several."""
    if len(origins) > 1:
        names = " and ".join(f"{dataset} with {plans}" for dataset, plans in sorted(origins))
        raise UserError(
            f"only values of one data set and plans can be compared, but with {path} there are "
            f"values of {names}",
            fix="leave some of the files out",
        )
    return next(iter(origins), None)


def read_values_files(
    paths: Iterable[Path], metric: str, origin: Origin | None = None
) -> tuple[dict[str, list[Value]], Origin | None]:
    """Read several files of :func:`write_values` as one.

    Args:
        paths: the files.
        metric: that they must hold.
        origin: data set and plans that they must have; None: the same in all files.
    """
    values: dict[str, list[Value]] = {}
    for path in paths:
        file_values, file_origin = read_values_file(path, metric)
        origin = require_one_origin(path, {pair for pair in (origin, file_origin) if pair})
        for subset, subset_values in file_values.items():
            values[subset] = merge_values(values.get(subset, []), subset_values, metric)
    return values, origin


def merge_values(first: Iterable[Value], second: Iterable[Value], metric: str) -> list[Value]:
    """Merge two lists of values, each value once.

    Raises:
        UserError: one training has two different values of a case, or a case has two patients.
    """
    merged: dict[tuple[Model, str, int, str, str], Value] = {}
    for v in fill_in_patients([*first, *second]):
        previous = merged.setdefault(v.key, v).value
        if not math.isclose(previous, v.value, rel_tol=0, abs_tol=1e-6) and not (
            math.isnan(previous) and math.isnan(v.value)
        ):
            raise UserError(
                f"{v.model.trainer} {v.model.configuration}, fold {v.fold}, seed {v.seed} was "
                f"trained twice: case {v.case} has {metric} {previous:.6f} in one training and "
                f"{v.value:.6f} in the other",
                fix="leave one of them out (--values, -tr)",
            )
    return list(merged.values())


def fill_in_patients(values: Sequence[Value]) -> list[Value]:
    """Give all values of a case the patient that some of them name.

    Raises:
        UserError: a case has two patients.
    """
    patients_of_cases = defaultdict[str, set[str]](set)
    for v in values:
        patients_of_cases[v.case] |= {v.patient_or_case} - {v.case}
    for case, patients in patients_of_cases.items():
        if len(patients) > 1:
            raise UserError(
                f"case {case} must belong to one patient, got {' and '.join(sorted(patients))}",
                fix="give it the same 'patient' in every dataset.json, and write the values again",
            )
    return [replace(v, patient=next(iter(patients_of_cases[v.case]), v.case)) for v in values]
