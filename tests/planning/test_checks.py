"""What is asked of ``semi_nnunet plan`` is checked before anything is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.planning.architecture import ADAPTER_MODULE
from semi_nnunet.planning.checks import (
    device_of,
    ready_configurations,
    require_own_network,
    require_plans_name,
    weights_of,
)
from semi_nnunet.util.errors import UserError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dataset", "dataset.json is another file of the data set"),
        ("splits_final", "splits_final.json is another file"),
        ("semi_skipped", "semi_skipped.json is another file"),
        ("a__b", "must have no '__'"),
        ("a_", "no '_' at its end"),
        ("a/b", "no path separators; got 'a/b'"),
        ("a\\b", "no path separators"),
    ],
)
def test_names_that_new_plans_cannot_have_are_refused(name: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        require_plans_name(name)
    assert says in str(caught.value) and "Fix: choose another" in str(caught.value)


def test_usual_names_are_fine() -> None:
    for name in ("nnUNetPlans", "nnUNetPlans_seed1", "nnUNetPlans_0p5", "a_b_c"):
        require_plans_name(name)


def test_plans_of_another_network_are_no_place_to_start_from(phantom: Any) -> None:
    plans = phantom.plans
    require_own_network(plans, "nnUNetPlans")
    plans["configurations"]["second_stage"] = {"inherits_from": "3d_fullres"}
    require_own_network(plans, "nnUNetPlans")
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = f"{ADAPTER_MODULE}.SmpNetwork"
    with pytest.raises(
        UserError, match=r"3d_fullres of P has the network SmpNetwork already\. Fix"
    ):
        require_own_network(plans, "P")


def test_weights_are_a_word_or_a_file_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_of("none") is None and weights_of("imagenet") == "imagenet"
    (tmp_path / "encoder.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert weights_of("encoder.pth") == str(tmp_path / "encoder.pth")  # wherever it is trained
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_of("~/encoder.pth") == str(tmp_path / "encoder.pth")
    for wrong in ("nowhere.pth", str(tmp_path)):
        with pytest.raises(UserError, match=r"does not exist\. Fix: correct the path, or imagenet"):
            weights_of(wrong)


def test_a_device_that_is_not_there_is_named() -> None:
    assert device_of("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name} cannot be used .*Fix: --device cpu"):
            device_of(name)


def test_ready_is_what_has_its_preprocessed_data(phantom: Any, tmp_path: Path) -> None:
    plans = phantom.plans
    plans["configurations"]["second_stage"] = {"inherits_from": "2d", "batch_size": 3}
    assert ready_configurations(plans, phantom.preprocessed) == ["2d", "3d_fullres", "second_stage"]
    plans["configurations"]["2d"]["data_identifier"] = "coarser"
    assert ready_configurations(plans, phantom.preprocessed) == ["3d_fullres"]
    assert ready_configurations(plans, tmp_path) == []
