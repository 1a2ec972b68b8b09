"""What the rules know of a data set, and whose value of a setting counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.manifest import Entry, Manifest
from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.planning.properties import DatasetProperties, collect_properties, resolve_settings
from semi_nnunet.settings.overrides import merged


@pytest.mark.parametrize(
    ("labels", "order", "classes"),
    [
        ({"background": 0, "polyp": 1}, None, 1),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None, 2),
        ({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2], 2),
        ({"background": 0, "whole": [1], "ignore": 2}, [1], 1),
    ],
)
def test_classes_are_counted_without_background_and_ignored(
    labels: dict[str, Any], order: list[int] | None, classes: int, phantom: Any
) -> None:
    description = {**phantom.dataset_json, "labels": labels}
    if order:
        description["regions_class_order"] = order
    assert collect_properties(phantom.plans, "2d", description, None).foreground_classes == classes


def test_a_trainers_own_value_stands_against_what_was_planned_for_all(phantom: Any) -> None:
    properties = DatasetProperties(4, 20, 2, (24, 24), (32.0, 32.0))
    kind = trainer_classes()["SemiDistillationTrainer"].settings_class

    def resolved(semi: dict[str, Any], given: dict[str, Any]) -> Any:
        plans = {**phantom.plans, "semi": semi, "semi_planned": {"given": given, "semi": semi}}
        return resolve_settings(kind, "SemiDistillationTrainer", "2d", plans, properties).settings

    # planned for all trainers, before this one existed
    planned = {"2d": {"unlabelled_start_steps": 2000, "epochs": 7, "momentum": 0.5}}
    settings = resolved(planned, {})
    assert (settings.unlabelled_start_steps, settings.epochs, settings.momentum) == (0, 7, 0.5)
    by_person = {"2d": {"unlabelled_start_steps": 30}}
    assert resolved(merged(planned, by_person), by_person).unlabelled_start_steps == 30
    own = {"SemiDistillationTrainer": {"unlabelled_start_steps": 30}}
    assert resolved(merged(planned, own), own).unlabelled_start_steps == 30


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_properties_are_those_of_plans_and_finished_cases(configuration: str, phantom: Any) -> None:
    plan = phantom.plans["configurations"][configuration]
    description, folder = phantom.dataset_json, phantom.preprocessed
    found = collect_properties(phantom.plans, configuration, description, folder)
    assert (found.labelled_cases, found.unlabelled_cases) == (5, 6)
    assert found.batch_size == plan["batch_size"]
    assert list(found.patch_size) == plan["patch_size"]
    assert list(found.median_shape) == plan["median_image_size_in_voxels"][-len(found.patch_size) :]
    assert found.foreground_slices == 1.0 and found.intensity_shift > 0
    assert found.foreground_classes == len(description["labels"]) - 1
    for nowhere in (None, folder / "nowhere"):  # as when predicting on another machine
        blind = collect_properties(phantom.plans, configuration, description, nowhere)
        assert (blind.labelled_cases, blind.unlabelled_cases) == (5, 0)
        assert (blind.intensity_shift, blind.foreground_slices) == (0.0, 1.0)


def test_what_the_finished_cases_show_is_known(phantom: Any, tmp_path: Path) -> None:
    labelled = tmp_path / phantom.plans["configurations"]["2d"]["data_identifier"]
    unlabelled = unlabelled_folder(tmp_path, labelled.name)
    for folder, shift in ((labelled, 0.0), (unlabelled, 0.75)):
        for case, share in (("a", 0.25), ("b", 0.75)):
            facts = {"foreground_slices": share, "quantiles": [[shift, 1 + shift]]}
            folder.mkdir(exist_ok=True)
            (image := folder / f"{case}.b2nd").touch()
            Manifest(folder).add(Entry.of(case, "source", [image], facts))
    found = collect_properties(phantom.plans, "2d", phantom.dataset_json, tmp_path)
    assert (found.foreground_slices, found.intensity_shift) == (0.5, 0.75)
    assert found.unlabelled_cases == 2


def test_classes_that_their_place_tells_apart_are_named(phantom: Any, tmp_path: Path) -> None:
    folder = tmp_path / phantom.plans["configurations"]["2d"]["data_identifier"]
    folder.mkdir()
    one = {"center": [4, 4, 2], "spread": [1, 1, 1], "mean": [0.1], "deviation": [1]}
    for case in "abc":
        (image := folder / f"{case}.b2nd").touch()
        facts = {"classes": {"1": one, "3": one | {"center": [4, 4, 9]}}}
        Manifest(folder).add(Entry.of(case, "source", [image], facts))
    names = {value: name for name, value in phantom.dataset_json["labels"].items()}
    found = collect_properties(phantom.plans, "2d", phantom.dataset_json, tmp_path)
    assert found.told_by_place == (names[1], names[3])
    regions = {"background": 0, "all": [1, 2, 3], "one": [3]}
    of_regions = phantom.dataset_json | {"labels": regions, "regions_class_order": [1, 3]}
    found = collect_properties(phantom.plans, "2d", of_regions, tmp_path)
    assert found.told_by_place is None


def test_a_reason_says_whether_a_person_a_rule_or_the_data_of_before_decided(phantom: Any) -> None:
    name, properties = "SemiMeanTeacherTrainer", DatasetProperties(4, 20, 2, (24, 24), (32.0, 32.0))
    kind = trainer_classes()[name].settings_class
    semi = {"2d": {"labelled_batch_size": 2, "steps_per_epoch": 99, "epochs": 7}}
    before = {"2d": {"labelled_batch_size": 2, "steps_per_epoch": 99}}
    plans = {**phantom.plans, "semi": semi, "semi_planned": {"given": {}, "semi": before}}
    found = resolve_settings(kind, name, "2d", plans, properties)
    assert found.settings.epochs == 7 and found.settings.steps_per_epoch == 99
    assert found.reasons["epochs"] == "given in plans['semi']['2d']"  # edited by hand
    assert found.reasons["steps_per_epoch"] == "planned when the data were others"
    assert found.reasons["labelled_batch_size"] == "batch size of the nnU-Net plan"
