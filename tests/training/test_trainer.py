"""What the settings do to a training, and how a trainer refuses what cannot work."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.core.ramps import ramp
from semi_nnunet.training.reliability import reliability_of_classes, reliability_on_unknown
from semi_nnunet.training.trainer import SemiTrainer, Term
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of


def test_same_seed_gives_the_same_training_and_another_seed_another(make_trainer):
    after = []
    for seed in (0, 0, 1):
        trainer = make_trainer("SemiMeanTeacherTrainer", seed=seed)
        trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    assert same_weights(after[0], after[1]) and not same_weights(after[0], after[2])


def test_baseline_and_mean_teacher_of_a_seed_see_the_same_labelled_batches(make_trainer):
    trainers = [make_trainer(name) for name in ("SemiBaselineTrainer", "SemiMeanTeacherTrainer")]
    assert same_weights(*(weights_of(trainer.bare_network) for trainer in trainers))
    for _ in range(2):
        first, second = (next(trainer.dataloader_train)[0]["labelled"] for trainer in trainers)
        assert torch.equal(first["data"], second["data"]) and first["keys"] == second["keys"]


def test_accumulated_batches_average_their_gradients(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer", accumulate_batches=2, gradient_clip=1e9)
    batches = next(trainer.dataloader_train)
    assert len(batches) == 2 and not torch.equal(
        batches[0]["labelled"]["data"], batches[1]["labelled"]["data"]
    )
    gradients = []
    for batch in batches:
        trainer.optimizer.zero_grad()
        trainer.supervised(trainer.on_device(batch)[0]).value.backward()
        gradients.append(
            [p.grad.clone() if p.grad is not None else None for p in trainer.network.parameters()]
        )
    trainer.optimizer_step.update = lambda step, cases: None
    trainer.train_step(batches)
    for parameter, first, second in zip(trainer.network.parameters(), *gradients, strict=True):
        if first is not None:
            torch.testing.assert_close(parameter.grad, (first + second) / 2)


def test_one_labelled_to_five_unlabelled_patches(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", labelled_batch_size=1, unlabelled_batch_size=5)
    batch = next(trainer.dataloader_train)[0]
    assert batch["labelled"]["data"].shape[0] == 1 and batch["unlabelled"]["data"].shape[0] == 5
    trainer.train_step([batch])


def drawn_cases(trainer, steps):
    batches = (next(trainer.dataloader_train)[0] for _ in range(steps))
    return [case for batch in batches for case in batch["labelled"]["keys"]]


@pytest.mark.parametrize("share, drawn", [(1.0, "people"), (0.0, "model")])
def test_labels_of_people_are_as_many_of_a_batch_as_asked(share, drawn, make_trainer, monkeypatch):
    pseudo = make_trainer("SemiBaselineTrainer").do_split()[0][1:]
    monkeypatch.setattr(
        "semi_nnunet.training.loaders.pseudo_labelled_cases", lambda folder: {*pseudo}
    )
    trainer = make_trainer("SemiBaselineTrainer", labelled_share=share)
    kinds = [case in pseudo for case in drawn_cases(trainer, 4)]
    assert all(kinds) if drawn == "model" else not any(kinds)


def test_unlabelled_mask_is_false_in_the_padding_alone(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", mirror=False)
    loader = trainer.dataloader_train.dataset.streams["unlabelled"]
    loader.patch_size = loader.final_patch_size = (
        40,
        40,
        40,
    )  # larger than the image on every axis
    loader.need_to_pad = np.zeros(3, dtype=int)
    loader.transforms = None
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    shape = (
        trainer.dataloader_train.dataset.streams["unlabelled"]
        ._data.load_case(unlabelled.keys[0])[0]
        .shape
    )
    assert unlabelled.mask[0].sum() == np.prod(shape[1:])
    assert (unlabelled.x_weak[~unlabelled.mask] == 0).all()


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_rotation_can_be_limited(make_trainer, configuration):
    def geometry(**settings):
        trainer = make_trainer("SemiBaselineTrainer", configuration, start=False, **settings)
        return trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()

    stock_range, flat, stock_patch, axes = geometry()
    limited_range, *_ = geometry(max_rotation_degrees=10)
    assert limited_range == pytest.approx((-math.radians(10), math.radians(10)))
    again = geometry(max_rotation_degrees=180)  # nnU-Net never rotates further
    assert again[0] == stock_range and list(again[2]) == list(stock_patch)
    assert again[1] == flat and again[3] == axes


def test_mirroring_can_be_turned_off_for_training_and_prediction(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", mirror=False)
    assert trainer.inference_allowed_mirroring_axes is None
    for stream in trainer.dataloader_train.dataset.streams.values():
        assert "Mirror" not in str([type(part).__name__ for part in stream.transforms.transforms])
    assert make_trainer("SemiMeanTeacherTrainer").inference_allowed_mirroring_axes == (0, 1)


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_published_variant_with_focal_loss_adam_and_plateau_trains_and_resumes(make_trainer, kind):
    variant = {
        "ema_decay": 0.99, "ema_decay_after_ramp_up": 0.999, "supervised_loss": "dice_focal",
        "optimizer": "adam",
        "initial_lr": 1e-4, "lr_schedule": "plateau", "plateau_patience_epochs": 0,
        "labelled_batch_size": 1,
        "unlabelled_batch_size": 5, "cutmix_probability": 0.0, "teacher_noise": 0.1,
    }  # fmt: skip
    trainer = make_trainer("SemiMeanTeacherTrainer", kind=kind, start=False, **variant)
    run_epochs(trainer, 4)
    rates = trainer.history.series("learning_rate")[1]
    resumed = make_trainer("SemiMeanTeacherTrainer", kind=kind, start=False, **variant)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.lr_scheduler.state_dict() == trainer.lr_scheduler.state_dict()
    assert resumed.optimizer.param_groups[0]["lr"] == trainer.optimizer.param_groups[0]["lr"]
    assert all(np.isfinite(rates))


def test_class_weights_must_match_the_classes(make_trainer):
    make_trainer("SemiBaselineTrainer", class_weights=[0.5, 1, 1, 4])
    with pytest.raises(UserError, match=r"each of the 4 classes.*got 2"):
        make_trainer("SemiBaselineTrainer", class_weights=[1, 2])


def test_weights_ramp_up_and_are_logged(make_trainer):
    trainer = make_trainer(
        "SemiMeanTeacherTrainer",
        start=False,
        consistency_weight=7.0,
        unlabelled_start_steps=0,
        ramp_up_steps=4,
    )
    run_epochs(trainer, 3)
    weights = trainer.history.series("weight/consistency")[1]
    assert weights[0] < weights[1] < weights[2] == 7.0
    assert trainer.history.series("weight/supervised")[1] == [1.0] * 3


def test_history_is_written_for_people_and_programs(make_trainer):
    trainer = make_trainer("SemiUncertaintyAwareTrainer", start=False)
    run_epochs(trainer, 2)
    folder = Path(trainer.output_folder)
    rows = list(csv.DictReader((folder / "semi_history.csv").open()))
    expected = {
        *("epoch", "learning_rate", "loss/supervised", "loss/consistency", "weight/consistency"),
        *("mask_ratio", "foreground/pseudo_label", "foreground/labelled"),
        *("dice/deployed", "dice/student"),
    }
    assert len(rows) == 2 and expected <= set(rows[0])
    assert (folder / "semi_history.png").stat().st_size > 5000
    settings = json.loads((folder / "semi_settings.json").read_text())
    assert settings["settings"]["ema_decay"]["reason"] and len(settings["cases"]["unlabelled"]) == 4


def test_other_loggers_get_our_values_too(make_trainer):
    class Spy:
        def __init__(self):
            self.seen = {}

        def update_config(self, config):
            pass

        def log(self, key, value, step):
            self.seen[key] = value

    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    spy = Spy()
    trainer.logger.loggers.append(spy)
    run_epochs(trainer, 1)
    assert {"semi/loss/consistency", "semi/dice/student", "train_losses"} <= set(spy.seen)


def test_early_stopping_ends_the_training_with_a_final_checkpoint(make_trainer):
    trainer = make_trainer(
        "SemiBaselineTrainer",
        start=False,
        epochs=50,
        early_stopping_patience_epochs=2,
        initial_lr=0.0,
    )
    trainer.run_training()
    assert trainer.current_epoch < 50
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
    assert not (Path(trainer.output_folder) / "checkpoint_latest.pth").exists()


def test_teacher_that_collapses_is_warned_of(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, unlabelled_start_steps=0)
    trainer.initialize()
    log = []
    trainer.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    with torch.no_grad():  # the student, which the teacher copies when training starts
        trainer.bare_network.decoder.seg_layers[-1].bias[0] = 1e4
    trainer.after_optimizer_step = lambda step: None
    run_epochs(trainer, 1)
    assert any("the teacher collapses" in line for line in log)


def test_few_labelled_cases_get_one_fold_each(make_trainer, prepared_dataset, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()[:3]
    trainer.labelled_identifiers = lambda: cases
    trainer.preprocessed_dataset_folder_base = str(tmp_path)  # no splits_final.json there
    folds = []
    for fold in range(3):
        trainer.fold = fold
        folds.append(trainer.do_split())
    assert sorted(case for _, validation in folds for case in validation) == cases
    assert all(sorted(training + validation) == cases for training, validation in folds)


def test_folds_are_of_whole_patients_whose_unlabelled_images_wait_outside(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    labelled, unlabelled = trainer.labelled_identifiers(), trainer.unlabelled_cases()
    assert len(labelled) == 5 and len(unlabelled) == 4
    # two labelled patients of two and three cases; the first has an unlabelled image, too
    first = {*labelled[:2], unlabelled[0]}
    trainer.patient_of = lambda case: "A" if case in first else "B" if case in labelled else case
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    pools = {}
    for trainer.fold in (0, 1):
        training, validation = trainer.do_split()
        assert {tuple(training), tuple(validation)} == {tuple(labelled[:2]), tuple(labelled[2:])}
        pools["A" if labelled[0] in validation else "B"] = trainer.training_unlabelled_cases()
        assert trainer.unlabelled_cases() == trainer.training_unlabelled_cases()
    assert pools == {"A": unlabelled[1:], "B": unlabelled}
    trainer.fold = "all"
    assert trainer.training_unlabelled_cases() == unlabelled
    trainer.fold, trainer.patient_of = 0, lambda case: "B" if case in labelled[2:] else "A"
    trainer.do_split = lambda: (labelled[2:], labelled[:2])
    with pytest.raises(UserError, match="all 4 are of patients whom fold 0 validates on"):
        trainer.training_unlabelled_cases()


def test_folds_that_tear_patients_are_refused(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base, trainer.patient_of = str(tmp_path), lambda _: "Ann"
    with pytest.raises(UserError, match=r"5 labelled cases of 1\. Fix: train fold 'all'"):
        trainer.do_split()
    write_json(tmp_path / "splits_final.json", [{"train": cases[1:], "val": cases[:1]}])
    with pytest.raises(UserError, match=r"same patients: Ann\. Fix: delete that file"):
        trainer.do_split()


def test_one_labelled_case_can_only_be_trained_on_all(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()[:1]
    trainer.labelled_identifiers = lambda: cases
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    with pytest.raises(UserError, match="Fix: train fold 'all'"):
        trainer.do_split()


def test_a_fold_that_the_split_does_not_have_is_not_made_up(make_trainer, tmp_path):
    """nnU-Net would split at random; where cases are pseudo-labelled, it would validate on them."""
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    for splits, fix in ([], "train fold 'all'"), ([{"train": cases, "val": cases}], "0 to 0"):
        write_json(tmp_path / "splits_final.json", splits)
        trainer.fold = len(splits)
        with pytest.raises(UserError, match=f"has {len(splits)} folds.*{fix}"):
            trainer.do_split()


def test_no_unlabelled_images_is_said_before_the_first_step(make_trainer, monkeypatch, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    trainer.pool.folder = tmp_path / "nothing"
    with pytest.raises(UserError, match="semi_nnunet preprocess -d Dataset"):
        trainer.on_train_start()


def test_a_configuration_that_is_not_preprocessed_is_said_with_the_command(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    trainer.preprocessed_dataset_folder = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"2d is not preprocessed.*semi_nnunet preprocess -d"):
        trainer.do_split()


def test_reasons_are_those_of_the_rules_also_after_planning(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings, SemiMeanTeacherTrainer
    from semi_nnunet.planning.plan import plan_semi

    dataset = prepared_dataset("labels", 1)
    trainers = {"SemiMeanTeacherTrainer": MeanTeacherSettings}
    given = {"epochs": 7}
    plans = dict(dataset.plans)
    plans["semi"], _ = plan_semi(
        plans, dataset.dataset_json, Path(dataset.preprocessed), trainers, given
    )
    plans["semi_planned"] = {"given": given, "semi": copy.deepcopy(plans["semi"])}
    plans["semi"]["2d"]["ramp_up_steps"] = 3  # edited by hand
    trainer = SemiMeanTeacherTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    reasons = trainer.resolved.reasons
    assert reasons["epochs"] == "given in plans['semi']"
    assert reasons["ramp_up_steps"] == "given in plans['semi']['2d']"
    assert reasons["labelled_batch_size"] == "batch size of the nnU-Net plan"
    assert reasons["ema_decay"].startswith("averages about the last")


def test_unknown_setting_stops_at_once_and_names_the_nearest(make_trainer):
    with pytest.raises(UserError, match="did you mean 'ema_decay'"):
        make_trainer("SemiMeanTeacherTrainer", start=False, ema_deccay=0.9)


def test_plans_given_by_the_caller_stay_as_they_were(prepared_dataset):
    from semi_nnunet.methods.supervised import SemiBaselineTrainer

    dataset = prepared_dataset("labels", 1)
    plans = {**dataset.plans, "continue_training": True}
    before = json.dumps(plans, sort_keys=True)
    SemiBaselineTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    assert json.dumps(plans, sort_keys=True) == before


def test_checkpoint_of_another_training_is_refused(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    path = str(Path(trainer.output_folder) / "checkpoint_best.pth")
    with pytest.raises(UserError, match="belongs to another training") as refused:
        make_trainer("SemiUncertaintyAwareTrainer", "3d_fullres", start=False).load_checkpoint(path)
    assert {problem.where for problem in refused.value.problems} >= {
        "trainer",
        "configuration",
        "architecture",
    }
    with pytest.raises(UserError, match="classes or regions"):
        make_trainer("SemiMeanTeacherTrainer", kind="regions", start=False).load_checkpoint(path)


def test_damaged_newest_checkpoint_falls_back_to_the_best_readable_one(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 2)
    folder = Path(trainer.output_folder)
    latest = folder / "checkpoint_latest.pth"
    latest.write_bytes(latest.read_bytes()[:-1000])
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False)
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(latest))
    assert 0 < resumed.current_epoch <= 2
    assert any("WARNING" in line and "checkpoint_latest.pth is damaged" in line for line in log)


def test_changed_settings_are_named_when_training_continues(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, consistency_weight=3.0)
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert any("consistency_weight: 10.0 -> 3.0" in line for line in log)


def test_validation_leaves_ignored_voxels_out_for_student_and_teacher_alike(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind="ignore")
    trainer.companion("teacher").module.load_state_dict(trainer.bare_network.state_dict())
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        output = trainer.validation_step(next(trainer.dataloader_val))
    for key in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(output[f"{key}_hard"], output[f"student_{key}"])


def test_pretrained_weights_reach_the_teacher(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    trainer.initialize()
    with torch.no_grad():
        for parameter in (
            trainer.bare_network.parameters()
        ):  # as nnU-Net's -pretrained_weights does, before training
            parameter.fill_(0.5)
    trainer.on_train_start()
    assert all(
        (parameter == 0.5).all() for parameter in trainer.companion("teacher").module.parameters()
    )


def test_unlabelled_foreground_is_looked_for_where_few_slices_show_any(phantom):
    from dataclasses import replace

    from semi_nnunet.planning.properties import collect_properties
    from semi_nnunet.settings.rules import unlabelled_foreground_oversampling as rule

    facts = collect_properties(phantom.plans, "2d", phantom.dataset_json, phantom.preprocessed)
    shown = [
        (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0).any((1, 2)).mean()
        for path in sorted((phantom.raw / "labelsTr").glob("*.nii.gz"))
    ]
    assert facts.foreground_slices == pytest.approx(np.mean(shown), abs=1e-3)
    assert rule(facts, {})[0] == 0.0  # the patch is the slice
    assert rule(replace(facts, foreground_slices=0.2), {})[0] == 0.33


class TwoStudents(SemiTrainer):
    """Each network learns from the labels and from the other's prediction, in the fewest lines."""

    def companions(self):
        build = self.build_network_architecture
        plans, configuration = self.plans_manager, self.configuration_manager
        heads = self.label_manager.num_segmentation_heads
        return {"second": build(plans, configuration, self.num_input_channels, heads)}

    def terms(self, labelled, unlabelled):
        yield self.supervised(labelled)
        second = self.companion("second")
        yield Term("second", self.loss(second(labelled.x), labelled.target), ramped=False)
        difference = self.probs(self.predict(unlabelled.x_strong)) - self.probs(
            second(unlabelled.x_strong)[0]
        )
        yield Term("agreement", difference.square().mean())


