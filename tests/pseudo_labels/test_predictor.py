"""Models predict like nnU-Net, one or several; those that do not fit are refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from semi_nnunet.deploy.trained import find_model, find_models
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.pseudo_labels.labelling import CPU, label, predict_with_nnunet, read


@pytest.mark.parametrize("mirror", [False, True])
def test_one_model_labels_as_nnunet_predicts(pool, tmp_path, mirror):
    views = ("flips",) if mirror else ()
    label(LabellingRequest(pool.images, pool.out, (pool.names[0],), views))
    predict_with_nnunet(pool.models[0], pool.images, tmp_path / "nnunet", mirror)
    names = sorted(path.name for path in (tmp_path / "nnunet").glob("*.nii.gz"))
    assert names == sorted(path.name for path in (pool.out / "labels").iterdir())
    values = set()
    for name in names:
        ours = read(pool.out / "labels" / name)
        assert np.array_equal(ours, read(tmp_path / "nnunet" / name))
        values |= set(np.unique(ours))
    assert len(values) > 1  # the models see something


def test_several_models_are_nnunets_ensemble_and_one_with_itself_is_that_one(pool, tmp_path):
    label(LabellingRequest(pool.images, pool.out, tuple(pool.names), npz=True))
    for number, model in enumerate(pool.models):
        predict_with_nnunet(model, pool.images, tmp_path / f"of_{number}", False, npz=True)
    ensemble_folders(
        [str(tmp_path / f"of_{number}") for number in range(2)], str(tmp_path / "both"),
        num_processes=1, dataset_json_file_or_dict=pool.models[0].dataset_json,
        plans_json_file_or_dict=pool.models[0].plans,
    )  # fmt: skip
    label(LabellingRequest(pool.images, tmp_path / "twice", (pool.names[0],) * 2))
    for path in (tmp_path / "both").glob("*.nii.gz"):
        assert np.array_equal(read(pool.out / "labels" / path.name), read(path))
        alone = read(tmp_path / "of_0" / path.name)
        assert np.array_equal(read(tmp_path / "twice" / "labels" / path.name), alone)
        probabilities = np.load(pool.out / "labels" / f"{path.name[:-7]}.npz")["probabilities"]
        assert probabilities.dtype == np.float16 and np.allclose(probabilities.sum(0), 1, atol=0.01)
    entries = (
        LabellingRequest(pool.images, tmp_path / "twice", (pool.names[0],) * 2).done().values()
    )
    assert all(entry.facts["uncertainty"]["disagreement"] in (0.0, 1.0) for entry in entries)


def stock_model(pool, configuration: str):
    """A model of nnU-Net's own trainer, whose network sees something."""
    model = pool.models[0]
    plans = {**model.plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, configuration, 0, model.dataset_json, CPU)
    trainer.initialize()
    for parameter in trainer.network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for name in ("plans", "dataset"):
        shutil.copy(model.folder / f"{name}.json", trainer.output_folder_base)
    return find_model(trainer.output_folder_base)


def test_nnunets_own_trainer_and_several_configurations(pool, tmp_path):
    torch.manual_seed(0)
    models = [stock_model(pool, "2d"), stock_model(pool, "3d_fullres"), pool.models[0]]
    folders = [tmp_path / str(number) for number in range(3)]
    for model, folder in zip(models, folders, strict=True):
        predict_with_nnunet(model, pool.images, folder, mirror=False, npz=True)
    ensemble_folders(
        list(map(str, folders)), str(tmp_path / "ensemble"), num_processes=1,
        dataset_json_file_or_dict=pool.models[0].dataset_json,
        plans_json_file_or_dict=pool.models[0].plans,
    )  # fmt: skip
    request = LabellingRequest(pool.images, pool.out, tuple(str(model.folder) for model in models))
    label(request)
    for path in sorted((tmp_path / "ensemble").glob("*.nii.gz")):
        assert np.array_equal(read(request.labels / path.name), read(path))
    counts = [len(np.unique(read(path))) for path in request.labels.glob("*.nii.gz")]
    assert len(counts) == 4 and max(counts) > 1


@pytest.mark.parametrize("mirror", [False, True])
def test_a_second_stage_labels_after_the_first_as_nnunet_predicts(cascade, tmp_path, mirror):
    second, first = cascade.models
    folders = [tmp_path / stage for stage in ("first", "second")]
    predict_with_nnunet(first, cascade.images, folders[0], mirror)
    predict_with_nnunet(second, cascade.images, folders[1], mirror, previous=folders[0])
    request = LabellingRequest(
        cascade.images, cascade.out, (str(second.folder),), ("flips",) * mirror
    )
    label(request)
    depends = 0
    for path in sorted(folders[1].glob("*.nii.gz")):
        assert np.array_equal(read(request.labels / path.name), read(path))
        depends += len(np.unique(read(path))) > 1 and len(np.unique(read(folders[0] / path.name)))
    assert depends > 1
    assert request.record()["models"][0]["previous"] == first.record()
    seen = replace(request, out=tmp_path / "seen", views=("rot90", "blur", "noise"))
    label(seen)
    assert any(
        (read(path) != read(seen.labels / path.name)).any() for path in request.labels.iterdir()
    )


def test_a_second_stage_after_the_first_of_other_data_is_refused(cascade):
    second, first = cascade.models
    description = first.dataset_json
    write_json(first.folder / "dataset.json", {**description, "labels": {"background": 0, "a": 1}})
    with pytest.raises(UserError, match=r"3d_lowres fold 0: .* labels"):
        find_models([str(second.folder)])


def test_models_that_read_files_by_other_libraries_are_refused(pool):
    folder = pool.models[1].folder
    write_json(folder / "plans.json", {**pool.models[1].plans, "image_reader_writer": "NibabelIO"})
    with pytest.raises(UserError, match="SimpleITKIO, got NibabelIO"):
        find_models(pool.names)


def test_the_folder_name_of_a_model_has_three_parts_and_the_first_may_hold_more(pool, tmp_path):
    folder = tmp_path / "Dataset901_Other" / f"old__{pool.models[0].folder.name}"
    shutil.copytree(pool.models[0].folder, folder)
    assert find_model(str(folder)).previous is None
    shutil.move(folder, tmp_path / "Dataset901_Other" / "mine")
    with pytest.raises(UserError, match="TRAINER__PLANS__CONFIGURATION"):
        find_models([str(tmp_path / "Dataset901_Other" / "mine")])


def test_a_second_stage_without_the_first_is_refused(cascade):
    second, first = cascade.models
    (first.folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(UserError, match=r"3d_lowres.*fold_0"):
        find_models([str(second.folder)])


def test_searched_folders_of_a_missing_model_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    with pytest.raises(UserError, match=r"nowhere and .*results/nowhere"):
        find_model("nowhere")


def test_a_model_is_found_by_its_folder_a_fold_or_below_the_results(pool, monkeypatch):
    folder = pool.models[0].folder
    assert find_model(str(folder / "fold_0")) == pool.models[0]
    monkeypatch.setenv("nnUNet_results", str(folder.parent.parent))
    assert find_model(f"{folder.parent.name}/{folder.name}") == pool.models[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", {"background": 0, "other": 1}), ("channel_names", {"0": "A", "1": "B"})],
)
def test_models_of_other_data_are_refused(pool, key, value):
    path = pool.models[1].folder / "dataset.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(UserError, match=rf"{key} of .*seed0"):
        find_models(pool.names)
