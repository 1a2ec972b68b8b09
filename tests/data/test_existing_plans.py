"""Plans that are there are used only if they are of this data set and this nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.data.existing_plans import default_plans_name, fingerprint_fits, plans_there
from semi_nnunet.data.raw_description import RawDataset
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.data.copied import Copy


def refused(phantom: Any, folder: Path, plans: Any) -> list[str]:
    """What is said of plans of the phantom."""
    path = folder / "nnUNetPlans.json"
    write_json(path, plans)
    with pytest.raises(UserError) as error:
        plans_there(path, RawDataset.of(phantom.raw))
    assert all(problem.where == "nnUNetPlans.json" for problem in error.value.problems)
    assert all("preprocess -d 901 plans anew" in problem.fix for problem in error.value.problems)
    return [problem.what for problem in error.value.problems]


def test_plans_of_the_data_set_are_taken_and_absent_ones_are_none(
    phantom: Any, tmp_path: Path
) -> None:
    raw = RawDataset.of(phantom.raw)
    assert plans_there(phantom.preprocessed / "nnUNetPlans.json", raw) == phantom.plans
    assert plans_there(tmp_path / "nnUNetPlans.json", raw) == {}


def test_a_cascade_and_configurations_that_inherit_are_taken(prepared_cascade: Any) -> None:
    dataset = prepared_cascade()
    path = dataset.preprocessed / "nnUNetPlans.json"
    assert plans_there(path, RawDataset.of(dataset.raw)) == dataset.plans


def test_plans_with_a_name_of_nnunet_2_0_are_taken(phantom: Any, tmp_path: Path) -> None:
    plans = dict(phantom.plans)
    new = "foreground_intensity_properties_per_channel"
    plans[new.replace("per_channel", "by_modality")] = plans.pop(new)
    write_json(tmp_path / "nnUNetPlans.json", plans)
    assert plans_there(tmp_path / "nnUNetPlans.json", RawDataset.of(phantom.raw)) == plans


@pytest.mark.parametrize(
    ("plans", "says"), [([], "must be an object, got list"), ({}, "lacks dataset_name, plans_name")]
)
def test_what_no_planner_wrote_is_named(
    phantom: Any, tmp_path: Path, plans: Any, says: str
) -> None:
    (what,) = refused(phantom, tmp_path, plans)
    assert says in what


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_all_that_differs_is_named(phantom: Any, tmp_path: Path) -> None:
    plans = phantom.plans | {"dataset_name": "Dataset002_Other", "image_reader_writer": "NewIO"}
    stages = plans["configurations"]
    del stages["2d"]["architecture"]
    stages["3d_fullres"]["normalization_schemes"] *= 2
    dataset, reader, old, channels = refused(phantom, tmp_path, plans)
    assert dataset == "must be of Dataset901_Phantom, got plans of Dataset002_Other"
    assert reader.startswith("must name a reader of this nnU-Net, got 'NewIO'")
    assert "configuration 2d is none of this nnU-Net (KeyError: 'UNet_class_name')" in old
    assert channels.endswith("of the 1 channels that dataset.json declares, got 2")


def test_a_fingerprint_fits_as_long_as_the_labelled_cases_are_the_same(copy: Copy) -> None:
    assert fingerprint_fits(copy.raw, copy.preprocessed)
    image = sorted((copy.raw / "imagesTr").iterdir())[0]
    image.rename(image.with_name(f"another_{image.name}"))  # the number stays
    assert not fingerprint_fits(copy.raw, copy.preprocessed)


def test_a_planner_has_its_own_plans_name() -> None:
    assert default_plans_name("ExperimentPlanner") == "nnUNetPlans"
    assert default_plans_name("nnUNetPlannerResEncM") == "nnUNetResEncUNetMPlans"
    with pytest.raises(UserError, match="no planner 'Nobody'"):
        default_plans_name("Nobody")
