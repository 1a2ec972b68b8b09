"""Checks of the options of ``semi_nnunet plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.planning.architecture import ADAPTER_MODULE
from semi_nnunet.planning.checks import (
    list_preprocessed_configurations,
    parse_device,
    parse_encoder_weights,
    require_own_network,
    require_plans_name,
)
from semi_nnunet.util.errors import UserError


@pytest.mark.parametrize(
    ("name", "key_word"),
    [
        ("dataset", "dataset.json"),
        ("splits_final", "splits_final.json"),
        ("semi_skipped", "semi_skipped.json"),
        ("a__b", "'a__b'"),
        ("a_", "'a_'"),
        ("a/b", "separators"),
        ("a\\b", "separators"),
    ],
)
def test_invalid_names_of_plans_are_refused(name: str, key_word: str) -> None:
    with pytest.raises(UserError, match="--new-plans") as caught:
        require_plans_name(name)
    assert key_word in caught.value.what and caught.value.fix


def test_usual_names_are_accepted() -> None:
    for name in ("nnUNetPlans", "nnUNetPlans_seed1", "nnUNetPlans_0p5", "a_b_c"):
        require_plans_name(name)


def test_plans_must_start_from_nnunets_network(phantom: Any) -> None:
    plans = phantom.plans
    require_own_network(plans, "nnUNetPlans")
    plans["configurations"]["second_stage"] = {"inherits_from": "3d_fullres"}
    require_own_network(plans, "nnUNetPlans")
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = f"{ADAPTER_MODULE}.SmpNetwork"
    with pytest.raises(UserError, match="SmpNetwork"):
        require_own_network(plans, "P")


def test_weights_are_a_word_or_an_existing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_encoder_weights("none") is None and parse_encoder_weights("imagenet") == "imagenet"
    (tmp_path / "encoder.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert parse_encoder_weights("encoder.pth") == str(tmp_path / "encoder.pth")  # absolute
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_encoder_weights("~/encoder.pth") == str(tmp_path / "encoder.pth")
    for name in ("nowhere.pth", str(tmp_path)):
        with pytest.raises(UserError, match="does not exist"):
            parse_encoder_weights(name)


def test_a_missing_device_is_reported() -> None:
    assert parse_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name}"):
            parse_device(name)


def test_preprocessed_configurations_have_their_data(phantom: Any, tmp_path: Path) -> None:
    plans = phantom.plans
    plans["configurations"]["second_stage"] = {"inherits_from": "2d", "batch_size": 3}
    assert list_preprocessed_configurations(plans, phantom.preprocessed) == [
        "2d",
        "3d_fullres",
        "second_stage",
    ]
    plans["configurations"]["2d"]["data_identifier"] = "coarser"
    assert list_preprocessed_configurations(plans, phantom.preprocessed) == ["3d_fullres"]
    assert list_preprocessed_configurations(plans, tmp_path) == []
