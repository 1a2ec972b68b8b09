"""The curve of annotation rounds: the same cases for all points, from what trainings recorded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.reporting.rounds import collect_rounds
from semi_nnunet.runs.folders import Folders
from tests.report.results_tree import BASE, OTHER, OURS, Tree

ROUND = {
    "round": 1, "when": "2026-03-04T05:06:07Z", "models": ["Dataset007_Seven/a_model"],
    "labelled_before": 4, "labelled_after": 6,
    "cases": {
        "new_a": {"correction": False, "changed_voxels": 30, "label": "x"},
        "new_b": {"correction": False, "changed_voxels": None, "label": "y"},
        "old": {"correction": True, "changed_voxels": 12, "label": "z"},
    },
}  # fmt: skip


def record_cases(folder: Path, labelled: int) -> None:
    """Record that a fold trained on all but one of the labelled cases."""
    names = [f"case_{number}" for number in range(labelled)]
    sources = {"labelled": dict.fromkeys(names[1:], "a"), "validation": {names[0]: "a"}}
    content = {"settings": {}, "reasons": {}, "sources": sources}
    (folder / "semi_settings.json").write_text(json.dumps(content))


def average_dice(folder: Path, cases: set[str]) -> float:
    """Return the mean over classes, then over cases, in points."""
    with (folder / "test" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"] in cases and row["dice"]]
    of_case = [[float(row["dice"]) for row in rows if row["case"] == case] for case in cases]
    return 100 * sum(sum(numbers) / len(numbers) for numbers in of_case) / len(of_case)


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A baseline and a method with 4 labelled cases, and with 6; one more without a record."""
    tree = Tree(tmp_path)
    tree.set_paths(monkeypatch)
    for seed, labelled in ((0, 4), (1, 6)):
        for trainer in (BASE, OURS):
            record_cases(tree.train(trainer, seed), labelled)
    tree.train(OTHER)
    return tree


def collect(tree: Tree):
    return collect_rounds(Folders(tree.raw, tree.preprocessed, tree.results))


def test_without_accepted_labels_there_are_no_rounds(rounds):
    assert collect(rounds) is None


def test_all_points_are_means_over_the_same_cases(rounds):
    Tree.write_json(rounds.raw / "annotation_rounds.json", {"rounds": [ROUND]})
    folders = {
        (trainer, labelled): rounds.results / f"{trainer}__{plans}__2d" / "fold_0"
        for trainer in (BASE, OURS)
        for plans, labelled in (("nnUNetPlans", 4), ("nnUNetPlans_seed1", 6))
    }
    table = folders[BASE, 6] / "test" / "metrics.csv"  # one case was not measured there
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("test_0,")))
    shared = {f"test_{number}" for number in range(1, 7)}
    found = collect(rounds)
    assert (found.subset, found.cases) == ("test", 6)
    expected = {key: average_dice(folder, shared) for key, folder in folders.items()}
    names = {"Baseline": BASE, "Mean Teacher": OURS}
    dice = {(names[row[0]], int(row[1])): float(row[2]) for row in found.points}
    assert dice == pytest.approx(expected, abs=0.006)
    assert found.panel is not None and [name for _, name in found.panel.legend] == [*names]


def test_the_page_shows_the_rounds_and_the_curve(rounds):
    Tree.write_json(rounds.raw / "annotation_rounds.json", {"rounds": [ROUND]})
    out = rounds.root / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    text = out.read_text()
    part = text[text.index('<section id="rounds">') : text.index('<section id="unlabelled">')]
    cells = '<td class="name">'
    for cell in ("2026-03-04", "4 to 6", "2", "1", "Dataset007_Seven/a_model", "42"):
        assert f"{cells}{cell}</td>" in part
    assert part.count("<polyline") == 2 and 'href="#rounds"' in text


def test_a_single_number_of_labelled_cases_has_no_curve(rounds):
    Tree.write_json(rounds.raw / "annotation_rounds.json", {"rounds": [ROUND]})
    for folder in rounds.results.glob("*_seed1__2d/fold_0"):
        record_cases(folder, 4)
    found = collect(rounds)
    assert found.panel is None and len(found.points) == 2
