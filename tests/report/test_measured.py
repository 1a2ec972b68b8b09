"""Means and differences of every method, class and case."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import Model, Value
from semi_nnunet.report.measured import (
    ALL_CLASSES,
    average_cases,
    build_metric_table,
    list_shown_metrics,
    measure_subset,
)
from tests.report.gains import measured, values
from tests.report.parsed_page import Page
from tests.report.results_tree import BASE, OTHER, OURS, whole_tree


def test_a_metric_that_is_defined_nowhere_is_left_out(tmp_path, monkeypatch, capsys):
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
    assert "hd95_edge_mm must be defined for one class of one case" in capsys.readouterr().err


def test_means_of_a_case_are_those_over_folds_and_seeds_and_then_classes():
    rng = np.random.default_rng(0)
    rows = [
        Value(Model(OURS, "2d"), fold, seed, case, name, float(rng.random()))
        for fold in ("0", "1")
        for seed in (0, 1)
        for case in ("a", "b")
        for name in ("liver", "tumour")
    ]
    rows[0] = replace(rows[0], value=math.nan)  # it is counted in no mean
    means = average_cases(rows)
    for case in ("a", "b"):
        of_classes = {
            name: np.nanmean([v.value for v in rows if (v.case, v.name) == (case, name)])
            for name in ("liver", "tumour")
        }
        assert means[case] == pytest.approx(
            {ALL_CLASSES: np.mean([*of_classes.values()]), **of_classes}
        )


def test_the_baseline_comes_first_and_its_means_are_those_of_its_values():
    found = measured("test", **{OURS: 0.03, OTHER: 0.02, BASE: 0})
    (table,) = found.tables
    assert [row.model.trainer for row in table.rows] == [BASE, OTHER, OURS]
    assert table.columns == (ALL_CLASSES, "liver", "tumour")
    for row in table.rows:
        own = [v for v in found.values if v.model == row.model]
        liver = np.mean([v.value for v in own if v.name == "liver"])
        assert row.trainings == 2 and row.cells[1].value == pytest.approx(liver)
        assert row.cells[0].value == pytest.approx(np.mean([v.value for v in own]))
    with_another = build_metric_table(found.values, [], OURS, "dice")
    assert [row.model.trainer for row in with_another.rows] == [OURS, BASE, OTHER]
    baseline, *others = table.rows
    assert all(cell.difference is None for cell in baseline.cells)
    for row in others:
        for cell, of_baseline in zip(row.cells, baseline.cells, strict=True):
            assert cell.difference.mean == pytest.approx(cell.value - of_baseline.value)
            assert cell.said == "better"


def test_every_case_of_every_method_is_there_once():
    found = measured("test", **{BASE: 0, OURS: 0.03})
    assert found.cases == sorted(f"c{n}" for n in range(12)) and found.unit == "case"
    assert found.classes == ["liver", "tumour"]
    of_cases = found.of_cases()
    assert {model.trainer for model in of_cases} == {BASE, OURS}
    assert all(set(cases) == {*found.cases} for cases in of_cases.values())


def test_what_is_defined_nowhere_is_not_measured():
    rows = values(BASE, 0)
    nowhere = [replace(v, value=math.nan) for v in rows]
    assert measure_subset("test", {"dice": nowhere}, BASE) is None
    assert measure_subset("test", {"dice": []}, BASE) is None
    found = measure_subset("test", {"dice": rows, "hd95_edge_mm": nowhere}, BASE)
    assert found is not None and [table.metric for table in found.tables] == ["dice"]
    assert found.compared == ()  # one trainer alone is no mistake


def test_an_invented_class_counts_against_the_one_who_invents_it():
    ours, base = ([replace(v, name="liver") for v in values(name, 0)[:2]] for name in (OURS, BASE))
    base = [replace(v, value=math.nan) for v in base]  # nothing is there, and it says so
    ours = [replace(v, value=0.0) for v in ours]
    found = measure_subset("test", {"dice": [*ours, *base]}, BASE)
    assert found is not None and found.compared[0].overall.mean == -1.0


def test_metrics_are_shown_in_the_order_in_which_people_ask_if_all_tables_have_them(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    paths[0].write_text("case,class,hd95_edge_mm,volume_ml,dice,iou\n")
    paths[1].write_text("case,class,dice,hd95_edge_mm,nsd_surfel_2mm\n")
    assert list_shown_metrics(paths) == ["dice", "hd95_edge_mm"]
    assert list_shown_metrics(paths[:1]) == ["dice", "iou", "hd95_edge_mm"]
    assert list_shown_metrics([]) == []
