"""Write what was measured: a CSV of all cases, JSON with means, and nnU-Net's summary.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import label_or_region_to_key

from semi_nnunet.data.layout import METRICS_FILE
from semi_nnunet.evaluation.folder import Pair, Protocol, Row
from semi_nnunet.evaluation.metrics import column_meanings
from semi_nnunet.util.files import write_csv, write_json

JSON, SUMMARY = "metrics.json", "summary.json"


def class_means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Class -> column -> mean over the cases in which it is defined; NaN if there is none."""
    means: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row.name for row in rows):
        of_class = [row.metrics for row in rows if row.name == name]
        means[name] = {
            column: mean_of([metrics[column] for metrics in of_class]) for column in of_class[0]
        }
    return means


def mean_of(values: Sequence[float]) -> float:
    """Without NaNs."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def foreground_mean(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean of the classes' means, every class alike; NaNs do not count."""
    columns = next(iter(means.values()))
    return {column: mean_of([values[column] for values in means.values()]) for column in columns}


def missed(rows: Sequence[Row], name: str) -> tuple[int, int]:
    """In how many cases a class is in the reference alone, and in the prediction alone."""
    of_class = [row.counts for row in rows if row.name == name]
    return (
        sum(counts["n_ref"] > 0 and counts["n_pred"] == 0 for counts in of_class),
        sum(counts["n_ref"] == 0 and counts["n_pred"] > 0 for counts in of_class),
    )


def write_tables(
    out: Path, rows: Sequence[Row], pairs: Sequence[Pair], protocol: Protocol
) -> dict[str, Any]:
    """Write the three files to ``out``; returns the content of the JSON."""
    measure = next(iter(protocol.measures.values()))
    means = class_means(rows)
    columns = column_meanings(measure)
    content = {
        "columns": columns,
        "tolerances": {name: dict(m.tolerances) for name, m in protocol.measures.items()},
        "empty masks": "both: not counted (null). One: overlaps are 0, a volume relative to no "
        "reference is not counted, distances are "
        + (
            "the diagonal of the image"
            if measure.missed_distance is None
            else f"{measure.missed_distance:g} {measure.unit}"
        ),
        "foreground_mean": foreground_mean(means),
        "mean": means,
        "missed": {name: missed(rows, name)[0] for name in means},
        "imagined": {name: missed(rows, name)[1] for name in means},
        "cases": [{"case": row.case, "class": row.name, **row.metrics} for row in rows],
    }
    write_json(out / JSON, without_nan(content))
    write_json(out / SUMMARY, summary(rows, pairs, protocol))
    cells = [[row.case, row.name, *(cell(v) for v in row.metrics.values())] for row in rows]
    write_csv(out / METRICS_FILE, [["case", "class", *columns], *cells])
    return content


def cell(value: float) -> str:
    """Six digits; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


def without_nan(content: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def summary(rows: Sequence[Row], pairs: Sequence[Pair], protocol: Protocol) -> dict[str, Any]:
    """nnU-Net's summary.json, with its keys and its means.

    But where no case shows a class, nnU-Net's foreground means of Dice and IoU are NaN; ours are
    those of the other classes.
    """
    keys = {
        name: label_or_region_to_key(values if len(values) > 1 else values[0])
        for name, values in protocol.labelling.classes.items()
    }
    named: dict[str, list[dict[str, float]]] = {name: [] for name in keys}
    per_case: dict[str, dict[str, Any]] = {
        pair.case: {
            "metrics": {},
            "prediction_file": pair.prediction,
            "reference_file": pair.reference,
        }
        for pair in pairs
    }
    for row in rows:
        dice, iou = row.metrics["dice"], row.metrics["iou"]
        values = {"Dice": dice, "IoU": iou, **row.counts}
        per_case[row.case]["metrics"][keys[row.name]] = values
        named[row.name].append(values)
    means = {
        keys[name]: {column: mean_of([float(v[column]) for v in values]) for column in values[0]}
        for name, values in named.items()
    }
    return {
        "foreground_mean": foreground_mean(means),
        "mean": means,
        "metric_per_case": list(per_case.values()),
    }


def printed(content: Mapping[str, Any]) -> str:
    """The columns that people ask for first, a line for each class."""
    first = ("dice", "hd95_edge", "asd_edge", "nsd_surfel")
    shown = [column for start in first for column in content["columns"] if column.startswith(start)]
    lines = [("class", *shown, "missed")]
    rows = {**content["mean"], "mean": content["foreground_mean"]}
    for name, values in rows.items():
        count = content["missed"].get(name, sum(content["missed"].values()))
        lines.append((name, *(f"{values[column]:.3f}" for column in shown), str(count)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [word.rjust(width) for word, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )
