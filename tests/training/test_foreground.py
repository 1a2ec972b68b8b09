"""Unlabelled patches where a network sees foreground: what is found, used, and found again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.training.foreground import LOCATIONS, classes_of, read, some_positions
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs, same_weights, weights_of

SETTINGS = {
    "locate_epochs": [2], "unlabelled_foreground_oversampling": 1.0, "epochs": 4,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip


def test_positions_are_voxels_of_the_class_relative_to_the_image():
    label = torch.zeros(8, 20, 30, dtype=torch.bool)
    label[2:6, 3:15, 10:30] = True
    positions = some_positions(label, LOCATIONS)
    assert len(positions) == LOCATIONS
    voxels = (positions * label.shape).astype(int)
    assert all(label[tuple(voxel)] for voxel in voxels)
    assert (voxels.min(0) <= [2, 4, 12]).all() and (voxels.max(0) >= [5, 13, 28]).all()
    assert some_positions(torch.zeros(2, 3, 4, dtype=torch.bool), 5).shape == (0, 3)


def sees_an_organ(trainer) -> None:
    """Make the deployed network call the brightest voxels the second foreground class."""

    def probs(logits):
        p = torch.zeros_like(logits)
        p[:, 2, ..., :4, :4] = 1
        p[:, 0] = 1 - p[:, 2] if trainer.exclusive else 0
        return p

    trainer.probs = probs


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_patches_are_drawn_where_the_network_sees_foreground(make_trainer, kind):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind=kind, start=False, **SETTINGS)
    run_epochs(trainer, 2)
    before = trainer.dataloader_train.dataset.streams["unlabelled"]._data
    assert not before.located
    sees_an_organ(trainer)
    trainer.on_epoch_start()
    dataset = trainer.dataloader_train.dataset.streams["unlabelled"]._data
    assert set(dataset.located) == set(trainer.unlabelled_cases())
    second = classes_of(trainer.label_manager)[2 if kind == "regions" else 1]
    for case in dataset.identifiers:
        data, _, _, properties = dataset.load_case(case)
        assert list(properties["class_locations"]) == [second]
        locations = properties["class_locations"][second]
        assert (locations[:, 2:] < 4).all() and (locations[:, 1] < data.shape[1]).all()
    stored = trainer.pool.locator.read(2)
    assert stored.keys() == dataset.located.keys()
    for case, some in stored.items():
        assert all(np.array_equal(some[key], dataset.located[case][key]) for key in some)


def test_resuming_samples_the_same_patches(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
    run_epochs(trainer, 4)
    whole = weights_of(trainer.bare_network)
    for epochs in (2, 3):  # killed before it looked, and after
        shutil.rmtree(tmp_path / "results")
        first = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
        run_epochs(first, epochs)
        resumed = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
        resumed.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
        assert bool(resumed.pool.located) == (epochs == 3)
        run_epochs(resumed, 4)
        assert same_weights(weights_of(resumed.bare_network), whole)
    with pytest.raises(UserError, match=r"foreground_epoch_2.npz, which is missing"):
        read(Path("/nowhere/foreground_epoch_2.npz"), [1])


def test_what_has_no_effect_is_refused(make_trainer):
    with pytest.raises(UserError, match="locate_epochs must be below epochs"):
        make_trainer("SemiMeanTeacherTrainer", **{**SETTINGS, "locate_epochs": [4]})
    with pytest.raises(UserError, match="needs unlabelled_foreground_oversampling above 0"):
        make_trainer(
            "SemiMeanTeacherTrainer", **{**SETTINGS, "unlabelled_foreground_oversampling": 0.0}
        )
