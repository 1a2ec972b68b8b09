"""nnU-Net's summary.json of a validation, where cases count for the classes that they annotate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region

from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.evaluation.metrics import UNDEFINED
from semi_nnunet.evaluation.tables import foreground_mean, mean_of
from semi_nnunet.util.files import read_json, write_json


def leave_out_unknown(path: Path, annotated: AnnotatedClasses, file_ending: str) -> dict[str, Any]:
    """Write a summary.json anew without what its cases do not annotate.

    nnU-Net takes an organ that a case does not annotate for one that is not there, and a network
    that finds it for wrong. These metrics become NaN, and means are those of the other cases.

    Args:
        path: of the file that nnU-Net wrote.
        annotated: which classes each case annotates.
        file_ending: of the predictions.

    Returns:
        The new content.
    """
    summary: dict[str, Any] = read_json(path)
    for case in summary["metric_per_case"]:
        name = Path(case["prediction_file"]).name.removesuffix(file_ending)
        own = {annotated.classes[one] for one in annotated.names(name)}
        case["metrics"] = {
            key: metrics if values_of(key) in own else dict.fromkeys(metrics, UNDEFINED)
            for key, metrics in case["metrics"].items()
        }
    every = [case["metrics"] for case in summary["metric_per_case"]]
    summary["mean"] = {
        key: {metric: mean_of([float(one[key][metric]) for one in every]) for metric in means}
        for key, means in summary["mean"].items()
    }
    summary["foreground_mean"] = foreground_mean(summary["mean"])
    write_json(path, summary)
    return summary


def values_of(key: str) -> tuple[int, ...]:
    """The values of the class or region that a key of nnU-Net's summary names."""
    found = key_to_label_or_region(key)
    return found if isinstance(found, tuple) else (found,)
