"""nnU-Net's summary, without what a case does not annotate."""

import json
import math

import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.evaluation.partial_summary import leave_out_unknown
from tests.evaluation.folders import LABELS, REGIONS, folders


@pytest.mark.parametrize(
    ("labels", "entry", "unknown"),
    [
        (LABELS, {"a": ["liver"], "b": ["liver", "tumour"]}, {"a": {"2"}}),
        (
            REGIONS,
            {"a": ["core"], "b*": ["whole"]},
            {"a": {"(1, 2)"}, "b": {"(2,)"}},
        ),
    ],
)
def test_what_is_unknown_is_no_number_and_in_no_mean(labels, entry, unknown, tmp_path):
    predictions, references = folders(tmp_path, labels)
    keys = [(1, 2), (2,)] if "whole" in labels else [1, 2]
    path = predictions / "summary.json"
    theirs = compute_metrics_on_folder(
        str(references), str(predictions), str(path), SimpleITKIO(), ".nii.gz", keys,
        labels.get("ignore"), num_processes=1,
    )  # fmt: skip
    annotated = AnnotatedClasses.of({"labels": labels, "annotated": entry})
    leave_out_unknown(path, annotated, ".nii.gz")
    found, left = json.loads(path.read_text()), {str(key): [] for key in keys}
    for case, before, after in zip(
        "abc", theirs["metric_per_case"], found["metric_per_case"], strict=True
    ):
        for key, metrics in before["metrics"].items():
            now = after["metrics"][str(key)]
            if str(key) in unknown.get(case, ()):
                assert all(map(math.isnan, now.values())) and now.keys() == metrics.keys()
            else:
                assert now == pytest.approx(metrics)
                left[str(key)].append(metrics["Dice"])
    means = [sum(values) / len(values) for values in left.values()]
    assert [found["mean"][key]["Dice"] for key in left] == pytest.approx(means)
    assert found["foreground_mean"]["Dice"] == pytest.approx(sum(means) / 2)
