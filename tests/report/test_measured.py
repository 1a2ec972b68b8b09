"""Means and differences of every method, class and case."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import Model, Value
from semi_nnunet.reporting.measured import (
    ALL_CLASSES,
    average_cases,
    build_metric_table,
    list_shown_metrics,
    measure_subset,
)
from tests.report.gains import measured, values
from tests.report.parsed_page import Page
from tests.report.results_tree import BASE, OTHER, OURS, whole_tree


def test_a_metric_without_any_value_is_left_out(tmp_path, monkeypatch, capsys):
    tree = whole_tree(tmp_path, cases=3)
    tree.set_paths(monkeypatch)
    for path in tree.results.rglob("metrics.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"hd95_edge_mm": ""} for row in rows)
    out = ["-o", str(tmp_path / "report.html")]
    assert main(["report", "-d", "7", *out]) == 0
    tables = Page((tmp_path / "report.html").read_text()).tables
    assert "metric-test assd_edge_mm" in tables and "metric-test hd95_edge_mm" not in tables
    assert main(["report", "-d", "7", "--metric", "hd95_edge_mm", *out]) == 2
    assert "hd95_edge_mm is not defined" in capsys.readouterr().err


def test_cases_are_averaged_over_folds_and_seeds_and_then_classes():
    rng = np.random.default_rng(0)
    rows = [
        Value(Model(OURS, "2d"), fold, seed, case, name, float(rng.random()))
        for fold in ("0", "1")
        for seed in (0, 1)
        for case in ("a", "b")
        for name in ("liver", "tumour")
    ]
    rows[0] = replace(rows[0], value=math.nan)  # means skip it
    means = average_cases(rows)
    for case in ("a", "b"):
        class_means = {
            name: np.nanmean([v.value for v in rows if (v.case, v.name) == (case, name)])
            for name in ("liver", "tumour")
        }
        assert means[case] == pytest.approx(
            {ALL_CLASSES: np.mean([*class_means.values()]), **class_means}
        )


def test_the_baseline_comes_first_and_means_agree_with_the_values():
    results = measured("test", **{OURS: 0.03, OTHER: 0.02, BASE: 0})
    (table,) = results.tables
    assert [row.model.trainer for row in table.rows] == [BASE, OTHER, OURS]
    assert table.columns == (ALL_CLASSES, "liver", "tumour")
    for row in table.rows:
        model_values = [v for v in results.values if v.model == row.model]
        liver = np.mean([v.value for v in model_values if v.name == "liver"])
        assert row.trainings == 2 and row.cells[1].value == pytest.approx(liver)
        assert row.cells[0].value == pytest.approx(np.mean([v.value for v in model_values]))
    with_other_baseline = build_metric_table(results.values, [], OURS, "dice")
    assert [row.model.trainer for row in with_other_baseline.rows] == [OURS, BASE, OTHER]
    baseline, *methods = table.rows
    assert all(cell.difference is None for cell in baseline.cells)
    for row in methods:
        for cell, baseline_cell in zip(row.cells, baseline.cells, strict=True):
            assert cell.difference.mean == pytest.approx(cell.value - baseline_cell.value)
            assert cell.verdict == "better"


def test_every_case_of_every_method_appears_once():
    results = measured("test", **{BASE: 0, OURS: 0.03})
    assert results.cases == sorted(f"c{n}" for n in range(12)) and results.unit == "case"
    assert results.classes == ["liver", "tumour"]
    means = results.case_means()
    assert {model.trainer for model in means} == {BASE, OURS}
    assert all(set(cases) == {*results.cases} for cases in means.values())


def test_undefined_metrics_are_not_measured():
    rows = values(BASE, 0)
    undefined = [replace(v, value=math.nan) for v in rows]
    assert measure_subset("test", {"dice": undefined}, BASE) is None
    assert measure_subset("test", {"dice": []}, BASE) is None
    results = measure_subset("test", {"dice": rows, "hd95_edge_mm": undefined}, BASE)
    assert results is not None and [table.metric for table in results.tables] == ["dice"]
    assert results.compared == ()  # one trainer is not an error


def test_an_invented_class_counts_against_the_method():
    ours, base = ([replace(v, name="liver") for v in values(name, 0)[:2]] for name in (OURS, BASE))
    base = [replace(v, value=math.nan) for v in base]  # the class is absent, also in the prediction
    ours = [replace(v, value=0.0) for v in ours]
    results = measure_subset("test", {"dice": [*ours, *base]}, BASE)
    assert results is not None and results.compared[0].overall.mean == -1.0


def test_report_and_compare_show_gains_by_domain_only_if_the_data_set_names_domains(
    tmp_path, monkeypatch, capsys
):
    tree = whole_tree(tmp_path, cases=4)
    tree.set_paths(monkeypatch)
    out = tmp_path / "report.html"
    assert main(["compare", "-d", "7"]) == 0 and main(["report", "-d", "7", "-o", str(out)]) == 0
    assert "| domain" not in capsys.readouterr().out and "By domain" not in out.read_text()
    description = json.loads((tree.preprocessed / "dataset.json").read_text())
    domains = {"north": ".*_[01]", "<b>south": ".*_[23]"}
    tree.write_json(tree.preprocessed / "dataset.json", {**description, "domain": domains})
    assert main(["compare", "-d", "7"]) == 0 and main(["report", "-d", "7", "-o", str(out)]) == 0
    assert "| north " in capsys.readouterr().out
    head, *rows = Page(out.read_text()).tables["domains-test"]
    assert [row[0][0] for row in rows] == ["<b>south", "north"]
    assert head[2][1] == "cases" and [row[2][0] for row in rows] == ["2", "2"]
    for row in rows:
        base, ours, gain = (float(value) for value, _ in row[3:])
        assert gain == pytest.approx(ours - base)


def test_common_metrics_that_all_tables_have_are_shown_in_a_fixed_order(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    paths[0].write_text("case,class,hd95_edge_mm,volume_ml,dice,iou\n")
    paths[1].write_text("case,class,dice,hd95_edge_mm,nsd_surfel_2mm\n")
    assert list_shown_metrics(paths) == ["dice", "hd95_edge_mm"]
    assert list_shown_metrics(paths[:1]) == ["dice", "iou", "hd95_edge_mm"]
    assert list_shown_metrics([]) == []