def test_companion_that_takes_a_gradient_is_trained_saved_and_resumed(make_trainer):
    trainer = make_trainer(TwoStudents, start=False)
    trainer.initialize()
    start = weights_of(trainer.companion("second"))
    assert not same_weights(start, weights_of(trainer.bare_network))  # its own initial weights
    run_epochs(trainer, 1)
    assert not same_weights(start, weights_of(trainer.companion("second")))
    path = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    run_epochs_from = make_trainer(TwoStudents, start=False)
    run_epochs_from.load_checkpoint(path)
    for each in (trainer, run_epochs_from):
        run_epochs(each, 3)
    assert same_weights(
        weights_of(trainer.companion("second")), weights_of(run_epochs_from.companion("second"))
    )


def test_mixing_needs_two_unlabelled_patches(make_trainer):
    with pytest.raises(UserError, match=r"at least 2 unlabelled patches on each GPU.*got .* 1 "):
        make_trainer("SemiMeanTeacherTrainer", unlabelled_batch_size=1)
    make_trainer("SemiMeanTeacherTrainer", unlabelled_batch_size=1, cutmix_probability=0.0)


def test_gradient_that_is_no_number_stops_training_before_the_weights_change(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer")
    before = weights_of(trainer.bare_network)
    trainer.bare_network.decoder.seg_layers[-1].weight.register_hook(lambda g: g * float("nan"))
    batch = next(trainer.dataloader_train)
    with pytest.raises(UserError, match="'gradient' became nan") as stopped:
        trainer.train_step(batch)
    assert batch[0]["labelled"]["keys"][0] in str(stopped.value)
    assert same_weights(before, weights_of(trainer.bare_network))


def test_no_gradient_clipping_where_the_limit_is_zero(make_trainer):
    after = []
    for limit in (0.0, 1e9, 1e-3):
        trainer = make_trainer("SemiBaselineTrainer", gradient_clip=limit)
        trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    assert same_weights(after[0], after[1]) and not same_weights(after[0], after[2])


def test_training_that_stopped_early_stays_so_when_continued(make_trainer):
    given = {"epochs": 50, "early_stopping_patience_epochs": 1, "initial_lr": 0.0}
    trainer = make_trainer("SemiBaselineTrainer", start=False, **given)
    trainer.run_training()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    again = make_trainer("SemiBaselineTrainer", start=False, **given)
    again.load_checkpoint(str(final))
    again.run_training()
    assert again.current_epoch == trainer.current_epoch < 50
    assert len(again.history.rows) == len(trainer.history.rows)


def test_more_advanced_best_checkpoint_is_continued_from(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    run_epochs(trainer, 3)
    trainer.current_epoch -= 1
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 3


def test_validation_reads_the_named_checkpoint_and_no_other(make_trainer, prepared_dataset):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    final.write_bytes(b"damaged")
    validating = make_trainer("SemiMeanTeacherTrainer", start=False)
    validating.resuming = False  # as nnUNetv2_train --val
    with pytest.raises(UserError, match=r"checkpoint_final\.pth is damaged"):
        validating.load_checkpoint(str(final))


def test_pool_that_changed_since_the_checkpoint_is_named(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False)
    pool = resumed.unlabelled_cases()
    resumed.pool.all = lambda labelled: pool[:-1]
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert any("unlabelled cases: 4 -> 3" in line for line in log)


def test_misspelt_trainer_section_is_refused_and_another_packages_left_alone(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer

    dataset = prepared_dataset("labels", 1)
    arguments = ("2d", 0, dataset.dataset_json, torch.device("cpu"))
    plans = {**dataset.plans, "semi": {"SemiMeanTeecherTrainer": {}}}
    with pytest.raises(UserError, match="did you mean 'SemiMeanTeacherTrainer'"):
        SemiMeanTeacherTrainer(plans, *arguments)
    SemiMeanTeacherTrainer({**plans, "semi": {"SomebodyElsesTrainer": {"x": 1}}}, *arguments)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_unlabelled_patches_are_pieces_of_the_image_unless_rotation_is_asked_for(
    configuration, make_trainer
):
    trainer = make_trainer("SemiMeanTeacherTrainer", configuration, mirror=False)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    assert unlabelled.mask.all()  # the images are larger than the patch
    dataset = trainer.dataloader_train.dataset.streams["unlabelled"]._data
    for patch, case in zip(unlabelled.x_weak[:, 0].numpy(), unlabelled.keys, strict=True):
        image = dataset.load_case(case)[0][0]
        patch = patch if patch.ndim == 3 else patch[None]
        pieces = np.lib.stride_tricks.sliding_window_view(image, patch.shape)
        assert (pieces == patch).all((-3, -2, -1)).any()
    rotated = make_trainer(
        "SemiMeanTeacherTrainer", configuration, unlabelled_rotation_and_scaling=True
    )
    kinds = [
        type(part).__name__
        for part in rotated.dataloader_train.dataset.streams["unlabelled"].transforms.transforms
    ]
    assert "SpatialTransform" in kinds


@pytest.mark.parametrize("kind", ["gaussian", "linear", "constant"])
def test_weight_of_unlabelled_terms_is_ramp_times_trust_squared(kind, make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, ramp_up_steps=4)
    weight = trainer.unlabelled_weight
    assert weight.reliability == 0.0 and weight.at(100) == 0.0
    weight.reliability = 0.5
    assert [weight.at(step) for step in range(9)] == [0.25 * ramp(kind, s, 4) for s in range(9)]
    papers = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, unlabelled_start_steps=0)
    assert papers.unlabelled_weight.at(10**6) == 1.0
    assert papers.unlabelled_weight.reliability_after(np.array([0.0]), 1) == 1.0
    warmed = {"ramp_up": kind, "unlabelled_start_steps": 3, "ramp_up_steps": 4}
    blind = make_trainer("SemiMeanTeacherTrainer", **warmed, follow_trust=False).unlabelled_weight
    assert blind.reliability_after(np.array([0.0]), 1) == 1.0
    assert [blind.at(s) for s in range(9)] == [0, 0, 0, *(ramp(kind, s, 4) for s in range(6))]


def test_planned_ramp_is_over_before_the_training(phantom):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings
    from semi_nnunet.planning.properties import collect_properties, resolve_settings

    facts = collect_properties(phantom.plans, "2d", phantom.dataset_json, phantom.preprocessed)
    for epochs in (1, 7, 24, 60, 1000):
        plans = {**phantom.plans, "semi": {"epochs": epochs, "steps_per_epoch": 50}}
        planned = resolve_settings(MeanTeacherSettings, "T", "2d", plans, facts).settings
        assert planned.unlabelled_start_steps <= min(2000, 0.41 * epochs * 50)
        assert planned.ramp_up_steps <= 0.41 * epochs * 50


def test_trust_is_dice_above_that_of_calling_everything_the_class():
    tp, fp, fn = np.array([50, 30, 0, 0]), np.array([50, 70, 10, 10]), np.array([0, 20, 5, 0])
    trust = reliability_of_classes(tp, fp, fn, 100)
    assert trust[0] == 0.0  # half is the class, everything was called it
    chance, dice = 2 * 0.5 / 1.5, 60 / 150
    assert trust[1] == max(0.0, (dice - chance) / (1 - chance)) == 0.0
    assert trust[2] == 0.0 and np.isnan(trust[3])
    perfect = reliability_of_classes(np.array([40]), np.array([0]), np.array([0]), 100)
    assert perfect.tolist() == [1.0]
    half = reliability_of_classes(np.array([1]), np.array([1]), np.array([1]), 10**6)
    assert half[0] == pytest.approx(0.5, abs=1e-5)


def test_the_least_known_class_decides_at_first_then_the_mean(make_trainer):
    weight = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=6).unlabelled_weight
    known = np.array([0.9, 0.3, float("nan")])  # no validation patch shows the third
    assert weight.reliability_after(known, 4) == 0.0
    assert weight.reliability_after(known[:2], 4) == pytest.approx(0.3)
    assert weight.reliability_after(known, 6) == pytest.approx(0.6)
    assert weight.reliability_after(known[2:], 8) == 0.0


def test_validation_sets_the_trust_of_the_next_epoch(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=4, start=False)
    log = []
    say, trainer.print_to_log_file = trainer.print_to_log_file, lambda *a, **k: log.append(str(a))
    run_epochs(trainer, 1)
    tp = {"tp_hard": np.array([8, 8, 8]), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.unlabelled_weight.reliability, trainer.step_in_epoch = 0.0, 0
    assert "trust" in trainer.run_log.epoch_values
    assert trainer.reliability.after_validation([{**tp, "voxels": 10**6}], trainer.step) == 1.0
    assert trainer.unlabelled_weight.reliability == 1.0
    assert any("the unlabelled terms begin at step 2" in line for line in log)
    trainer.current_epoch = 3
    nothing = {key: np.zeros(3) for key in tp}
    trainer.reliability.after_validation([{**nothing, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 0.0 and "no class is predicted yet" in log[-1]
    trainer.print_to_log_file = say


def test_trust_in_unknown_is_what_is_known_less_twice_what_augmentation_costs():
    known, augmented = np.array([0.8, 0.5, 0.0, 0.4, 0.9]), np.array([0.4, 0.7, 0.3, 0.0, np.nan])
    assert reliability_on_unknown(known, augmented)[:4].tolist() == pytest.approx(
        [0.2, 0.5, 0.0, 0.0]
    )
    assert np.isnan(reliability_on_unknown(known, augmented)[4])
    assert np.isnan(reliability_on_unknown(augmented, known)[4])


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_trust_of_fold_all_looks_at_the_patches_as_they_are_augmented(make_trainer, kind):
    """Its validation cases are trained on."""
    settings = {"fold": "all", "kind": kind, "unlabelled_start_steps": 4}
    trainer = make_trainer("SemiMeanTeacherTrainer", **settings)
    labelled, _ = trainer.on_device(next(trainer.dataloader_train)[0])
    trainer.supervised(labelled)
    with torch.no_grad():
        logits, target = trainer.outputs(labelled.x)[0], labelled.target[0]
    (tp, fp, fn, voxels), *_ = trainer.reliability.labelled_counts
    looked_at = (
        target[:, -1] == 0 if kind == "regions_ignore" else torch.ones_like(target[:, 0]) > 0
    )
    for place in range(len(tp)):
        if trainer.exclusive:
            said, known = logits.argmax(1) == place + 1, target[:, 0] == place + 1
        else:
            said, known = logits[:, place] > 0, target[:, place] > 0
        assert tp[place] == (said & known & looked_at).sum()
        assert fp[place] == (said & ~known & looked_at).sum()
        assert fn[place] == (known & ~said & looked_at).sum()
        assert voxels[place] == looked_at.sum()
    # what is known whole, and half of it as soon as it is augmented: a quarter of it elsewhere
    count, none = torch.full((len(tp),), 500.0), torch.zeros(len(tp))
    many = torch.full((len(tp),), 1e9)
    of_step = torch.stack([count, count, count, many])
    before = torch.stack([none, count, count, many])  # while the network was still another
    trainer.reliability.labelled_counts[:] = [before] * 6 + [of_step] * 2
    whole = {"tp_hard": count.numpy(), "fp_hard": none.numpy(), "fn_hard": none.numpy()}
    trainer.reliability.after_validation([{**whole, "voxels": 10**9}], trainer.step)
    assert trainer.unlabelled_weight.reliability == pytest.approx(0.25, abs=1e-5)
    assert not trainer.reliability.labelled_counts  # of the next epoch


@pytest.mark.parametrize("kind", ["labels", "regions_ignore"])
def test_validation_looks_at_annotated_voxels_alone(make_trainer, kind):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind=kind)
    batch = next(trainer.dataloader_val)
    target = batch[0]["validation"]["target"][0]
    expected = target[:, -1:] == 0 if kind == "regions_ignore" else torch.ones_like(target[:, :1])
    with torch.no_grad():
        assert trainer.validation_step(batch)["voxels"] == expected.sum()


def test_trust_of_other_folds_is_that_of_their_validation(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", fold=0, unlabelled_start_steps=4)
    trainer.train_step(next(trainer.dataloader_train))
    whole = {"tp_hard": np.full(3, 8), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.reliability.after_validation([{**whole, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 1.0


def test_trust_is_continued_after_a_resume(make_trainer):
    settings = {"start": False, "unlabelled_start_steps": 6}
    trainer = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    run_epochs(trainer, 1)
    trainer.unlabelled_weight.reliability = 0.25
    content = trainer.checkpoint_content(1)
    resumed = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    resumed.load_checkpoint(content)
    assert resumed.unlabelled_weight.reliability == 0.25


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("source", ["labelled", "pseudo_labels"])
def test_rare_classes_weigh_more_by_their_voxels(make_trainer, kind, source):
    settings = {"class_weights_from": source, "epochs": 3, **WITHOUT_RAMP}
    trainer = make_trainer("SemiFixMatchTrainer", kind=kind, **settings)
    counted = trainer.companion("class_frequencies")
    seen = []
    count = counted.count
    counted.count = lambda labels, mask: (seen.append(labels.shape[0]), count(labels, mask))
    trainer.train_step(next(trainer.dataloader_train))
    assert len(seen) == (1 if source == "labelled" else 2)
    waits = make_trainer("SemiFixMatchTrainer", kind=kind, **settings, unlabelled_weight=0.0)
    waits.train_step(next(waits.dataloader_train))
    only = make_trainer(
        "SemiBaselineTrainer", kind=kind, **{**settings, "class_weights_from": "labelled"}
    )
    only.train_step(next(only.dataloader_train))  # what is not followed is not counted, either
    counts = [one.companion("class_frequencies").frequencies for one in (waits, only)]
    assert torch.equal(*counts)
    counted.frequencies.copy_(torch.linspace(0.9, 0.01, len(counted.frequencies)))
    losses = [module for module in trainer.loss.modules() if isinstance(module, DiceAndVoxelLoss)]
    for loss in (*losses, trainer.masked_loss):
        assert torch.equal(loss.class_weights(), counted()) and counted()[-1] > counted()[0]
    assert losses


def test_weights_by_frequencies_are_resumed(make_trainer):
    settings = {"class_weights_from": "pseudo_labels", **WITHOUT_RAMP}
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    run_epochs(trainer, 2)
    again = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    run_epochs(again, 4)
    run_epochs(trainer, 4)
    frequencies = [t.companion("class_frequencies").frequencies for t in (trainer, again)]
    assert torch.equal(*frequencies)
    assert same_weights(weights_of(trainer.bare_network), weights_of(again.bare_network))
    changed = make_trainer("SemiMeanTeacherTrainer", start=False, **WITHOUT_RAMP)
    with pytest.raises(UserError, match=r"plans\['semi'\] differ in class_frequencies"):
        changed.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    with pytest.raises(UserError, match="class_weights_from asks for others"):
        make_trainer("SemiMeanTeacherTrainer", class_weights=[1, 1, 1, 2], **settings)


@pytest.mark.parametrize("mirror, limit", [(False, 30.0), (True, 180.0)])
@pytest.mark.parametrize("name", ["SemiBaselineTrainer", "SemiBCPTrainer"])
def test_where_orientation_matters_labelled_patches_are_rotated_less(
    name, mirror, limit, make_trainer
):
    assert make_trainer(name, mirror=mirror).settings.max_rotation_degrees == limit
    given = make_trainer(name, mirror=mirror, max_rotation_degrees=5.0)
    assert given.settings.max_rotation_degrees == 5.0
