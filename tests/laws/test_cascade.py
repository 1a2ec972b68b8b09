"""Law g, the cascade: the second stage sees the first stage's predictions of all cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.raw.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.training.cost import read_cost
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.trainers import (
    TRAINERS,
    WITHOUT_RAMP,
    each_of,
    run_epochs,
    same_weights,
    weights_of,
)


@pytest.mark.law("g")
@each_of(TRAINERS)
def test_cascade_trains_on_predictions_of_the_first_stage(name, make_trainer, prepared_cascade):
    dataset = prepared_cascade()
    first = make_trainer(name, "3d_lowres", dataset=dataset, start=False, epochs=1, fold="all")
    run_epochs(first, 1)
    first.on_train_end()
    first.perform_actual_validation()
    stored = Path(first.output_folder_base) / "predicted_next_stage" / "3d_cascade_fullres"
    cases = set(first.labelled_identifiers())
    cases |= set(first.unlabelled_selection().in_fold) if first.uses_unlabelled else set()
    assert {path.stem for path in stored.glob("*.b2nd")} == cases

    second = make_trainer(name, "3d_cascade_fullres", dataset=dataset, fold="all", **WITHOUT_RAMP)
    batch = next(second.dataloader_train)
    labelled, unlabelled = second.on_device(batch[0])
    assert labelled.x.shape[1] == 1 + 3
    if second.uses_unlabelled:
        previous = unlabelled.x_weak[:, 1:]
        assert previous.shape[1] == 3 and set(previous.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(
            previous, unlabelled.x_strong[:, 1:]
        )  # only the image changes its appearance
    second.train_step(batch)
    second.on_train_epoch_end([{}])
    assert all(np.isfinite(value) for value in second.run_log.epoch_values.values())

    missing = min(cases)
    record = Path(first.output_folder) / "semi_stage_images.json"
    images = read_json(record)
    assert images.keys() == cases
    write_json(record, {**images, missing: "another image"})
    with pytest.raises(UserError, match=f"changed since: {missing}"):
        make_trainer(name, "3d_cascade_fullres", dataset=dataset, fold="all")
    write_json(record, images)
    (stored / f"{missing}.b2nd").unlink()
    with pytest.raises(UserError, match=missing) as error:
        make_trainer(name, "3d_cascade_fullres", dataset=dataset, fold="all")
    assert f"3d_lowres FOLD -tr {name}" in error.value.fix
    shutil.rmtree(stored)


@pytest.mark.law("g")
@pytest.mark.parametrize("name", ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"])
def test_pseudo_labelled_cases_are_predicted_once(name, make_trainer, prepared_cascade):
    dataset = prepared_cascade()
    cases = [f"phantom_{number:04d}" for number in range(5)]
    folds = (cases[:1], cases[1:2])  # the other cases are pseudo-labelled
    splits = [{"train": [c for c in cases if c not in val], "val": val} for val in folds]
    file = dataset.preprocessed / "splits_final.json"
    pseudo = dataset.preprocessed / PSEUDO_LABELLED_FILE
    write_json(file, splits)
    write_json(pseudo, cases[2:])
    try:
        for fold in (1, 0):
            first = make_trainer(
                name, "3d_lowres", dataset=dataset, start=False, epochs=1, fold=fold
            )
            run_epochs(first, 1)
            first.on_train_end()
            stored = Path(first.output_folder_base) / "predicted_next_stage" / "3d_cascade_fullres"
            first.perform_actual_validation()
            predicted = {path.stem for path in stored.glob("*.b2nd")}
            unlabelled = first.unlabelled_selection().in_fold if first.uses_unlabelled else []
            assert predicted == ({*cases, *unlabelled} if fold == 0 else {*folds[1]})
        for fold in (0, 1):
            second = make_trainer(name, "3d_cascade_fullres", dataset=dataset, fold=fold)
            second.train_step(next(second.dataloader_train))
    finally:
        file.unlink()
        pseudo.unlink()
        shutil.rmtree(Path(first.output_folder_base) / "predicted_next_stage", ignore_errors=True)


@pytest.mark.law("g")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("SemiUnifiedTrainer", "regions_ignore"), ("SemiMeanTeacherTrainer", "ignore")],
)
def test_ignored_voxels_are_unlabelled_in_both_stages(name, kind, make_trainer, prepared_cascade):
    dataset = prepared_cascade(kind)
    cases = [f"phantom_{number:04d}" for number in range(5)]
    splits = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    file = dataset.preprocessed / "splits_final.json"
    write_json(file, splits)
    try:
        for fold in (1, 0):
            first = make_trainer(
                name, "3d_lowres", dataset=dataset, start=False, epochs=1, fold=fold
            )
            run_epochs(first, 1)
            assert {*splits[fold]["train"]} < {*first.unlabelled_selection().trained_on}
            first.on_train_end()
            first.perform_actual_validation()
        settings = {"epochs": 2, "labelled_batch_size": 2, "unlabelled_batch_size": 2}
        weights = []
        for unlabelled_weight in (0.0, 1.0):
            second = make_trainer(
                name, "3d_cascade_fullres", dataset=dataset, fold=0,
                unlabelled_weight=unlabelled_weight, **settings, **WITHOUT_RAMP,
            )  # fmt: skip
            second.pool.folder = dataset.preprocessed / "nothing"  # no other images
            second.pool._preprocessed = None
            assert second.unlabelled_selection().trained_on == splits[0]["train"]
            second.restart_loaders()
            shares = []
            for batch in next(second.dataloader_train):
                labelled, unlabelled = second.on_device(batch)
                previous = unlabelled.x_weak[:, 1:]
                assert previous.shape[1] == labelled.x.shape[1] - 1 > 0
                assert {*previous.unique().tolist()} <= {0.0, 1.0}
                assert torch.equal(previous, unlabelled.x_strong[:, 1:])
                assert {*unlabelled.keys} <= {*splits[0]["train"]}
                shares.append(unlabelled.mask.float().mean())
            assert all(0 < share < 1 for share in shares)  # annotated voxels do not count
            run_epochs(second, 1)
            assert all(np.isfinite(value) for value in second.run_log.epoch_values.values())
            weights.append(weights_of(second.bare_network))
        assert not same_weights(*weights)
        second.on_train_end()
        second.perform_actual_validation()
        assert (Path(second.output_folder) / "validation" / "summary.json").is_file()
    finally:
        file.unlink()
        shutil.rmtree(Path(first.output_folder_base) / "predicted_next_stage", ignore_errors=True)


@pytest.mark.law("g")
@pytest.mark.parametrize("name", ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"])
def test_a_first_stage_is_validated_although_the_next_is_not_preprocessed(
    name, make_trainer, prepared_cascade
):
    dataset = prepared_cascade()
    trainer = make_trainer(name, "3d_lowres", dataset=dataset, start=False, epochs=1, fold="all")
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = Path(dataset.preprocessed) / "nnUNetPlans_3d_fullres"
    moved = folder.rename(folder.with_name("moved"))
    try:
        trainer.perform_actual_validation()
    finally:
        moved.rename(folder)
    assert (Path(trainer.output_folder) / "validation" / "summary.json").is_file()
    cost = read_cost(Path(trainer.output_folder))
    assert cost.training and cost.seconds_a_case > 0
    assert not list(Path(trainer.output_folder_base).glob("predicted_next_stage/*/*.b2nd"))
    assert trainer.configuration_manager.next_stage_names == ["3d_cascade_fullres"]
