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


def get_structure(patches):
    """Return shapes and dtypes of a loss's inputs."""
    if isinstance(patches, list):
        return [get_structure(level) for level in patches]
    return tuple(patches.shape), patches.dtype


@every_trainer
@two_extremes
def test_resuming_equals_never_having_stopped(
    name, configuration, kind, channels, make_trainer, tmp_path
):
    options = {"configuration": configuration, "kind": kind, "channels": channels, "start": False}
    options |= {"epochs": 3, "accumulate_batches": 2, **ON_DEVICE, **WITHOUT_RAMP}
    trainer = make_trainer(name, **options)
    run_epochs(trainer, 3)
    expected = weights_of(trainer.bare_network), weights_of(trainer._companions)
    for row in trainer.history.rows:
        assert all(np.isfinite(value) for value in row.values())
    shutil.rmtree(tmp_path / "results")
    trainer = make_trainer(name, **options)
    run_epochs(trainer, 1)
    resumed = make_trainer(name, **options)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    run_epochs(resumed, 3)
    assert same_weights(expected[0], weights_of(resumed.bare_network))
    assert same_weights(expected[1], weights_of(resumed._companions))


@every_trainer
@two_extremes
def test_the_number_of_workers_changes_nothing(
    name, configuration, kind, channels, make_trainer, monkeypatch
):
    weights = []
    for workers in (0, 2):
        monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
        trainer = make_trainer(name, configuration, kind, channels, **ON_DEVICE, **WITHOUT_RAMP)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
        trainer.dataloader_train.close()
    assert same_weights(*weights)


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore", "regions_ignore"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("interpolated", [False, True])
def test_losses_get_the_same_inputs_as_with_workers(
    kind, configuration, interpolated, make_trainer
):
    """Shapes, dtypes, labels, and the mask of the padding."""
    structures = []
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
        tensors = labelled.x, labelled.target, unlabelled.x_weak, unlabelled.mask
        keys = labelled.keys, unlabelled.keys
        structures.append(([get_structure(tensor) for tensor in tensors], keys))
    assert structures[0] == structures[1]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_patches_are_those_of_nnunet_with_the_same_random_numbers(configuration, make_trainer):
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
    images, labels = ours(raw["data"], raw["target"], drawn)
    with seeded(4):
        expected = [
            transforms(image=image.clone(), segmentation=inside.clone())
            for image, inside in zip(raw["data"], raw["target"], strict=True)
        ]
    assert torch.equal(images, torch.stack([sample["image"] for sample in expected]))
    assert torch.equal(labels, torch.stack([sample["segmentation"] for sample in expected]))
    assert unlabelled.x_weak.shape == images.shape


@each_of(["SemiMeanTeacherTrainer", "SemiCPSTrainer"])
def test_partial_labels_train(name, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset("regions", 1), "regions")
    trainer = make_trainer(name, "3d_fullres", dataset=dataset, **ON_DEVICE, **WITHOUT_RAMP)
    initial = weights_of(trainer.bare_network)
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())
    assert not same_weights(initial, weights_of(trainer.bare_network))


def test_seeds_and_accumulated_batches_have_different_random_numbers(make_trainer):
    images = []
    for seed in (0, 0, 1):
        trainer = make_trainer(
            "SemiBaselineTrainer",
            seed=seed,
            accumulate_batches=2,
            labelled_batch_size=4,
            **ON_DEVICE,
        )
        batches = next(trainer.dataloader_train)
        images.append([trainer.on_device(batch)[0].x for batch in batches])
    for first, repeated, other in zip(*images, strict=True):
        assert torch.equal(first, repeated) and not torch.equal(first, other)
    assert not torch.equal(*images[0])


def test_the_loaded_batch_does_not_change(make_trainer):
    """A benchmark repeats steps with one batch."""
    trainer = make_trainer("SemiMeanTeacherTrainer", **ON_DEVICE)
    batch = next(trainer.dataloader_train)[0]
    copies = {name: batch[name]["data"].clone() for name in batch}
    first, again = (trainer.on_device(batch)[0] for _ in range(2))
    assert torch.equal(first.x, again.x)
    assert all(torch.equal(batch[name]["data"], data) for name, data in copies.items())


def test_an_unknown_transform_is_rejected_before_training(make_trainer):
    class Other(TRAINERS["SemiBaselineTrainer"], is_method=False):
        @staticmethod
        def get_training_transforms(*args, **kwargs):
            composed = TRAINERS["SemiBaselineTrainer"].get_training_transforms(*args, **kwargs)
            composed.transforms[0].p_elastic_deform = 0.2
            return composed

    make_trainer(Other)
    with pytest.raises(UserError, match="p_elastic_deform") as error:
        make_trainer(Other, **ON_DEVICE)
    assert "augmentation=workers" in error.value.fix


def test_the_second_stage_of_a_cascade_is_rejected_before_training(make_trainer, prepared_cascade):
    dataset, name = prepared_cascade(), "SemiBaselineTrainer"
    folds = dataset.preprocessed / "splits_final.json"  # other tests write this file, too
    content = folds.read_bytes() if folds.exists() else None
    first = make_trainer(name, "3d_lowres", dataset=dataset, start=False, epochs=1, **ON_DEVICE)
    run_epochs(first, 1)
    first.on_train_end()
    stored = Path(first.output_folder_base) / "predicted_next_stage"
    try:
        first.perform_actual_validation()
        cases = [*first.do_split()[0], *first.do_split()[1]]
        prediction = next((stored / "3d_cascade_fullres").iterdir())
        for case in cases:  # of other folds; the shape does not matter
            if not (path := prediction.with_name(f"{case}.b2nd")).exists():
                shutil.copy(prediction, path)
        with pytest.raises(UserError, match=r"MoveSegAsOneHot.*augmentation=workers"):
            make_trainer(name, "3d_cascade_fullres", dataset=dataset, **ON_DEVICE)
    finally:
        folds.unlink() if content is None else folds.write_bytes(content)
        shutil.rmtree(stored, ignore_errors=True)
