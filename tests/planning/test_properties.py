"""Properties of a data set, and the resolution of settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.planning.properties import (
    NOT_FOLLOWED,
    DatasetProperties,
    collect_properties,
    list_origins,
    resolve_settings,
)
from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.raw.layout import get_unlabelled_folder
from semi_nnunet.settings.overrides import merge_layers
from semi_nnunet.util.files import write_json


@pytest.mark.parametrize(
    ("labels", "order", "classes"),
    [
        ({"background": 0, "polyp": 1}, None, 1),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None, 2),
        ({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2], 2),
        ({"background": 0, "whole": [1], "ignore": 2}, [1], 1),
    ],
)
def test_classes_are_counted_without_background_and_ignore_label(
    labels: dict[str, Any], order: list[int] | None, classes: int, phantom: Any
) -> None:
    description = {**phantom.dataset_json, "labels": labels}
    if order:
        description["regions_class_order"] = order
    assert collect_properties(phantom.plans, "2d", description, None).foreground_classes == classes


def test_a_trainers_own_default_wins_over_a_value_planned_for_all(phantom: Any) -> None:
    properties = DatasetProperties(4, 20, 2, (24, 24), (32.0, 32.0))
    settings_class = trainer_classes()["SemiDistillationTrainer"].settings_class

    def resolved(semi: dict[str, Any], user_layers: dict[str, Any]) -> Any:
        planned = {"given": user_layers, "semi": semi}
        plans = {**phantom.plans, "semi": semi, "semi_planned": planned}
        name = "SemiDistillationTrainer"
        return resolve_settings(settings_class, name, "2d", plans, properties).settings

    # planned for all trainers, before this one existed
    planned = {"2d": {"unlabelled_start_steps": 2000, "epochs": 7, "momentum": 0.5}}
    settings = resolved(planned, {})
    assert (settings.unlabelled_start_steps, settings.epochs, settings.momentum) == (0, 7, 0.5)
    for user_layers in (
        {"2d": {"unlabelled_start_steps": 30}},
        {"SemiDistillationTrainer": {"unlabelled_start_steps": 30}},
    ):
        assert (
            resolved(merge_layers(planned, user_layers), user_layers).unlabelled_start_steps == 30
        )


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_properties_are_those_of_plans_and_preprocessed_cases(
    configuration: str, phantom: Any
) -> None:
    plan = phantom.plans["configurations"][configuration]
    description, folder = phantom.dataset_json, phantom.preprocessed
    properties = collect_properties(phantom.plans, configuration, description, folder)
    assert (properties.labelled_cases, properties.unlabelled_cases) == (5, 6)
    assert properties.batch_size == plan["batch_size"]
    assert list(properties.patch_size) == plan["patch_size"]
    assert (
        list(properties.median_shape)
        == plan["median_image_size_in_voxels"][-len(properties.patch_size) :]
    )
    assert properties.foreground_slices == 1.0
    assert properties.foreground_classes == len(description["labels"]) - 1
    for missing in (None, folder / "nowhere"):  # as when predicting on another machine
        blind = collect_properties(phantom.plans, configuration, description, missing)
        assert (blind.labelled_cases, blind.unlabelled_cases) == (5, 0)
        assert blind.foreground_slices == 1.0


def test_statistics_of_the_preprocessed_cases_are_collected(phantom: Any, tmp_path: Path) -> None:
    labelled = tmp_path / phantom.plans["configurations"]["2d"]["data_identifier"]
    unlabelled = get_unlabelled_folder(tmp_path, labelled.name)
    for folder in (labelled, unlabelled):
        for case, share in (("a", 0.25), ("b", 0.75)):
            facts = {"foreground_slices": share}
            folder.mkdir(exist_ok=True)
            (image := folder / f"{case}.b2nd").touch()
            Manifest(folder).add(ManifestEntry.of(case, "source", [image], facts))
    properties = collect_properties(phantom.plans, "2d", phantom.dataset_json, tmp_path)
    assert properties.foreground_slices == 0.5
    assert properties.unlabelled_cases == 2


def test_classes_that_differ_only_in_position_are_collected(phantom: Any, tmp_path: Path) -> None:
    folder = tmp_path / phantom.plans["configurations"]["2d"]["data_identifier"]
    folder.mkdir()
    organ = {"center": [4, 4, 2], "spread": [1, 1, 1], "mean": [0.1], "deviation": [1]}
    for case in "abc":
        (image := folder / f"{case}.b2nd").touch()
        facts = {"classes": {"1": organ, "3": organ | {"center": [4, 4, 9]}}}
        Manifest(folder).add(ManifestEntry.of(case, "source", [image], facts))
    names = {value: name for name, value in phantom.dataset_json["labels"].items()}
    properties = collect_properties(phantom.plans, "2d", phantom.dataset_json, tmp_path)
    assert properties.lookalike_classes == (names[1], names[3])
    coarser = copy.deepcopy(phantom.plans)
    coarser["configurations"]["2d"]["data_identifier"] = "not_preprocessed_yet"
    derived = coarser | {"plans_name": "derived", "semi_planned": {"from": "nnUNetPlans"}}
    write_json(tmp_path / "nnUNetPlans.json", phantom.plans | {"dataset_name": tmp_path.name})
    for origin in (phantom.plans, derived):
        same = collect_properties(coarser, "2d", phantom.dataset_json, tmp_path, origin)
        assert same.lookalike_classes == properties.lookalike_classes
    (tmp_path / "nnUNetPlans.json").write_text("{")  # only hints are taken from it
    assert list_origins(tmp_path, derived) == [derived]
    regions = {"background": 0, "all": [1, 2, 3], "one": [3]}
    with_regions = phantom.dataset_json | {"labels": regions, "regions_class_order": [1, 3]}
    properties = collect_properties(phantom.plans, "2d", with_regions, tmp_path)
    assert properties.lookalike_classes is None


def test_a_planned_value_that_does_not_follow_an_edit_by_hand_is_named(phantom: Any) -> None:
    name, properties = "SemiMeanTeacherTrainer", DatasetProperties(4, 20, 2, (24, 24), (32.0, 32.0))
    settings_class = trainer_classes()[name].settings_class
    planned = {"2d": {"initial_lr": 0.01, "steps_per_epoch": 99}}
    plans = {
        **phantom.plans,
        "semi": {**planned, "optimizer": "adam"},
        "semi_planned": {"given": {}, "semi": planned},
    }
    resolved = resolve_settings(settings_class, name, "2d", plans, properties)
    assert resolved.settings.initial_lr == 0.01
    assert resolved.reasons["initial_lr"] == f"{NOT_FOLLOWED} 0.0001"
    assert resolved.reasons["steps_per_epoch"].endswith("earlier data")


def test_a_reason_names_the_user_the_rule_or_the_earlier_data(phantom: Any) -> None:
    name, properties = "SemiMeanTeacherTrainer", DatasetProperties(4, 20, 2, (24, 24), (32.0, 32.0))
    settings_class = trainer_classes()[name].settings_class
    semi = {"2d": {"labelled_batch_size": 2, "steps_per_epoch": 99, "epochs": 7}}
    planned = {"2d": {"labelled_batch_size": 2, "steps_per_epoch": 99}}
    plans = {**phantom.plans, "semi": semi, "semi_planned": {"given": {}, "semi": planned}}
    resolved = resolve_settings(settings_class, name, "2d", plans, properties)
    assert resolved.settings.epochs == 7 and resolved.settings.steps_per_epoch == 99
    assert resolved.reasons["epochs"] == "given in plans['semi']['2d']"  # edited by hand
    assert resolved.user_given == {"epochs"}
    assert resolved.reasons["steps_per_epoch"].endswith("earlier data")
    assert resolved.reasons["labelled_batch_size"].startswith("batch size")
