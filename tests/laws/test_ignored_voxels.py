"""Ignored voxels of labelled cases are unlabelled ones; without an ignore label nothing changes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch

from semi_nnunet.loading.unlabelled import UnlabelledDataset
from semi_nnunet.planning.properties import collect_properties
from semi_nnunet.preprocessing import cases as preprocessing
from semi_nnunet.preprocessing.case_facts import compute_label_facts, list_partly_labelled
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.settings.rules import unlabelled_from_ignored
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv
from tests.trainers import (
    UNLABELLED_TRAINERS,
    WITHOUT_RAMP,
    each_of,
    run_epochs,
    same_weights,
    weights_of,
)

IGNORE = 4
every_unlabelled_trainer = each_of(UNLABELLED_TRAINERS)
both_configurations = pytest.mark.parametrize(
    ("configuration", "kind"), [("2d", "ignore"), ("3d_fullres", "regions_ignore")]
)


def take_batches(trainer, number=6):
    return [batch for step in itertools.islice(trainer.dataloader_train, number) for batch in step]


@pytest.mark.law("n")
@every_unlabelled_trainer
def test_without_an_ignore_label_no_bit_changes(name, make_trainer):
    weights = []
    for from_ignored in (False, True):
        trainer = make_trainer(name, unlabelled_from_ignored=from_ignored, **WITHOUT_RAMP)
        assert trainer.pool.ignored is None
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    assert same_weights(*weights)


@pytest.mark.law("n")
@both_configurations
def test_partly_labelled_training_cases_join_the_unlabelled_ones(configuration, kind, make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", configuration, kind)
    training, validation = trainer.do_split()
    selection = trainer.unlabelled_selection()
    assert trainer.settings.unlabelled_from_ignored
    assert len(selection.preprocessed) == 4 and not {*selection.preprocessed} & {*training}
    assert {*selection.trained_on} == {*selection.preprocessed, *training}
    assert not {*selection.trained_on} & {*validation}
    assert trainer.current_cases()["unlabelled"] == selection.preprocessed
    keys = {key for batch in take_batches(trainer, 12) for key in batch["unlabelled"]["keys"]}
    assert keys & {*training} and keys & {*selection.preprocessed}


@pytest.mark.law("n")
@both_configurations
def test_the_setting_leaves_them_out(configuration, kind, make_trainer):
    trainer = make_trainer(
        "SemiMeanTeacherTrainer", configuration, kind, unlabelled_from_ignored=False
    )
    selection = trainer.unlabelled_selection()
    assert selection.trained_on == selection.preprocessed
    _, unlabelled = trainer.on_device(take_batches(trainer, 1)[0])
    assert unlabelled.mask.float().mean() > 0.5  # all but the padding


@pytest.mark.law("n")
@both_configurations
@pytest.mark.parametrize("augmentation", ["workers", "device"])
def test_unlabelled_terms_see_the_ignored_voxels_only(
    configuration, kind, augmentation, make_trainer, monkeypatch
):
    load = UnlabelledDataset.load_case

    def load_label_as_image(self, identifier):
        data, seg, *others = load(self, identifier)
        return np.array(np.broadcast_to(seg[:], data.shape), np.float32), seg, *others

    monkeypatch.setattr(UnlabelledDataset, "load_case", load_label_as_image)
    trainer = make_trainer("SemiMeanTeacherTrainer", configuration, kind, augmentation=augmentation)
    training, patches = {*trainer.do_split()[0]}, dict[str, list]()
    for batch in take_batches(trainer, 10):
        _, unlabelled = trainer.on_device(batch)
        for key, label, mask in zip(
            unlabelled.keys, unlabelled.x_weak[:, :1], unlabelled.mask, strict=True
        ):
            assert torch.equal(mask, label == IGNORE)
            patches.setdefault("labelled" if key in training else "other", []).append((label, mask))
    assert any(0 < mask.float().mean() < 1 for _, mask in patches["labelled"])
    assert any((label[~mask] > 0).any() for label, mask in patches["labelled"])  # annotated
    assert all((label[mask] == IGNORE).all() for label, mask in patches["other"])


@pytest.mark.law("n")
@every_unlabelled_trainer
@both_configurations
def test_no_other_images_are_needed(name, configuration, kind, make_trainer, tmp_path):
    weights = []
    for unlabelled_weight in (0.0, 1.0):
        settings = {"unlabelled_weight": unlabelled_weight, "epochs": 2, **WITHOUT_RAMP}
        trainer = make_trainer(name, configuration, kind, start=False, **settings)
        trainer.pool.folder = tmp_path / "nothing"
        run_epochs(trainer, 1)
        assert {*trainer.unlabelled_selection().in_fold} == {*trainer.do_split()[0]}
        assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())
        weights.append(weights_of(trainer.bare_network))
    assert not same_weights(*weights)


def test_without_ignored_voxels_other_images_are_needed(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, unlabelled_from_ignored=True)
    trainer.pool.folder = tmp_path / "nothing"
    with pytest.raises(UserError, match="unlabelled"):
        trainer.on_train_start()


def test_filtering_and_locating_see_partly_labelled_cases(make_trainer):
    settings = {
        "filter_epochs": (1,), "filter_keep": 5, "filter_score": "entropy", "locate_epochs": (1,),
        "unlabelled_foreground_oversampling": 0.5,
    }  # fmt: skip
    trainer = make_trainer("SemiMeanTeacherTrainer", kind="ignore", start=False, **settings)
    run_epochs(trainer, 2)
    training, selection = {*trainer.do_split()[0]}, trainer.unlabelled_selection()
    _, rows = read_csv(Path(trainer.output_folder) / "filter_epoch_1.csv")
    assert {row["case"] for row in rows} == {*selection.in_fold} and training < {*selection.in_fold}
    assert len(selection.trained_on) == 5 and {*trainer.pool.located} == {*selection.in_fold}
    whole = weights_of(trainer.bare_network)
    resumed = make_trainer("SemiMeanTeacherTrainer", kind="ignore", start=False, **settings)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.unlabelled_selection() == selection
    assert same_weights(whole, weights_of(resumed.bare_network))


def test_fold_all_uses_every_labelled_case(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind="ignore", fold="all", start=False)
    assert {*trainer.labelled_identifiers()} < {*trainer.unlabelled_selection().in_fold}


# ---- planning ----


def test_the_plan_gives_the_reason(prepared_dataset):
    for kind, expected in (("ignore", True), ("labels", False)):
        dataset = prepared_dataset(kind)
        properties = collect_properties(
            dataset.plans, "2d", dataset.dataset_json, dataset.preprocessed
        )
        value, reason = unlabelled_from_ignored(properties, {})
        assert value is expected and "ignored" in reason
        assert properties.partly_labelled_cases == (5 if expected else 0)


def test_facts_of_cases_name_the_ignored_voxels(prepared_dataset):
    dataset = prepared_dataset("ignore")
    folder = dataset.preprocessed / "nnUNetPlans_3d_fullres"
    entries = Manifest(folder).present()
    for case, entry in entries.items():
        label = blosc2.open(str(folder / f"{case}_seg.b2nd"))[:]
        assert entry.facts["ignored"] == pytest.approx((label == IGNORE).mean())
    earlier = {case: replace(entry, facts={}) for case, entry in entries.items()}
    assert list_partly_labelled(entries) == sorted(entries) and not list_partly_labelled(earlier)
    full = prepared_dataset("labels").preprocessed / "nnUNetPlans_3d_fullres"
    assert not any("ignored" in entry.facts for entry in Manifest(full).present().values())
    case = min(entries)
    assert preprocessing._read_facts(folder, case, True, IGNORE) == entries[case].facts
    label = np.full((1, 4, 2, 2), IGNORE)
    nothing = {"foreground_slices": 1.0, "ignored": 1.0, "ignored_in_slices": 1.0}
    assert compute_label_facts(label, IGNORE) == nothing
    label[0, 0, 0], label[0, 1, 0] = 0, 1  # slices without any annotation are unknown
    facts = {"foreground_slices": 0.5, "ignored": 0.75, "ignored_in_slices": 0.5}
    assert compute_label_facts(label, IGNORE) == facts
