"""A checkpoint beside plans of another training is named before anything is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semi_nnunet.deploy.fitting import told_configuration, unfit
from semi_nnunet.util.errors import UserError

PLANS = {"configurations": {"2d": {}}}


def test_weights_of_another_network_are_named_with_their_file() -> None:
    network = nn.Linear(3, 2)
    fine = dict(network.state_dict())
    others: dict[str, dict[str, Any]] = {
        "shape": {**fine, "bias": torch.zeros(3)},
        "absent": {"bias": fine["bias"]},
        "more": {**fine, "scale": torch.zeros(1)},
        "none": {},
    }
    assert list(unfit([Path("fine")], [fine], network)) == []
    found = list(unfit(map(Path, ["fine", *others]), [fine, *others.values()], network))
    assert [one.where for one in found] == list(others)
    assert "got 'bias' of shape (3,), not (2,)" in found[0].what


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ({}, "got none named None"),
        ({"init_args": {"configuration": ["2d"]}}, "must have the configuration"),
        ({"init_args": {"configuration": "3d_fullres"}}, "got none named '3d_fullres'"),
        ({"init_args": {"configuration": "2d"}}, "must name its trainer"),
    ],
)
def test_a_checkpoint_of_no_configuration_or_trainer_is_named(
    checkpoint: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=f"{says}.*Fix: "):
        told_configuration(checkpoint, PLANS, "a model")


def test_what_fits_is_taken() -> None:
    told = {"init_args": {"configuration": "2d"}, "trainer_name": "nnUNetTrainer"}
    assert told_configuration(told, PLANS, "a model") == "2d"
