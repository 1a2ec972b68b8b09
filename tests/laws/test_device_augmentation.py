"""Laws c, d and g with augmentation=device: every trainer trains, repeats and continues exactly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import seeded
from tests.laws.test_laws import two_extremes
from tests.trainers import (
    TRAINERS,
    WITHOUT_RAMP,
    each_of,
    partially_annotated,
    run_epochs,
    same_weights,
    weights_of,
)

ON_DEVICE = {"augmentation": "device"}
every_trainer = each_of([*TRAINERS, "SemiPretrainTrainer"])


def structure(patches):
    """Shapes and types of what a loss is given."""
    if isinstance(patches, list):
        return [structure(level) for level in patches]
    return tuple(patches.shape), patches.dtype


@every_trainer
@two_extremes
def test_resuming_equals_never_having_stopped(
    name, configuration, kind, channels, make_trainer, tmp_path
):
    case = {"configuration": configuration, "kind": kind, "channels": channels, "start": False}
    case |= {"epochs": 3, "accumulate_batches": 2, **ON_DEVICE, **WITHOUT_RAMP}
    trainer = make_trainer(name, **case)
    run_epochs(trainer, 3)
    whole = weights_of(trainer.bare_network), weights_of(trainer._companions)
    for row in trainer.history.rows:
        assert all(np.isfinite(value) for value in row.values())
    shutil.rmtree(tmp_path / "results")
    trainer = make_trainer(name, **case)
    run_epochs(trainer, 1)
    resumed = make_trainer(name, **case)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    run_epochs(resumed, 3)
    assert same_weights(whole[0], weights_of(resumed.bare_network))
    assert same_weights(whole[1], weights_of(resumed._companions))


@every_trainer
@two_extremes
def test_the_number_of_workers_changes_nothing(
    name, configuration, kind, channels, make_trainer, monkeypatch
):
    after = []
    for workers in (0, 2):
        monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
        trainer = make_trainer(name, configuration, kind, channels, **ON_DEVICE, **WITHOUT_RAMP)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
        trainer.dataloader_train.close()
    assert same_weights(*after)


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore", "regions_ignore"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("interpolated", [False, True])
def test_losses_are_given_what_workers_would_give_them(
    kind, configuration, interpolated, make_trainer
):
    """Shapes and types, the labels that there are, and the mask of the padding."""
    found = []
    for augmentation in ("workers", "device"):
        trainer = make_trainer(
            "SemiMeanTeacherTrainer", configuration, kind, augmentation=augmentation,
            unlabelled_rotation_and_scaling=interpolated, labelled_batch_size=8,
        )  # fmt: skip
        batch = next(trainer.dataloader_train)[0]
        labelled, unlabelled = trainer.on_device(batch)
        assert ("drawn" in batch["labelled"]) == (augmentation == "device")
        assert set(torch.cat([level.flatten() for level in labelled.target]).tolist()) <= {
            *range(6), True, False,
        }  # fmt: skip
        assert unlabelled.mask.dtype == torch.bool
        parts = labelled.x, labelled.target, unlabelled.x_weak, unlabelled.mask
        found.append([structure(part) for part in parts])
        keys = labelled.keys, unlabelled.keys
        found[-1].append(keys)
    assert found[0] == found[1]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_patches_are_those_that_nnunet_makes_of_the_same_numbers(configuration, make_trainer):
    trainers = [
        make_trainer("SemiMeanTeacherTrainer", configuration, augmentation=augmentation)
        for augmentation in ("workers", "device")
    ]
    loader = trainers[1].dataloader_train
    with seeded(0):
        raw = loader.dataset.streams["unlabelled"].generate_train_batch()
    transforms = trainers[0].dataloader_train.dataset.streams["unlabelled"].transforms
    _, unlabelled = trainers[1].on_device({**next(trainers[1].dataloader_train)[0]})
    ours = trainers[1].on_device.augmentations["unlabelled"]
    with seeded(4):
        drawn = ours.draw(raw["data"])
    found = ours(raw["data"], raw["target"], drawn)
    with seeded(4):
        expected = [
            transforms(image=image.clone(), segmentation=inside.clone())
            for image, inside in zip(raw["data"], raw["target"], strict=True)
        ]
    assert torch.equal(found[0], torch.stack([sample["image"] for sample in expected]))
    assert torch.equal(found[1], torch.stack([sample["segmentation"] for sample in expected]))
    assert unlabelled.x_weak.shape == found[0].shape


@each_of(["SemiMeanTeacherTrainer", "SemiCPSTrainer"])
def test_partial_labels_train(name, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset("regions", 1), "regions")
    trainer = make_trainer(name, "3d_fullres", dataset=dataset, **ON_DEVICE, **WITHOUT_RAMP)
    before = weights_of(trainer.bare_network)
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())
    assert not same_weights(before, weights_of(trainer.bare_network))


def test_a_seed_and_an_accumulated_batch_have_numbers_of_their_own(make_trainer):
    images = []
    for seed in (0, 0, 1):
        trainer = make_trainer(
            "SemiBaselineTrainer",
            seed=seed,
            accumulate_batches=2,
            labelled_batch_size=4,
            **ON_DEVICE,
        )
        parts = next(trainer.dataloader_train)
        images.append([trainer.on_device(part)[0].x for part in parts])
    for first, same, other in zip(*images, strict=True):
        assert torch.equal(first, same) and not torch.equal(first, other)
    assert not torch.equal(*images[0])


def test_the_batch_that_was_loaded_stays_as_it_is(make_trainer):
    """A benchmark steps on one batch again and again."""
    trainer = make_trainer("SemiMeanTeacherTrainer", **ON_DEVICE)
    batch = next(trainer.dataloader_train)[0]
    copies = {name: batch[name]["data"].clone() for name in batch}
    first, again = (trainer.on_device(batch)[0] for _ in range(2))
    assert torch.equal(first.x, again.x)
    assert all(torch.equal(batch[name]["data"], kept) for name, kept in copies.items())


def test_a_transform_that_is_not_known_is_refused_before_training(make_trainer):
    class Other(TRAINERS["SemiBaselineTrainer"], is_method=False):
        @staticmethod
        def get_training_transforms(*args, **kwargs):
            made = TRAINERS["SemiBaselineTrainer"].get_training_transforms(*args, **kwargs)
            made.transforms[0].p_elastic_deform = 0.2
            return made

    make_trainer(Other)
    with pytest.raises(UserError, match=r"p_elastic_deform=0\.2.*Fix: set augmentation=workers"):
        make_trainer(Other, **ON_DEVICE)


def test_the_second_stage_of_a_cascade_is_refused_before_training(make_trainer, prepared_cascade):
    dataset, name = prepared_cascade(), "SemiBaselineTrainer"
    folds = dataset.preprocessed / "splits_final.json"  # which other tests want to write
    before = folds.read_bytes() if folds.exists() else None
    first = make_trainer(name, "3d_lowres", dataset=dataset, start=False, epochs=1, **ON_DEVICE)
    run_epochs(first, 1)
    first.on_train_end()
    stored = Path(first.output_folder_base) / "predicted_next_stage"
    try:
        first.perform_actual_validation()
        cases = [*first.do_split()[0], *first.do_split()[1]]
        one = next((stored / "3d_cascade_fullres").iterdir())
        for case in cases:  # of other folds, whose shape nothing looks at before
            if not (one.parent / f"{case}.b2nd").exists():
                shutil.copy(one, one.parent / f"{case}.b2nd")
        with pytest.raises(UserError, match=r"MoveSegAsOneHot.*augmentation=workers"):
            make_trainer(name, "3d_cascade_fullres", dataset=dataset, **ON_DEVICE)
    finally:
        folds.unlink() if before is None else folds.write_bytes(before)
        shutil.rmtree(stored, ignore_errors=True)
