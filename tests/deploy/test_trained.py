"""Models are found by their folder, compared before they work together, and read, never run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.trained import find_model, find_models, load, load_networks
from semi_nnunet.util import files
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.trainers import save_as_trained, weights_of

CPU = torch.device("cpu")


class Gift:
    """Makes a folder as soon as it is unpickled without care."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def model(make_trainer) -> Path:
    """TRAINER__PLANS__CONFIGURATION of a CPS training with folds 0 and all, of other weights."""
    for fold in (0, "all"):
        trainer = make_trainer("SemiCPSTrainer", fold=fold, start=False, seed=int(fold == 0))
        trainer.initialize()
        folder = save_as_trained(trainer)
    return folder


def give(checkpoint: Path, trace: Path) -> None:
    """Add an object to a whole checkpoint that runs code when a stock loader opens it."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "gift": Gift(trace)}, checkpoint)


def test_the_fold_of_all_cases_is_left_out_beside_others(model: Path) -> None:
    assert find_model(str(model)).folds == ("0",)
    assert find_model(str(model / "fold_all")).folds == ("all",)


def test_a_model_is_found_below_nnunets_results(model: Path) -> None:
    relative = f"{model.parent.name}/{model.name}"
    assert find_model(relative).folder == model


def test_the_number_of_a_data_set_stands_for_its_name(model: Path) -> None:
    number = int(model.parent.name[7:10])
    assert find_model(f"{number}/{model.name}") == find_model(f"{model.parent.name}/{model.name}")
    with pytest.raises(UserError, match="exactly one data set must have the number 998"):
        find_model(f"998/{model.name}")


def test_an_absent_model_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for plans\.json.*absent and .*Fix: give a folder"):
        find_model("absent")


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


@pytest.mark.parametrize("verb", ["pseudo-label", "distil", "select"])
def test_no_verb_executes_a_model(
    verb: str, model: Path, tmp_path: Path, prepared_dataset, capsys
) -> None:
    trace, dataset = tmp_path / "executed", prepared_dataset("labels", 1)
    give(model / "fold_0" / "checkpoint_final.pth", trace)
    words = {
        "pseudo-label": ["-i", str(dataset.raw / "imagesUn"), "-o", str(tmp_path / "out"), "-m"],
        "distil": ["-d", dataset.number, "-o", "988", "--base"],
        "select": ["-d", dataset.number, "-m"],
    }[verb]
    device = ["--device", "cpu"]
    assert main([verb, *map(str, words), str(model), *device]) != 0
    said = capsys.readouterr()
    assert "can execute code" in said.err + said.out
    assert not trace.exists()


def test_models_of_other_labels_do_not_label_together(model: Path) -> None:
    other = model.with_name(model.name.replace("SemiCPSTrainer", "Other"))
    (other / "fold_0").mkdir(parents=True)
    (other / "fold_0" / "checkpoint_final.pth").touch()
    (other / "plans.json").write_bytes((model / "plans.json").read_bytes())
    description = json.loads((model / "dataset.json").read_text())
    description["labels"] = {"background": 0, "spleen": 1}
    description["file_ending"] = ".mha"
    write_json(other / "dataset.json", description)
    with pytest.raises(UserError) as refused:
        find_models([str(model), str(other)])
    said = [problem.what for problem in refused.value.problems]
    assert len(said) == 2 and "must have the labels of" in said[0] and ".mha" in said[1]


def test_a_checkpoint_is_hashed_once_until_it_changes(model: Path, monkeypatch) -> None:
    hashed, whole = list[str](), files.sha256_of_file

    def counted(path: str | Path) -> str:
        hashed.append(Path(path).name)
        return whole(path)

    monkeypatch.setattr(files, "sha256_of_file", counted)
    before = find_model(str(model)).record()
    assert find_models([str(model)])[0].record() == before and len(hashed) == 1
    assert before["folds"] == {"0": whole(model / "fold_0" / "checkpoint_final.pth")}
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    content = {**torch.load(checkpoint, weights_only=True), "more": 1}
    files.write_atomically(checkpoint, lambda aside: torch.save(content, aside))
    assert find_model(str(model)).record() != before and len(hashed) == 2
