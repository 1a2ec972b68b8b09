"""Foreground in unlabelled images: locations are found, sampled, and restored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.training.foreground import (
    LOCATIONS,
    list_sampled_classes,
    read_locations,
    sample_positions,
)
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs, same_weights, weights_of

SETTINGS = {
    "locate_epochs": [2], "unlabelled_foreground_oversampling": 1.0, "epochs": 4,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip


def test_positions_are_voxels_of_the_class_relative_to_the_image():
    label = torch.zeros(8, 20, 30, dtype=torch.bool)
    label[2:6, 3:15, 10:30] = True
    positions = sample_positions(label, LOCATIONS)
    assert len(positions) == LOCATIONS
    voxels = (positions * label.shape).astype(int)
    assert all(label[tuple(voxel)] for voxel in voxels)
    assert (voxels.min(0) <= [2, 4, 12]).all() and (voxels.max(0) >= [5, 13, 28]).all()
    assert sample_positions(torch.zeros(2, 3, 4, dtype=torch.bool), 5).shape == (0, 3)


def make_organ_visible(trainer) -> None:
    """Make the deployed network predict an organ of the second class in a corner."""

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
    assert not trainer.dataloader_train.dataset.streams["unlabelled"]._data.located
    make_organ_visible(trainer)
    trainer.on_epoch_start()
    dataset = trainer.dataloader_train.dataset.streams["unlabelled"]._data
    assert set(dataset.located) == set(trainer.unlabelled_selection().in_fold)
    second = list_sampled_classes(trainer.label_manager)[2 if kind == "regions" else 1]
    for case in dataset.identifiers:
        data, _, _, properties = dataset.load_case(case)
        assert list(properties["class_locations"]) == [second]
        locations = properties["class_locations"][second]
        assert (locations[:, 2:] < 4).all() and (locations[:, 1] < data.shape[1]).all()
    stored = trainer.pool.locator.read(2)
    assert stored.keys() == dataset.located.keys()
    for case, positions in stored.items():
        for key, values in positions.items():
            assert np.array_equal(values, dataset.located[case][key])


def test_resuming_samples_the_same_patches(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
    run_epochs(trainer, 4)
    whole = weights_of(trainer.bare_network)
    for epochs in (2, 3):  # killed before and after locating
        shutil.rmtree(tmp_path / "results")
        first = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
        run_epochs(first, epochs)
        resumed = make_trainer("SemiMeanTeacherTrainer", start=False, **SETTINGS)
        resumed.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
        assert bool(resumed.pool.located) == (epochs == 3)
        run_epochs(resumed, 4)
        assert same_weights(weights_of(resumed.bare_network), whole)
    with pytest.raises(UserError, match=r"foreground_epoch_2\.npz.*missing"):
        read_locations(Path("/nowhere/foreground_epoch_2.npz"), [1])


def test_settings_without_effect_are_rejected(make_trainer):
    with pytest.raises(UserError, match="locate_epochs"):
        make_trainer("SemiMeanTeacherTrainer", **{**SETTINGS, "locate_epochs": [4]})
    with pytest.raises(UserError, match="unlabelled_foreground_oversampling"):
        make_trainer(
            "SemiMeanTeacherTrainer", **{**SETTINGS, "unlabelled_foreground_oversampling": 0.0}
        )
