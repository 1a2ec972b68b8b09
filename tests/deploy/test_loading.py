"""Networks of trained models, and nnU-Net's predictor of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.deploy.loading import load, load_networks
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.util.errors import UserError
from tests.deploy.test_trained import give
from tests.trainers import weights_of

CPU = torch.device("cpu")


def test_the_logits_are_those_of_nnunets_own_predictor(model: Path, monkeypatch) -> None:
    ours = load(find_model(str(model)), mirror=True, device=CPU)
    stock = nnUNetPredictor(use_mirroring=True, device=CPU, allow_tqdm=False)
    from semi_nnunet.discovery.register import TRAINERS_FOLDER

    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    stock.initialize_from_trained_model_folder(str(model), ("0",), "checkpoint_final.pth")
    image = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    first, second = (one.predict_logits_from_preprocessed_data(image) for one in (ours, stock))
    assert torch.equal(first, second)


def test_every_fold_is_a_network_of_its_own(model: Path) -> None:
    one, other = (find_model(str(model / f"fold_{fold}")) for fold in ("0", "all"))
    networks = [weights_of(network) for network in load_networks([one, other])]
    contents = [
        torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)
        for fold in ("0", "all")
    ]
    for found, content in zip(networks, contents, strict=True):
        for name, value in content["network_weights"].items():
            assert torch.equal(found[name], value)
    assert any(not torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_a_model_of_a_stranger_is_refused_and_not_executed(model: Path, tmp_path: Path) -> None:
    path, trace = model / "fold_0" / "checkpoint_final.pth", tmp_path / "executed"
    give(path, trace)
    with pytest.raises(UserError, match="can execute code"):
        load_networks([find_model(str(model))])
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # a stock loader does execute it


def test_a_fold_of_another_network_is_named(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["network_weights"].popitem()
    torch.save(content, path)
    with pytest.raises(UserError, match=r"fold_0.*must hold the weights of the network"):
        load_networks([find_model(str(model / "fold_0"))])
