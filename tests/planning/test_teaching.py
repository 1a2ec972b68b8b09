"""Labels, classes and streams of images that teach nothing are named, and no others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.planning.teaching import (
    find_idle_images,
    find_idle_labels,
    find_idle_settings,
    find_ignored_labels,
    find_scribbles,
    find_single_pieces,
)
from semi_nnunet.preprocessing.manifest import ManifestEntry
from semi_nnunet.settings.methods import MeanTeacherSettings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import resolve
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json

LABELS = {"background": 0, "liver": 1, "tumour": 2}


def entry(name: str, classes: str = "", content: str = "", quantiles: Any = None) -> ManifestEntry:
    """Return the entry of a case that shows the classes, each a digit."""
    facts: dict[str, Any] = {"classes": {value: {} for value in classes}}
    facts["foreground_slices"] = 0.5 if classes else 0
    facts["quantiles"] = quantiles or [[0.0, 0.5, 1.0]]
    return ManifestEntry(name, f"{content or name}-label-plans-spacing", {"file": [1, ""]}, facts)


def entries(**classes: str) -> dict[str, ManifestEntry]:
    return {name: entry(name, shown) for name, shown in classes.items()}


@pytest.mark.parametrize(
    ("labelled", "named"),
    [
        (entries(a="12", b="12"), []),
        (entries(a="1", b="1"), ["no case shows tumour"]),
        (entries(a="", b=""), ["0 in every annotated voxel"]),
        (entries(a="1", b="12"), ["fold 0 validates tumour"]),
        (entries(a="12", b="1"), []),
    ],
)
def test_labels_and_classes(labelled: dict[str, ManifestEntry], named: list[str]) -> None:
    folds = {"0": {"train": ["a"], "val": ["b"]}}
    problems = [*find_idle_labels(labelled, LABELS, folds)]
    assert len(problems) == len(named)
    assert all(text in problem.what for text, problem in zip(named, problems, strict=True))


def test_labels_of_which_every_voxel_is_ignored() -> None:
    ignored, some = entry("a"), entry("b", "12")
    ignored.facts.update(ignored=1.0, foreground_slices=1.0)
    some.facts.update(ignored=0.9)
    (problem,) = find_ignored_labels({"a": ignored})
    assert problem.what.startswith("every voxel")
    (one,) = find_idle_labels({"a": ignored, "b": some}, LABELS, {})
    assert "every voxel of a " in one.what
    assert not [*find_ignored_labels({"a": ignored, "b": some})] and not [*find_ignored_labels({})]
    (problem,) = find_idle_labels({"a": ignored, "c": ignored}, LABELS, {})
    assert "ignore label" in problem.what and "annotate" in problem.fix
    _, problem = find_idle_labels({"a": ignored, "b": entry("b")}, LABELS, {})
    assert "0 in every annotated voxel" in problem.what


def test_a_point_shows_a_class() -> None:
    point = entry("a", "1")
    point.facts["few_voxels"] = ["2"]
    assert not [*find_idle_labels({"a": point}, LABELS, {})]


def test_scribbles_are_named_and_annotated_slices_are_not() -> None:
    scribbled, sliced, earlier = entry("a", "12"), entry("b", "12"), entry("c", "12")
    scribbled.facts.update(ignored=0.95, ignored_in_slices=0.9)
    sliced.facts.update(ignored=0.95, ignored_in_slices=0.0)
    (problem,) = find_scribbles({"a": scribbled, "c": earlier})
    assert "90%" in problem.what and "crf_weight" in problem.fix
    assert not [*find_scribbles({"a": scribbled, "b": sliced, "c": earlier})]  # half of the cases


def test_labels_in_one_piece_suggest_a_rule_unless_the_data_set_has_one() -> None:
    labelled = entries(a="1", b="1", c="1")
    assert not [*find_single_pieces(labelled, {})]  # of an earlier version
    for one in labelled.values():
        one.facts["pieces"] = 1
    (problem,) = find_single_pieces(labelled, {})
    assert "one_piece" in problem.fix
    for description in ({"one_piece": True}, {"one_piece": False}, {"lesions": ["overlap=0.1"]}):
        assert not [*find_single_pieces(labelled, description)]
    assert not [*find_single_pieces({"a": labelled["a"]}, {})]  # one label proves nothing
    labelled["b"].facts["pieces"] = 2
    assert not [*find_single_pieces(labelled, {})]


def test_the_classes_of_regions_and_of_earlier_preprocessing_are_not_known() -> None:
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    assert [*find_idle_labels(entries(a="1"), regions, {})] == []
    earlier = {"a": replace(entry("a"), facts={})}
    assert [*find_idle_labels(earlier, LABELS, {})] == []


def test_images() -> None:
    images = {name: entry(name) for name in ("a", "b")}
    assert [*find_idle_images(images)] == []
    same = {name: entry(name, content="one") for name in ("a", "b")}
    (problem,) = find_idle_images(same)
    assert "the same voxels" in problem.what
    (problem,) = find_idle_images({**images, "c": entry("c", quantiles=[[0.0, 0.0, 0.0]])})
    assert problem.what.endswith(": c")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, None),
        ({"unlabelled_weight": 0.0}, "unlabelled_weight"),
        ({"consistency_weight": 0.0}, "consistency_weight"),
        ({"unlabelled_gradient_limit": 0.0, "unlabelled_gradient_limit_at_end": 0.25}, "at_end"),
        ({"unlabelled_gradient_limit": 2.0, "unlabelled_gradient_limit_at_end": 0.25}, None),
        ({"unlabelled_start_steps": 20, "follow_reliability": False}, "ends after 20 steps"),
        ({"unlabelled_start_steps": 19, "follow_reliability": False}, None),
        ({"unlabelled_start_steps": 20, "follow_reliability": True}, None),  # counts from the start
    ],
)
def test_settings(given: dict[str, Any], named: str | None) -> None:
    properties = DatasetProperties(2, 2, 2, (8, 8), (8.0, 8.0))
    values = {"epochs": 2, "steps_per_epoch": 10, **given}
    settings = resolve(
        MeanTeacherSettings, properties, {key: (value, "") for key, value in values.items()}
    ).settings
    problems = [*find_idle_settings("SemiMeanTeacherTrainer", settings)]
    assert [named in problem.what for problem in problems if named] == [True] * bool(named)
    assert bool(problems) == bool(named)


def test_plan_doctor_and_the_start_of_a_training_name_them(
    prepared_dataset: Any, make_trainer: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    trainer = make_trainer("SemiMeanTeacherTrainer", unlabelled_weight=0.0)
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text(encoding="utf-8")
    assert "WARNING: SemiMeanTeacherTrainer: unlabelled images have no weight" in log
    dataset = prepared_dataset("labels", 1)
    preprocessed = tmp_path / "preprocessed" / dataset.name
    shutil.copytree(dataset.preprocessed, preprocessed)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    description = read_json(preprocessed / "dataset.json")
    description["labels"]["unseen"] = 4
    write_json(preprocessed / "dataset.json", description)
    assert main(["plan", "-d", dataset.name, "--set", "unlabelled_weight=0"]) == 0
    output = capsys.readouterr().err
    assert "WARNING: SemiUnifiedTrainer: unlabelled images have no weight" in output
    assert output.count("no case shows unseen") == 1
    write_json(preprocessed / "dataset.json", dataset.dataset_json)
    assert main(["doctor", "-d", dataset.name]) == 1
    assert "unlabelled images have no weight" in capsys.readouterr().out


def test_no_training_starts_if_every_voxel_of_its_labels_is_ignored(
    prepared_dataset: Any, make_trainer: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    dataset = prepared_dataset("ignore")
    preprocessed = tmp_path / "preprocessed" / dataset.name
    shutil.copytree(dataset.preprocessed, preprocessed)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    (manifest,) = preprocessed.glob("nnUNetPlans_2d.manifest.jsonl")
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    for stored in entries:
        stored["facts"]["ignored"] = 1.0
    manifest.write_text("".join(f"{json.dumps(stored)}\n" for stored in entries))
    for name in ("SemiBaselineTrainer", "SemiMeanTeacherTrainer"):
        with pytest.raises(UserError, match="ignore label"):
            make_trainer(name, kind="ignore")
    make_trainer("SemiPretrainTrainer", kind="ignore", fold="all")  # reads no labels
    command = ["crossval", "-d", dataset.name, "-c", "2d", "-f", "0", "-tr", "SemiBaselineTrainer"]
    assert main(command) == 2
    assert "every voxel of all 5 labels" in capsys.readouterr().err
