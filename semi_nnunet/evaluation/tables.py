"""Tables of measured cases: CSV of cases and lesions, JSON with means, nnU-Net's summary.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region, label_or_region_to_key

from semi_nnunet.evaluation.folder import ClassMetrics, EvaluationProtocol, FilePair
from semi_nnunet.evaluation.lesions import list_lesion_rows, pool_lesions
from semi_nnunet.evaluation.metrics import UNDEFINED, describe_empty_masks, find_size_column
from semi_nnunet.evaluation.pieces import DICE, ONLY_LARGEST, REFERENCES, SCATTERED
from semi_nnunet.raw.classes import AnnotatedClasses
from semi_nnunet.raw.layout import LESIONS_FILE, METRICS_FILE, SUMMARY_JSON
from semi_nnunet.util.files import read_json, write_csv, write_json

METRICS_JSON = "metrics.json"
PRINTED_METRICS = ("dice", "hd95_edge", "asd_edge", "nsd_surfel")


def average_rows(rows: Sequence[ClassMetrics]) -> dict[str, dict[str, float]]:
    """Return class -> column -> mean over the cases in which it is defined; NaN if in none."""
    means: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row.name for row in rows):
        metrics = [row.metrics for row in rows if row.name == name]
        means[name] = {
            column: average_defined([values[column] for values in metrics]) for column in metrics[0]
        }
    return means


def average_defined(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def average_foreground(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the unweighted mean of the classes' means, without NaNs."""
    columns = next(iter(means.values()))
    return {
        column: average_defined([values[column] for values in means.values()]) for column in columns
    }


def count_missed(rows: Sequence[ClassMetrics], name: str) -> tuple[int, int]:
    """Return how many cases have a class only in the reference, and only in the prediction."""
    counts = [row.counts for row in rows if row.name == name]
    return (
        sum(count["n_ref"] > 0 and count["n_pred"] == 0 for count in counts),
        sum(count["n_ref"] == 0 and count["n_pred"] > 0 for count in counts),
    )


def write_tables(
    out: Path, rows: Sequence[ClassMetrics], pairs: Sequence[FilePair], protocol: EvaluationProtocol
) -> dict[str, Any]:
    """Write the files to ``out``, and return the content of metrics.json."""
    measure = next(iter(protocol.measures.values()))
    means = average_rows(rows)
    columns = protocol.describe_columns(measure)
    rules = protocol.lesion_rules
    content: dict[str, Any] = {
        "columns": columns,
        "tolerances": {name: dict(m.tolerances) for name, m in protocol.measures.items()},
        "empty masks": describe_empty_masks(measure, with_lesions=bool(rules)),
        "foreground_mean": average_foreground(means),
        "mean": means,
        "missed": {name: count_missed(rows, name)[0] for name in means},
        "imagined": {name: count_missed(rows, name)[1] for name in means},
        "cases": [{"case": row.case, "class": row.name, **row.metrics} for row in rows],
    }
    if rules:
        content["lesions"] = {
            name: pool_lesions(
                [row.lesions for row in rows if row.name == name and row.lesions], rules
            )
            for name in means
        }
    pieces = summarise_pieces(rows)
    if protocol.labelling.one_piece:
        content["pieces"] = ONLY_LARGEST
        if several := pieces.get(REFERENCES):
            content[REFERENCES] = several
    elif pieces:
        content["pieces"] = pieces
    write_lesions(out / LESIONS_FILE, rows, protocol)
    write_json(out / METRICS_JSON, replace_nan(content))
    write_json(out / SUMMARY_JSON, build_summary(rows, pairs, protocol))
    cells = [[row.case, row.name, *(format_cell(v) for v in row.metrics.values())] for row in rows]
    write_csv(out / METRICS_FILE, [["case", "class", *columns], *cells])
    return content


def summarise_pieces(rows: Sequence[ClassMetrics]) -> dict[str, float]:
    """Return how many references are in several pieces.

    If there are none, return how many predictions are, and the mean Dice of all predictions with
    only their largest piece.

    Returns:
        {} if pieces were not counted, or no reference shows anything.
    """
    pieces = [found for found in {row.case: row.pieces for row in rows}.values() if found]
    if not any(found.reference for found in pieces):
        return {}
    several = sum(found.reference > 1 for found in pieces)
    if several:
        return {REFERENCES: several}
    dice = {
        name: {DICE: average_defined([row.dice_of_largest for row in rows if row.name == name])}
        for name in dict.fromkeys(row.name for row in rows)
    }
    return {
        SCATTERED: sum(found.predicted > 1 for found in pieces),
        DICE: average_foreground(dice)[DICE],
    }


