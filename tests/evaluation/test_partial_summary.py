"""nnU-Net's summary, without the classes that a case does not annotate."""

import json
import math

import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from semi_nnunet.evaluation.tables import drop_unannotated
from semi_nnunet.raw.classes import AnnotatedClasses
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
def test_classes_that_a_case_does_not_annotate_become_nan_and_leave_the_means(
    labels, entry, unknown, tmp_path
):
    predictions, references = folders(tmp_path, labels)
    keys = [(1, 2), (2,)] if "whole" in labels else [1, 2]
    path = predictions / "summary.json"
    theirs = compute_metrics_on_folder(
        str(references), str(predictions), str(path), SimpleITKIO(), ".nii.gz", keys,
        labels.get("ignore"), num_processes=1,
    )  # fmt: skip
    annotated = AnnotatedClasses.of({"labels": labels, "annotated": entry})
    drop_unannotated(path, annotated, ".nii.gz")
    ours, dice = json.loads(path.read_text()), {str(key): [] for key in keys}
    for case, theirs_case, ours_case in zip(
        "abc", theirs["metric_per_case"], ours["metric_per_case"], strict=True
    ):
        for key, metrics in theirs_case["metrics"].items():
            ours_metrics = ours_case["metrics"][str(key)]
            if str(key) in unknown.get(case, ()):
                assert all(map(math.isnan, ours_metrics.values()))
                assert ours_metrics.keys() == metrics.keys()
            else:
                assert ours_metrics == pytest.approx(metrics)
                dice[str(key)].append(metrics["Dice"])
    means = [sum(values) / len(values) for values in dice.values()]
    assert [ours["mean"][key]["Dice"] for key in dice] == pytest.approx(means)
    assert ours["foreground_mean"]["Dice"] == pytest.approx(sum(means) / 2)
