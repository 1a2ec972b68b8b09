"""Existing plans are used only if they fit the data set and nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.preprocessing.planning import (
    fingerprint_fits,
    get_default_plans_name,
    read_existing_plans,
)
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.data.copied import Copy


def problems_of(phantom: Any, folder: Path, plans: Any) -> list[str]:
    """Problems of plans for the phantom."""
    path = folder / "nnUNetPlans.json"
    write_json(path, plans)
    with pytest.raises(UserError) as error:
        read_existing_plans(path, RawDataset.of(phantom.raw))
    assert all(problem.where == "nnUNetPlans.json" for problem in error.value.problems)
    assert all("-d 901, which plans again" in problem.fix for problem in error.value.problems)
    return [problem.what for problem in error.value.problems]


def test_fitting_plans_are_used_and_missing_ones_are_empty(phantom: Any, tmp_path: Path) -> None:
    raw = RawDataset.of(phantom.raw)
    assert read_existing_plans(phantom.preprocessed / "nnUNetPlans.json", raw) == phantom.plans
    assert read_existing_plans(tmp_path / "nnUNetPlans.json", raw) == {}


def test_plans_of_a_cascade_are_used(prepared_cascade: Any) -> None:
    dataset = prepared_cascade()
    path = dataset.preprocessed / "nnUNetPlans.json"
    assert read_existing_plans(path, RawDataset.of(dataset.raw)) == dataset.plans


def test_plans_with_a_key_of_nnunet_2_0_are_used(phantom: Any, tmp_path: Path) -> None:
    plans = dict(phantom.plans)
    new = "foreground_intensity_properties_per_channel"
    plans[new.replace("per_channel", "by_modality")] = plans.pop(new)
    write_json(tmp_path / "nnUNetPlans.json", plans)
    assert read_existing_plans(tmp_path / "nnUNetPlans.json", RawDataset.of(phantom.raw)) == plans


@pytest.mark.parametrize(
    ("plans", "says"), [([], "an object, got list"), ({}, "lacks dataset_name, plans_name")]
)
def test_plans_that_no_planner_wrote_are_refused(
    phantom: Any, tmp_path: Path, plans: Any, says: str
) -> None:
    (what,) = problems_of(phantom, tmp_path, plans)
    assert says in what


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_every_difference_is_named(phantom: Any, tmp_path: Path) -> None:
    plans = phantom.plans | {"dataset_name": "Dataset002_Other", "image_reader_writer": "NewIO"}
    stages = plans["configurations"]
    del stages["2d"]["architecture"]
    stages["3d_fullres"]["normalization_schemes"] *= 2
    dataset, reader, old, channels = problems_of(phantom, tmp_path, plans)
    assert "Dataset901_Phantom" in dataset and dataset.endswith("Dataset002_Other")
    assert "reader" in reader and "got 'NewIO'" in reader
    assert "configuration 2d" in old and "(KeyError: 'UNet_class_name')" in old
    assert "1 channels" in channels and channels.endswith("got 2")


@pytest.mark.parametrize(
    "entry",
    [
        {"patient": ".+"},
        {"unlabelled_domain": "other"},
        {"lesions": ["any", 0.5]},
        {"one_piece": True},
    ],
)
def test_a_key_that_no_plan_depends_on_needs_no_new_plans(copy: Copy, entry: Any) -> None:
    path = copy.raw / "dataset.json"
    write_json(path, {**read_json(path), **entry})
    assert fingerprint_fits(copy.raw, copy.preprocessed)


def test_a_fingerprint_fits_while_the_labelled_cases_are_the_same(copy: Copy) -> None:
    assert fingerprint_fits(copy.raw, copy.preprocessed)
    image = sorted((copy.raw / "imagesTr").iterdir())[0]
    image.rename(image.with_name(f"another_{image.name}"))  # the number stays
    assert not fingerprint_fits(copy.raw, copy.preprocessed)


def test_a_planner_has_its_own_plans_name() -> None:
    assert get_default_plans_name("ExperimentPlanner") == "nnUNetPlans"
    assert get_default_plans_name("nnUNetPlannerResEncM") == "nnUNetResEncUNetMPlans"
    with pytest.raises(UserError, match="no planner 'Nobody'"):
        get_default_plans_name("Nobody")


def test_plans_copied_by_hand_are_refused(phantom: Any, tmp_path: Path) -> None:
    (what,) = problems_of(phantom, tmp_path, {**phantom.plans, "plans_name": "nnUNetPlans_cpu"})
    assert what == "'plans_name' must be 'nnUNetPlans', got 'nnUNetPlans_cpu'"
