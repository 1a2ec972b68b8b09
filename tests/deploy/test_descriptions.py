"""JSON files of models are checked: they can only name trusted networks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from semi_nnunet.deploy import descriptions
from semi_nnunet.deploy.descriptions import (
    LAYERS,
    NETWORKS,
    find_unknown_networks,
    is_network_code,
    read_model_json,
)
from semi_nnunet.deploy.loading import load_model, load_networks
from semi_nnunet.deploy.trained import TrainedModel, find_model, require_readable
from semi_nnunet.planning.architecture import replace_architecture
from semi_nnunet.training.checkpoints import EXECUTE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.trainers import save_as_trained

UNET = "dynamic_network_architectures.architectures.unet"


def make_hostile_architecture(folder: Path) -> dict[str, Any]:
    """An architecture that makes nnU-Net execute a file of the folder, which leaves a trace."""
    (folder / "hubconf.py").write_text(
        f"import pathlib\npathlib.Path({str(folder / 'executed')!r}).touch()\n"
        f"import torch\ndef gift(**others): return torch.nn.Identity()\n"
    )
    kwargs = {"repo_or_dir": str(folder), "model": "gift", "source": "local"}
    return {
        "network_class_name": "torch.hub.load",
        "arch_kwargs": kwargs,
        "_kw_requires_import": [],
    }


def test_stock_nnunet_executes_the_hostile_architecture(tmp_path: Path) -> None:
    """If this fails, nnU-Net has mended it, and our check may go."""
    architecture = make_hostile_architecture(tmp_path)
    get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"], [], 1, 2
    )
    assert (tmp_path / "executed").exists()


@pytest.fixture
def model(make_trainer: Any) -> Path:
    trainer = make_trainer("SemiCPSTrainer", start=False)
    trainer.initialize()
    return save_as_trained(trainer)


def test_a_model_that_names_untrusted_code_is_not_opened(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load_networks([find_model(str(model))])) == 1
    plans = read_json(model / "plans.json")
    plans["configurations"]["2d"]["architecture"] = make_hostile_architecture(tmp_path)
    write_json(model / "plans.json", plans)
    trained = TrainedModel(model, ("0",))
    for load in (
        lambda: find_model(str(model)),
        lambda: load_model(trained),
        lambda: require_readable([trained]),
    ):
        with pytest.raises(UserError, match=r"2d names .torch\.hub\.load"):
            load()
    assert not (tmp_path / "executed").exists()
    monkeypatch.setenv(EXECUTE, "1")  # who trusts the author
    require_readable([find_model(str(model))])


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        (f"{UNET}.PlainConvUNet", True),
        ("semi_nnunet.networks.adapters.SmpNetwork", True),
        (f"{UNET}.torch.hub.load", False),
        (f"{UNET}.nn.Linear", False),
        (f"{UNET}", False),
        ("dynamic_network_architectures", False),
        ("nnunetv2.nothing.There", False),
        ("nnunetv2evil.Network", False),
        ("os.system", False),
        ("", False),
        (None, False),
        (["torch.nn.Conv2d"], False),
    ],
)
def test_networks_are_classes_of_trusted_packages(name: Any, fine: bool) -> None:
    assert is_network_code(name, NETWORKS) is fine


def test_layers_may_come_from_torch() -> None:
    assert is_network_code("torch.nn.modules.conv.Conv3d", LAYERS)
    assert is_network_code("torch.nn.LeakyReLU", LAYERS)
    assert not is_network_code("torch.nn.functional.relu", LAYERS)
    assert not is_network_code("torch.hub.load", LAYERS)
    assert issubclass(nn.LeakyReLU, nn.Module)


@pytest.mark.parametrize("name", ["smp.Unet", "monai.SegResNet", "primus.S"])
def test_every_planned_network_is_trusted(name: str, prepared_dataset: Any) -> None:
    plans = prepared_dataset("labels", 1).plans
    for key, configuration in plans["configurations"].items():
        planned = replace_architecture(configuration, name, "resnet18", None)
        if planned is not None:
            plans["configurations"][key] = planned
    assert not list(find_unknown_networks(plans, "plans.json"))


@pytest.mark.parametrize(
    "architecture", [3, {}, {"network_class_name": f"{UNET}.PlainConvUNet", "arch_kwargs": {"a": 1},
                             "_kw_requires_import": ["a"]}]
)  # fmt: skip
def test_malformed_architectures_are_refused(architecture: Any) -> None:
    plans = {"configurations": {"2d": {"architecture": architecture}}}
    assert list(find_unknown_networks(plans, "plans.json"))
    assert list(find_unknown_networks({"configurations": [1]}, "plans.json"))


def test_an_untrusted_layer_is_reported(prepared_dataset: Any) -> None:
    plans = prepared_dataset("labels", 1).plans
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["conv_op"] = "os.system"
    (problem,) = find_unknown_networks(plans, "plans.json")
    assert "'os.system'" in problem.what and problem.where == "plans.json"


def test_json_files_must_be_small_flat_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plans.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UserError, match="too deeply"):
        read_model_json(path, None)
    path.write_text("[1]")
    with pytest.raises(UserError, match="plans_name"):
        read_model_json(path, ("plans_name",))
    monkeypatch.setattr(descriptions, "MAX_JSON", 2)
    with pytest.raises(UserError, match="at most 2 bytes, got 3"):
        read_model_json(path, None)
    os.mkfifo(pipe := path.with_name("pipe"))
    with pytest.raises(UserError, match="a file"):
        read_model_json(pipe, None)