def write_lesions(path: Path, rows: Sequence[ClassMetrics], protocol: EvaluationProtocol) -> None:
    """Write a row for each lesion; without rules for lesions, remove an earlier file."""
    if not protocol.lesion_rules:
        path.unlink(missing_ok=True)
        return
    measure, lines = next(iter(protocol.measures.values())), list[Sequence[Any]]()
    column, factor = find_size_column(measure)
    header = ("mask", "lesion", column.replace("_difference", ""))
    matched = [f"matched_{rule.name}" for rule in protocol.lesion_rules]
    for row in rows:
        if row.lesions is not None:
            voxel = row.voxel_size * factor
            listed = list_lesion_rows(row.lesions, protocol.lesion_rules, voxel)
            lines += [(row.case, row.name, *cells) for cells in listed]
    write_csv(path, [("case", "class", *header, *matched), *lines])


def format_cell(value: float) -> str:
    """Return six digits, or "" for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


def replace_nan(content: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(content, dict):
        return {key: replace_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [replace_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def build_summary(
    rows: Sequence[ClassMetrics], pairs: Sequence[FilePair], protocol: EvaluationProtocol
) -> dict[str, Any]:
    """Return nnU-Net's summary.json, with its keys and its means.

    Differs where no case shows a class: nnU-Net's foreground means of Dice and IoU become NaN,
    ours are the means of the other classes.
    """
    keys = {
        name: label_or_region_to_key(values if len(values) > 1 else values[0])
        for name, values in protocol.labelling.classes.items()
    }
    class_values: dict[str, list[dict[str, float]]] = {name: [] for name in keys}
    cases: dict[str, dict[str, Any]] = {
        pair.case: {
            "metrics": {},
            "prediction_file": pair.prediction,
            "reference_file": pair.reference,
        }
        for pair in pairs
    }
    for row in rows:
        values = {"Dice": row.metrics["dice"], "IoU": row.metrics["iou"], **row.counts}
        cases[row.case]["metrics"][keys[row.name]] = values
        class_values[row.name].append(values)
    means = {
        keys[name]: {
            column: average_defined([float(v[column]) for v in values]) for column in values[0]
        }
        for name, values in class_values.items()
    }
    return {
        "foreground_mean": average_foreground(means),
        "mean": means,
        "metric_per_case": list(cases.values()),
    }


def drop_unannotated(path: Path, annotated: AnnotatedClasses, file_ending: str) -> dict[str, Any]:
    """Rewrite nnU-Net's summary.json without the classes that its cases do not annotate.

    nnU-Net takes an organ that a case does not annotate for an absent one, and a network that
    predicts it for wrong. These metrics become NaN, and means are those of the other cases.

    Args:
        path: of the file that nnU-Net wrote.
        annotated: which classes each case annotates.
        file_ending: of the predictions.

    Returns:
        The new content.
    """
    summary: dict[str, Any] = read_json(path)
    for case in summary["metric_per_case"]:
        case_id = Path(case["prediction_file"]).name.removesuffix(file_ending)
        classes = {annotated.classes[name] for name in annotated.names(case_id)}
        case["metrics"] = {
            key: metrics if parse_key(key) in classes else dict.fromkeys(metrics, UNDEFINED)
            for key, metrics in case["metrics"].items()
        }
    rows = [case["metrics"] for case in summary["metric_per_case"]]
    summary["mean"] = {
        key: {
            metric: average_defined([float(row[key][metric]) for row in rows]) for metric in means
        }
        for key, means in summary["mean"].items()
    }
    summary["foreground_mean"] = average_foreground(summary["mean"])
    write_json(path, summary)
    return summary


def parse_key(key: str) -> tuple[int, ...]:
    """Return the values of a class or region from its key in nnU-Net's summary.

    >>> parse_key("2"), parse_key("(1, 2)")
    ((2,), (1, 2))
    """
    values = key_to_label_or_region(key)
    return values if isinstance(values, tuple) else (values,)


def format_class_means(content: Mapping[str, Any]) -> str:
    """Return a table of the most common metrics, with a line for each class.

    Args:
        content: of metrics.json, with NaN instead of null.
    """
    columns = [c for start in PRINTED_METRICS for c in content["columns"] if c.startswith(start)]
    lines = [("class", *columns, "missed")]
    rows = {**content["mean"], "mean": content["foreground_mean"]}
    for name, values in rows.items():
        count = content["missed"].get(name, sum(content["missed"].values()))
        lines.append((name, *(f"{values[column]:.3f}" for column in columns), str(count)))
    return align_columns(lines)


def format_lesions(pooled: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a table of the lesions of all cases together, with a line for each class and rule.

    Args:
        pooled: "lesions" of metrics.json.
    """
    counted = ("reference", "detected", "false", "per case", "per healthy case")
    lines: list[Sequence[str]] = [("lesions", "matched by", *counted)]
    for name, rules in pooled.items():
        for rule, counts in rules.items():
            numbers = (str(counts[key]) for key in ("lesions", "detected", "false_positives"))
            rates = ("false_positives_per_case", "false_positives_per_healthy_case")
            lines.append((name, rule, *numbers, *(f"{counts[key]:.3f}" for key in rates)))
    return align_columns(lines)


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text, the first column left-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [word.rjust(width) for word, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )
