"""Companions of the student: trained, validated, saved and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.training.companions import log_changed_annotation
from semi_nnunet.training.trainer import SemiTrainer, Term
from semi_nnunet.util.errors import UserError
from tests.trainers import partially_annotated, run_epochs, same_weights, weights_of


def test_validation_ignores_the_same_voxels_for_student_and_teacher(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind="ignore")
    trainer.companion("teacher").module.load_state_dict(trainer.bare_network.state_dict())
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        output = trainer.validation_step(next(trainer.dataloader_val))
    for key in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(output[f"{key}_hard"], output[f"student_{key}"])


class TwoStudents(SemiTrainer):
    """Two networks that learn from labels and from each other."""

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
    resumed = make_trainer(TwoStudents, start=False)
    resumed.load_checkpoint(path)
    for item in (trainer, resumed):
        run_epochs(item, 3)
    assert same_weights(
        weights_of(trainer.companion("second")), weights_of(resumed.companion("second"))
    )


@pytest.mark.parametrize("kind", ["labels", "regions_ignore"])
def test_validation_evaluates_only_annotated_voxels(make_trainer, kind):
    trainer = make_trainer("SemiMeanTeacherTrainer", kind=kind)
    batch = next(trainer.dataloader_val)
    target = batch[0]["validation"]["target"][0]
    expected = target[:, -1:] == 0 if kind == "regions_ignore" else torch.ones_like(target[:, :1])
    with torch.no_grad():
        assert trainer.validation_step(batch)["voxels"] == expected.sum()


def test_a_checkpoint_without_a_companion_is_refused(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer")
    before = weights_of(trainer.companion("teacher"))
    content = trainer.checkpoint_content(1)
    stored = content["semi"]["companions"]
    content["semi"]["companions"] = {k: v for k, v in stored.items() if "teacher" not in k}
    with pytest.raises(UserError, match="teacher"):
        trainer.load_checkpoint(content)
    assert same_weights(before, weights_of(trainer.companion("teacher")))


def test_changed_annotations_are_logged_when_a_training_continues():
    stored = {"case_1": ["large"], "MSD_*": ["small"], "case_2": ["large"]}
    current = {"case_1": ["large"], "MSD_*": ["small", "large"], "case_3": ["large"]}
    log: list[str] = []
    log_changed_annotation({"annotated": stored}, {"annotated": current}, log.append)
    (line,) = log
    assert line.startswith("WARNING") and line.endswith("MSD_*, case_2, case_3")
    log_changed_annotation({"annotated": None}, {"annotated": current}, log.append)
    assert "case_1, MSD_*, case_3" in log[1]
    unchanged = {"annotated": current}
    for semi, content in ((unchanged, unchanged), ({}, unchanged), ({"annotated": None}, {})):
        log_changed_annotation(semi, content, log.append)
    assert len(log) == 2


def test_a_checkpoint_stores_the_annotated_classes(make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset("labels", 1), "labels")
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset)
    content = trainer.checkpoint_content(1)
    assert content["semi"]["annotated"] == trainer.dataset_json["annotated"] != {}
    log: list[str] = []
    trainer.say = lambda *words: log.append(" ".join(words))
    trainer.dataset_json = {**trainer.dataset_json, "annotated": {}}
    trainer.restore(content)
    assert any("annotated classes" in line for line in log)
