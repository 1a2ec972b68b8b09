"""Configurations of plans are read as nnU-Net reads them."""

from __future__ import annotations

from typing import Any

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.configurations import configuration_of, next_stages
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
def test_they_are_what_nnunet_makes_of_them(name: str) -> None:
    stock = PlansManager(PLANS).get_configuration(name)
    ours = configuration_of(PLANS, name)
    assert ours is not None
    assert ours == {k: v for k, v in stock.configuration.items() if k != "inherits_from"}
    assert next_stages(ours) == (stock.next_stage_names or [])
    assert ours.get("previous_stage") == stock.previous_stage_name


def test_one_that_is_not_there_is_none() -> None:
    assert configuration_of(PLANS, "2d") is None


@pytest.mark.parametrize("parent", ["itself", "nobody"])
def test_a_chain_that_has_no_end_is_refused(parent: str) -> None:
    plans = {"configurations": {"itself": {"inherits_from": parent}}}
    with pytest.raises(UserError, match=f"configuration itself inherits from {parent}, which"):
        configuration_of(plans, "itself")
