"""Plans are read as nnU-Net reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.raw.plans import (
    is_plans_file,
    list_next_stages,
    read_plans,
    resolve_configuration,
)
from semi_nnunet.util.errors import UserError

PLANS: dict[str, Any] = {
    "configurations": {
        "3d_lowres": {"data_identifier": "low", "architecture": {}, "next_stage": "3d_cascade"},
        "3d_fullres": {"data_identifier": "full", "batch_size": 4, "architecture": {}},
        "3d_cascade": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "smaller": {"inherits_from": "3d_cascade", "batch_size": 1, "next_stage": ["a", "b"]},
    }
}


@pytest.mark.parametrize("name", PLANS["configurations"])
def test_configurations_are_resolved_as_by_nnunet(name: str) -> None:
    stock = PlansManager(PLANS).get_configuration(name)
    ours = resolve_configuration(PLANS, name)
    assert ours is not None
    assert ours == {k: v for k, v in stock.configuration.items() if k != "inherits_from"}
    assert list_next_stages(ours) == (stock.next_stage_names or [])
    assert ours.get("previous_stage") == stock.previous_stage_name


def test_a_missing_configuration_is_none() -> None:
    assert resolve_configuration(PLANS, "2d") is None


@pytest.mark.parametrize("parent", ["itself", "nobody"])
def test_circular_and_dangling_inheritance_are_refused(parent: str) -> None:
    plans = {"configurations": {"itself": {"inherits_from": parent}}}
    with pytest.raises(UserError, match=f"inherits from {parent}, which"):
        resolve_configuration(plans, "itself")


def test_plans_with_other_names_inside_are_refused(tmp_path: Path) -> None:
    inside = {"plans_name": "nnUNetPlans_cpu", "dataset_name": "Dataset010_Base"}
    folder = tmp_path / "Dataset011_Copy"
    folder.mkdir()
    (folder / "mine.json").write_text(json.dumps(inside))
    with pytest.raises(UserError) as refused:
        read_plans(folder, "mine")
    names, dataset = refused.value.problems
    assert names.what == "'plans_name' must be 'mine', got 'nnUNetPlans_cpu'"
    assert names.fix == 'write "plans_name": "mine" into it'
    assert dataset.what == "'dataset_name' must be 'Dataset011_Copy', got 'Dataset010_Base'"


def test_missing_plans_are_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"Fix: semi_nnunet preprocess -d {tmp_path.name} first"):
        read_plans(tmp_path, "nnUNetPlans")
    (tmp_path / "nnUNetPlans.json").write_text('{"plans_name": "nnUNetPlans"}')
    (tmp_path / "splits_final.json").write_text("[]")
    assert read_plans(tmp_path, "nnUNetPlans") == {"plans_name": "nnUNetPlans"}
    assert not is_plans_file(tmp_path / "splits_final.json")
    with pytest.raises(UserError, match=r"Plan.json does not exist. Fix: choose -p from nnUNetPl"):
        read_plans(tmp_path, "nnUNetPlan")
    with pytest.raises(UserError, match=r"splits_final.json holds no plans. Fix: .* nnUNetPlans$"):
        read_plans(tmp_path, "splits_final")
