"""A packed model predicts like the trained one and holds nothing of its training."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch

from semi_nnunet.challenge.packed_model import find_portable_trainer, open_model, pack_model
from semi_nnunet.deploy.loading import load_networks
from semi_nnunet.deploy.mirrors import MirrorChoice
from semi_nnunet.deploy.trained import find_model, select_folds
from semi_nnunet.inference.predict import predict_images
from semi_nnunet.raw.layout import DATASET_JSON, FINAL_CHECKPOINT
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.deploy.test_trained import add_gift
from tests.pseudo_labels.labelling import read


def strings(value):
    """Every string in nested plain values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (*strings(key), *strings(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_a_packed_model_holds_nothing_of_the_training(pool, tmp_path):
    model = pool.models[0]
    description = model.dataset_json | {"training": [{"image": "/home/somebody/imagesTr/a.nii.gz"}]}
    write_json(model.folder / "dataset.json", description)
    packed = pack_model(model, tmp_path / "packed")
    files = [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == [
        "checkpoint_final.pth", "dataset.json", "plans.json",
    ]  # fmt: skip
    for path in files:
        is_json = path.suffix == ".json"
        content = json.loads(path.read_text()) if is_json else torch.load(path, weights_only=True)
        assert not [text for text in strings(content) if "/" in text or str(tmp_path) in text]
        assert not {"semi", "optimizer_state", "logging", "training"} & {*content}
    whole = torch.load(model.folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert "optimizer_state" in whole  # which the packed one lacks
    assert packed.folder.name == "nnUNetTrainer__seed0__2d"
    assert packed.trained_by == "SemiBaselineTrainer" and packed.checksums == model.checksums()


def test_the_packed_model_has_the_weights_of_the_trained_one(pool, tmp_path):
    packed = pack_model(pool.models[0], tmp_path)
    ours, trained = (
        load_networks([found_model])
        for found_model in (find_model(str(packed.folder)), pool.models[0])
    )
    assert len(ours) == len(trained) == 1
    for key, value in trained[0].state_dict().items():
        assert torch.equal(ours[0].state_dict()[key], value)


def test_the_mirrored_axes_that_were_chosen_are_packed(pool, tmp_path):
    model = pool.models[0]
    whole = torch.load(
        pack_model(model, tmp_path / "whole").folder / "fold_0" / FINAL_CHECKPOINT,
        weights_only=True,
    )
    assert tuple(whole["inference_allowed_mirroring_axes"]) == (0, 1)
    for axes, expected in (((1,), (1,)), ((), None)):
        MirrorChoice(axes, (), ("0",), 1, 0.001, model.checksums()).write(model.folder)
        folder = pack_model(model, tmp_path / f"axes{len(axes)}").folder
        packed = torch.load(folder / "fold_0" / FINAL_CHECKPOINT, weights_only=True)
        assert packed["inference_allowed_mirroring_axes"] == expected
        assert not (folder / "semi_mirrors.json").exists()
    folder = pack_model(model, tmp_path / "exact", exact=True).folder
    packed = torch.load(folder / "fold_0" / FINAL_CHECKPOINT, weights_only=True)
    assert tuple(packed["inference_allowed_mirroring_axes"]) == (0, 1)


def test_packed_models_know_that_the_foreground_is_one_piece(pool, tmp_path):
    model = pool.models[0]
    write_json(path := model.folder / DATASET_JSON, {**read_json(path), "one_piece": True})
    alike, exact = (
        pack_model(model, tmp_path / name, exact=name == "exact").folder
        for name in ("alike", "exact")
    )
    assert read_json(alike / path.name)["one_piece"]
    assert "one_piece" not in read_json(exact / path.name)


def test_a_cascade_is_packed_with_its_first_stage(cascade, tmp_path):
    second = cascade.models[0]
    for path in sorted(cascade.images.iterdir())[1:]:
        path.unlink()
    packed = pack_model(second, tmp_path / "packed")
    assert find_model(str(packed.folder)).previous is not None
    ours, theirs = (
        predict_images(model_folder, cascade.images, tmp_path / out, speed="fast", device="cpu")
        for model_folder, out in ((packed.folder, "ours"), (second.folder, "theirs"))
    )
    assert np.array_equal(read(ours[0]), read(theirs[0]))


def test_networks_that_are_averaged_become_folds(pool, tmp_path):
    path = pool.models[0].folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["semi"]["averaged_with"] = [
        {key: value + 1 for key, value in content["network_weights"].items()}
    ]
    torch.save(content, path)
    packed = find_model(str(pack_model(pool.models[0], tmp_path / "packed").folder))
    assert packed.folds == ("0", "1")
    first, second = (next(network.parameters()) for network in load_networks([packed]))
    assert torch.equal(first + 1, second)
    ours = [next(network.parameters()) for network in load_networks([pool.models[0]])]
    assert torch.equal(ours[0], first) and torch.equal(ours[1], second)  # without packing, too


def test_a_zip_of_export_is_opened_aside(pool, tmp_path, monkeypatch):
    packed = pack_model(pool.models[0], tmp_path / "zipped" / "Dataset042_Phantom")
    archive = tmp_path / "exported.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in packed.folder.rglob("*"):
            if path.is_file():
                file.write(path, path.relative_to(tmp_path / "zipped"))
    with open_model(archive, None) as model:
        assert model.folds == ("0",) and model.folder != packed.folder
        inside = pack_model(model, tmp_path / "again")
    assert not model.folder.exists() and inside.folder.is_dir()


def test_hostile_damaged_and_missing_models_are_refused(pool, tmp_path):
    first, second = pool.models
    with pytest.raises(UserError, match=r"fold 3: .*checkpoint_final.pth"):
        select_folds(first, ["0", "3"])
    trace = tmp_path / "executed"
    add_gift(first.folder / "fold_0" / "checkpoint_final.pth", trace)
    with pytest.raises(UserError, match="can execute code"):
        pack_model(first, tmp_path / "packed")
    assert not trace.exists()
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="complete zip"), open_model(broken, None):
        pass
    shutil.rmtree(second.folder)
    with pytest.raises(UserError, match="no trained model"), open_model(second.folder, None):
        pass


def test_a_file_ending_cannot_inject_code_into_the_scripts(pool, tmp_path):
    folder = pool.models[0].folder
    description = read_json(folder / "dataset.json")
    for ending in (".nii.gz\nrm -rf /", "", ".nii gz", "$(id)"):
        write_json(folder / "dataset.json", {**description, "file_ending": ending})
        with pytest.raises(UserError, match="file_ending"):
            pack_model(find_model(str(folder)), tmp_path / "packed")


def test_a_network_of_a_local_trainer_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class MineTrainer(nnUNetTrainer):\n"
        "    @staticmethod\n    def build_network_architecture(*words): return None\n"
        "class LikeStockTrainer(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(UserError, match="MineTrainer"):
        find_portable_trainer({"trainer_name": "MineTrainer"})
    assert find_portable_trainer({"trainer_name": "LikeStockTrainer"}) == "nnUNetTrainer"
    assert find_portable_trainer({"trainer_name": "nnUNetTrainerBN"}) == "nnUNetTrainerBN"
