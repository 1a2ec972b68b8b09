"""Networks of trained models are loaded without executing code, and must fit their plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from semi_nnunet.deploy import loading
from semi_nnunet.deploy.loading import (
    find_unfit_checkpoints,
    load_model,
    load_networks,
    read_configuration_name,
)
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.deploy.test_trained import add_gift
from tests.trainers import weights_of

CPU = torch.device("cpu")
PLANS = {"configurations": {"2d": {}}}


def test_the_network_is_that_of_nnunets_own_predictor(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(find_model(str(model)))
    stock = nnUNetPredictor(use_mirroring=True, device=CPU, allow_tqdm=False)
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    stock.initialize_from_trained_model_folder(str(model), ("0",), "checkpoint_final.pth")
    stock.network.load_state_dict(stock.list_of_parameters[0])
    assert loaded.allowed_mirroring_axes == stock.allowed_mirroring_axes  # CPS: None
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(1, 1, *loaded.configuration_manager.patch_size, generator=generator)
    with torch.no_grad():
        assert torch.equal(loaded.network.eval()(tile), stock.network.eval()(tile))


def test_every_fold_is_a_network_of_its_own(model: Path) -> None:
    first, second = (find_model(str(model / f"fold_{fold}")) for fold in ("0", "all"))
    networks = [weights_of(network) for network in load_networks([first, second])]
    contents = [
        torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)
        for fold in ("0", "all")
    ]
    for weights, content in zip(networks, contents, strict=True):
        for name, value in content["network_weights"].items():
            assert torch.equal(weights[name], value)
    assert any(not torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_a_hostile_model_is_refused_and_not_executed(model: Path, tmp_path: Path) -> None:
    path, trace = model / "fold_0" / "checkpoint_final.pth", tmp_path / "executed"
    add_gift(path, trace)
    with pytest.raises(UserError, match="execute code"):
        load_networks([find_model(str(model))])
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # a stock loader does execute it


def test_a_fold_of_another_network_is_reported(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["network_weights"].popitem()
    torch.save(content, path)
    with pytest.raises(UserError) as error:
        load_networks([find_model(str(model / "fold_0"))])
    (problem,) = error.value.problems
    assert problem.where == str(path) and "weights" in problem.what


def test_weights_of_another_network_are_reported_with_their_file() -> None:
    network = nn.Linear(3, 2)
    fine = dict(network.state_dict())
    unfit: dict[str, dict[str, Any]] = {
        "shape": {**fine, "bias": torch.zeros(3)},
        "absent": {"bias": fine["bias"]},
        "more": {**fine, "scale": torch.zeros(1)},
        "none": {},
    }
    assert list(find_unfit_checkpoints([Path("fine")], [fine], network)) == []
    paths, weights = map(Path, ["fine", *unfit]), [fine, *unfit.values()]
    problems = list(find_unfit_checkpoints(paths, weights, network))
    assert [problem.where for problem in problems] == list(unfit)
    assert "'bias' of shape (3,), not (2,)" in problems[0].what


@pytest.mark.parametrize(
    ("checkpoint", "keyword"),
    [
        ({}, "None"),
        ({"init_args": {"configuration": ["2d"]}}, "configuration"),
        ({"init_args": {"configuration": "3d_fullres"}}, "'3d_fullres'"),
        ({"init_args": {"configuration": "2d"}}, "trainer"),
    ],
)
def test_a_checkpoint_without_configuration_or_trainer_is_refused(
    checkpoint: dict[str, Any], keyword: str
) -> None:
    with pytest.raises(UserError, match=keyword) as error:
        read_configuration_name(checkpoint, PLANS, "a model")
    assert error.value.fix


def test_the_configuration_of_a_checkpoint_is_read() -> None:
    checkpoint = {"init_args": {"configuration": "2d"}, "trainer_name": "nnUNetTrainer"}
    assert read_configuration_name(checkpoint, PLANS, "a model") == "2d"


@pytest.mark.parametrize("layers", [10**7, [10**7] * 3, [5000] * 5000, {"deep": [10**9]}])
def test_a_network_of_too_many_layers_is_refused_before_it_is_built(
    model: Path, layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "build_empty_network", lambda *_: pytest.fail("it was built"))
    plans = read_json(model / "plans.json")
    arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments["n_conv_per_stage"] = layers
    write_json(model / "plans.json", plans)
    with pytest.raises(UserError, match=r"n_conv_per_stage .*at most 10000"):
        load_model(find_model(str(model)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("strides", [[1, 1]]), ("features_per_stage", [-1, 8, 16]), ("n_stages", "three"),
     ("kernel_sizes", None), ("unheard_of", 1)],
)  # fmt: skip
def test_a_network_that_cannot_be_built_is_named(model: Path, key: str, value: Any) -> None:
    plans = read_json(model / "plans.json")
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"][key] = value
    write_json(model / "plans.json", plans)
    with pytest.raises(UserError, match=r"plans\.json must describe"):
        load_model(find_model(str(model)))
