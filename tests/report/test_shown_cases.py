"""Cases are shown with their slices and the scores of the same predictions."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.case_files import CaseFiles, FilesOfCase
from semi_nnunet.reporting.measured import ALL_CLASSES
from semi_nnunet.reporting.report_data import build_report_from_trainings
from semi_nnunet.reporting.shown_cases import (
    build_viewers,
    draw_case_slices,
    make_data_uri,
    name_viewer_panels,
    rank_cases,
    select_notable_cases,
    tabulate_scores,
)
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.trainings import find_jobs
from tests.evaluation.folders import folders, write
from tests.report.gains import measured
from tests.report.parsed_page import Page
from tests.report.results_tree import BASE, OURS, whole_tree

METHOD, BASELINE = Model(OURS, "2d"), Model(BASE, "2d")


def test_cases_are_shown_with_their_slices_and_scores(html, page, tree):
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', html, flags=re.DOTALL)
    frames = [json.loads(script) for script in scripts]
    assert 3 <= len(frames) <= 4 and all(len(case) > 1 for case in frames)
    for word in ("Worst case", "Median case", "Best case", "slice", "Disagreement", "seed 0"):
        assert word in page.text
    with (tree.results / f"{OURS}__nnUNetPlans__2d/fold_0/test/metrics.csv").open() as file:
        written = {f"{100 * float(row['dice']):.1f}" for row in csv.DictReader(file)}
    assert {row[2] for case in frames for row in case[0]["scores"]} <= written


def test_classes_that_a_case_does_not_annotate_are_no_errors(tmp_path):
    predictions, references = folders(tmp_path)
    description = references.parent / "dataset.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "annotated": {"a": ["liver"]}}))
    reference = np.zeros((8, 16, 16))
    reference[2, 4:8, 4:8] = 1
    prediction = reference.copy()
    prediction[5, 2:9, 2:9] = 2  # a tumour; this case annotates livers only
    write(references / "a.nii.gz", reference)
    write(predictions / "a.nii.gz", prediction)
    write(tmp_path / "image.nii.gz", reference)
    labels = {"reference": references / "a.nii.gz", "method": predictions / "a.nii.gz"}
    labelling = read_labelling(description, str(labels["reference"]))
    for case, errors in (("a", 0), ("b", 49)):
        files = FilesOfCase(case, tmp_path / "image.nii.gz", labels, {}, "0", 0)
        assert sum(drawn.errors for drawn in draw_case_slices(files, labelling)) == errors


def test_colour_images_are_frames_of_one_viewer_with_dice_and_iou(tmp_path, monkeypatch):
    tree = whole_tree(tmp_path, shape=(32, 24), cases=5)
    tree.set_paths(monkeypatch)
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    html = out.read_text()
    (script,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    frames = json.loads(script)
    assert len(frames) == 5 and "(1 of 5)" in frames[0]["caption"]
    assert frames[0]["image"].startswith("data:image/jpeg") and frames[0]["ratio"] == 24 / 32
    text = Page(html).text
    assert "the worst first" in text and "IoU, Mean Teacher" in text
    worst = [float(np.mean([float(row[2]) for row in frame["scores"]])) for frame in frames]
    assert worst[0] < worst[-1]


def test_cases_are_ranked_from_the_worst_without_undefined_ones():
    for metric, sign in (("dice", 1), ("hd95_edge_mm", -1)):
        results = measured("test", metric, **{BASE: 0, OURS: 0.03})
        gone = [replace(v, value=math.nan) if v.case == "c5" else v for v in results.values]
        results = replace(results, values=tuple(gone))
        ranked = rank_cases(results, METHOD)
        means = [sign * results.case_means()[METHOD][case][ALL_CLASSES] for case in ranked]
        assert means == sorted(means) and len(ranked) == 11 and "c5" not in ranked


def test_the_worst_the_median_the_best_and_the_largest_loss_are_shown_once():
    results = measured("test", **{BASE: 0, OURS: 0.0})
    ranked = rank_cases(results, METHOD)
    shown = select_notable_cases(ranked, results, METHOD, BASELINE)
    means = results.case_means()
    losses = {
        case: means[METHOD][case][ALL_CLASSES] - means[BASELINE][case][ALL_CLASSES]
        for case in ranked
    }
    lost = min(losses, key=losses.__getitem__)
    assert losses[lost] < 0 and [*shown.values()][:3] == [ranked[0], ranked[6], ranked[-1]]
    assert lost in shown.values() and len({*shown.values()}) == len(shown)
    assert select_notable_cases(ranked[:1], results, METHOD, None) == {"Worst case": ranked[0]}
    better = measured("test", **{BASE: 0, OURS: 0.2})  # no case loses
    assert len(select_notable_cases(rank_cases(better, METHOD), better, METHOD, BASELINE)) == 3


def test_panels_are_named_after_the_methods():
    results = measured("test", **{BASE: 0, OURS: 0.03})
    assert list(name_viewer_panels(results, METHOD, BASELINE).items()) == [
        ("image", "Image"), ("reference", "Reference"), ("baseline", "Baseline"),
        ("method", "Mean Teacher"), ("disagreement", "Disagreement"),
    ]  # fmt: skip
    assert name_viewer_panels(results, METHOD, None)["disagreement"] == "Errors"


def test_pictures_are_embedded_unchanged():
    content = bytes(range(256))
    head, _, body = make_data_uri(content, "jpeg").partition(",")
    assert head == "data:image/jpeg;base64" and base64.b64decode(body) == content


def test_scores_belong_to_the_shown_predictions(tree):
    folders = Folders(tree.raw, tree.preprocessed, tree.results)
    files = CaseFiles(folders, "test", find_jobs(folders)).find("test_0", METHOD, BASELINE)
    assert files is not None
    names = {"method": "Mean Teacher", "baseline": "Baseline"}
    head, table = tabulate_scores(files, False, names)
    assert head[:3] == ["class", "Dice, Baseline", "Dice, Mean Teacher"]
    assert [row[0] for row in table] == ["liver", "tumour"]
    for column, name in ((1, "baseline"), (2, "method")):
        with files.tables[name].open(newline="") as file:
            rows = {r["class"]: r for r in csv.DictReader(file) if r["case"] == "test_0"}
        assert [row[column] for row in table] == [
            f"{100 * float(rows[row[0]]['dice']):.1f}" for row in table
        ]


def test_a_prediction_of_another_shape_is_reported_and_the_other_cases_are_shown(
    tree, tmp_path, monkeypatch
):
    shutil.copytree(tree.root, tmp_path / "copy")
    copy = [
        tmp_path / "copy" / folder / tree.raw.name for folder in ("raw", "preprocessed", "results")
    ]
    folders = Folders(*copy)
    results = build_report_from_trainings(folders, "nnUNetPlans", BASE).measured[0]
    files = CaseFiles(folders, "test", find_jobs(folders))
    worst = rank_cases(results, METHOD)[0]
    torn = files.find(worst, METHOD, BASELINE).labels["method"]
    sitk.WriteImage(sitk.ReadImage(str(torn))[1:], str(torn))
    shown, note = build_viewers(files, results, METHOD, BASELINE)
    assert "cannot be shown" in note and f"{torn.name} (method) has the shape" in note
    assert shown and "Worst case" not in [viewer.title for viewer in shown]
    for viewer in shown:
        assert len(viewer.frames) == len(viewer.cases) > viewer.start >= 0
    reference = files.find(worst, METHOD, BASELINE).labels["reference"]
    reference.write_bytes(reference.read_bytes()[:60])
    assert build_viewers(files, results, METHOD, BASELINE)[0] == []  # instead of a traceback
