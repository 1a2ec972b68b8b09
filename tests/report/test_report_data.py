"""The report is built from trainings or from values, and names what is missing."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import Model, write_values
from semi_nnunet.reporting.report_data import (
    VALUES_ONLY,
    add_notes,
    build_case_rows,
    build_report,
    build_report_from_trainings,
    build_report_from_values,
    choose_shown_models,
    require_known_baseline,
)
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from tests.report.gains import measured, values
from tests.report.parsed_page import Page
from tests.report.results_tree import BASE, OTHER, OURS, Tree, whole_tree


def test_the_largest_loss_comes_first(page):
    differences = [float(row[2][0]) for row in page.tables["cases-test"][1:]]
    assert differences == sorted(differences)


def test_missing_files_are_named_and_are_not_an_error(tmp_path, monkeypatch, capsys):
    tree = Tree(tmp_path, cases=3)
    tree.set_paths(monkeypatch)
    tree.train("nnUNetTrainer")
    shutil.rmtree(tree.raw / "imagesTs")
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    text = Page(out.read_text()).text
    assert "nothing to compare" in text
    assert "Baseline is not" in text
    assert "no semi_history.csv" in text and "No training filtered" in text
    assert "are missing" in text and "No semi_settings.json" in text
    tree.train(BASE)
    for name in (OURS, "SemiPretrainTrainer"):  # a pre-training is never measured
        (tree.results / f"{name}__nnUNetPlans__2d" / "fold_0").mkdir(parents=True)
    assert main(["report", "-d", "7", "-o", str(out), "--baseline", "nnUNetTrainer"]) == 0
    text = Page(out.read_text()).text
    assert "not included: Mean Teacher 2d, fold 0, seed 0." in text
    output = capsys.readouterr().out
    assert "With one seed" in output and "With 3 cases" in output


def test_trainings_that_were_not_measured_again_are_not_shown(tmp_path, monkeypatch):
    tree = whole_tree(tmp_path, cases=5)
    tree.set_paths(monkeypatch)
    again = tree.results / f"{OURS}__nnUNetPlans__2d" / "fold_0"
    (again / "checkpoint_final.pth").write_text("x")
    os.utime(again / "test" / "metrics.csv", (0, 0))
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    text = Page(out.read_text()).text
    assert f"validation of {OURS} 2d fold 0 seed 0" in text
    assert "predictions of fold 0, seed 1" in text
    assert "predictions of fold 0, seed 0" not in text


def test_values_give_the_same_answer_tables_and_cases_as_the_trainings(
    page, tree, tmp_path, monkeypatch
):
    tree.set_paths(monkeypatch)
    values_file, out = tmp_path / "kept.csv", tmp_path / "values.html"
    assert main(["compare", "-d", "7", "--write-values", str(values_file)]) == 0
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}")
    assert main(["report", "--values", str(values_file), "-o", str(out)]) == 0
    html = out.read_text()
    alone = Page(html)

    def rounded(table: str, of: Page) -> list[list[tuple[object, str]]]:
        return [[(number(v), text) for v, text in row] for row in of.tables[table]]

    def number(value: str) -> object:
        try:
            return round(float(value), 5)  # files of values have six decimals
        except ValueError:
            return value

    shown = {name for name in page.tables if name.startswith("cases-")} | {"metric-test dice"}
    assert {name for name in alone.tables if alone.tables[name]} == shown and len(shown) == 2
    for table in shown:
        assert rounded(table, alone) == rounded(table, page)
    assert "Yes: Mean Teacher" in alone.text
    assert "recorded values" in alone.text and "Seven" in alone.text
    assert 'id="images"' not in html and 'href="#training"' not in html and "viewer-" not in html


def test_rows_case_valuess_are_the_differences_of_their_means():
    results = measured("test", **{BASE: 0, OURS: 0.03})
    method, baseline = Model(OURS, "2d"), Model(BASE, "2d")
    means = results.case_means()
    rows = build_case_rows(results, method, baseline)
    assert len(rows) == 12 * 3 and len({(row.case, row.name) for row in rows}) == len(rows)
    for row in rows:
        case_values = [means[model][row.case][row.name] for model in (baseline, method)]
        assert list(row.values) == case_values and row.difference == case_values[1] - case_values[0]
    alone = build_case_rows(results, method, None)
    assert all(math.isnan(row.difference) for row in alone)


@pytest.mark.parametrize(("metric", "sign"), [("dice", 1), ("hd95_edge_mm", -1)])
def test_the_largest_loss_comes_first_and_undefined_cases_last(metric, sign):
    results = measured("test", metric, **{BASE: 0, OURS: 0.03})
    gone = [replace(v, value=math.nan) if v.case == "c5" else v for v in results.values]
    rows = build_case_rows(
        replace(results, values=tuple(gone)), Model(OURS, "2d"), Model(BASE, "2d")
    )
    gains = [sign * row.difference for row in rows]
    assert gains[:-3] == sorted(gains[:-3])
    assert [row.case for row in rows[-3:]] == ["c5"] * 3 and all(map(math.isnan, gains[-3:]))


def test_the_report_shows_the_method_of_the_answer():
    results = measured("test", **{BASE: 0, OURS: 0.01, OTHER: 0.04})
    report = build_report("Seven", "nnUNetPlans", "dice", [results], BASE)
    assert report.method == report.answer.compared.model == Model(OTHER, "2d")
    assert report.baseline == Model(BASE, "2d") and report.trained is None
    alone = build_report("Seven", "nnUNetPlans", "dice", [measured("test", **{BASE: 0})], BASE)
    assert choose_shown_models(alone.measured, alone.answer, BASE) == (Model(BASE, "2d"), None)


def report_of(folder, **gains):
    """Return a report of values."""
    rows = [v for trainer, gain in gains.items() for v in values(trainer, gain)]
    write_values(folder / "kept.csv", {"test": rows}, "dice", ("Seven", "nnUNetPlans"))
    return build_report_from_values([folder / "kept.csv"], BASE)


def test_notes_become_sentences_after_the_others(tmp_path):
    report = report_of(tmp_path, **{BASE: 0, OURS: 0.03})
    assert report.answer.sentences[-1] == f"{VALUES_ONLY}."
    more = add_notes(report, ["one", "two"])
    assert more.answer.sentences == (*report.answer.sentences, "one.", "two.")
    assert replace(more, answer=report.answer) == report


def test_a_baseline_must_be_measured_or_known():
    require_known_baseline("SomebodysTrainer", {"SomebodysTrainer"})
    require_known_baseline(BASE)
    with pytest.raises(UserError, match=f"did you mean '{BASE}'"):
        require_known_baseline("SemiBaselneTrainer")


def test_unused_plans_are_reported_with_the_nearest_name(tree, monkeypatch):
    tree.set_paths(monkeypatch)
    with pytest.raises(UserError, match=r"plans 'nnUNetPlan'.*did you mean 'nnUNetPlans'"):
        build_report_from_trainings(find_folders("7"), "nnUNetPlan", BASE)
    assert (
        build_report_from_trainings(find_folders("7"), "nnUNetPlans", BASE).plans == "nnUNetPlans"
    )
