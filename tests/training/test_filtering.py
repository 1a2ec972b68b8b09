"""Uncertainty-based image filtering in a training."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from semi_nnunet.training import filtering
from semi_nnunet.util.errors import UserError
from tests.trainers import UNLABELLED_TRAINERS, each_of, run_epochs, same_weights, weights_of

SCORES = ["disagreement", "checkpoints", "entropy", "change"]
SHORT = {"start": False, "filter_keep": 2}


def test_the_least_uncertain_cases_by_fraction_and_by_number():
    scores = {"c": 0.1, "a": 0.9, "b": 0.5, "d": 0.5}
    assert filtering.select_least_uncertain(scores, 0.5) == ["b", "c"]
    assert filtering.select_least_uncertain(scores, 3) == ["b", "c", "d"]
    assert filtering.select_least_uncertain(scores, 0.0) == ["c"]
    assert filtering.select_least_uncertain(scores, 100) == ["a", "b", "c", "d"]


def read_table(trainer, epoch):
    with open(Path(trainer.output_folder) / f"filter_epoch_{epoch}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["SemiMeanTeacherTrainer", "SemiCPSTrainer"])
@pytest.mark.parametrize(
    "score", [pytest.param(s, marks=() if s == "change" else pytest.mark.slow) for s in SCORES]
)
def test_training_continues_with_the_least_uncertain_images(score, name, make_trainer):
    epochs = [1, 3] if score == "change" else [3]
    trainer = make_trainer(name, filter_epochs=epochs, filter_score=score, **SHORT)
    run_epochs(trainer, 4)
    rows = read_table(trainer, 3)
    assert {row["case"] for row in rows} == set(trainer.unlabelled_selection().in_fold)
    uncertainty = [float(row["score"]) for row in rows]
    assert uncertainty == sorted(uncertainty) and 0 <= uncertainty[0] <= uncertainty[-1] <= 1
    kept = {row["case"] for row in rows if row["kept"] == "1"}
    assert [row["kept"] for row in rows] == ["1", "1", "0", "0"]
    assert set(trainer.unlabelled_selection().trained_on) == kept
    assert set(trainer.dataloader_train.dataset.streams["unlabelled"]._data.identifiers) == kept
    assert len(trainer.unlabelled_selection().in_fold) == 4  # the others can come back


@each_of(UNLABELLED_TRAINERS)
def test_every_trainer_can_filter_by_its_default_score(name, make_trainer):
    trainer = make_trainer(name, filter_epochs=[1], **SHORT)
    run_epochs(trainer, 2)
    assert len(read_table(trainer, 1)) == 4 and len(trainer.unlabelled_selection().trained_on) == 2


@pytest.mark.parametrize("kind", ["regions", "regions_ignore", "ignore"])
def test_every_kind_of_labels_is_scored(kind, make_trainer):
    for score in ("entropy", "disagreement"):
        trainer = make_trainer(
            "SemiCPSTrainer", "3d_fullres", kind, filter_epochs=[1], filter_score=score, **SHORT
        )
        run_epochs(trainer, 2)
        assert len(trainer.unlabelled_selection().trained_on) == 2


@pytest.mark.parametrize("score", SCORES)
def test_resuming_after_a_filtering_equals_never_having_stopped(score, make_trainer, tmp_path):
    settings = {"filter_epochs": [1, 2], "filter_score": score, **SHORT}
    trainer = make_trainer("SemiMeanTeacherTrainer", **settings)
    run_epochs(trainer, 4)
    whole, kept = weights_of(trainer.bare_network), trainer.unlabelled_selection().trained_on
    for stop in (2, 3):  # before and after the second filtering
        shutil.rmtree(tmp_path / "results")
        trainer = make_trainer("SemiMeanTeacherTrainer", **settings)
        run_epochs(trainer, stop)
        resumed = make_trainer("SemiMeanTeacherTrainer", **settings)
        resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        run_epochs(resumed, 4)
        assert resumed.unlabelled_selection().trained_on == kept
        assert same_weights(whole, weights_of(resumed.bare_network))


def test_labels_of_a_round_come_back_as_they_were(tmp_path):
    labels = torch.rand(3, 5, 7, 4) < 0.5
    filtering.write_round_labels(tmp_path / "1" / "case.npz", labels)
    assert torch.equal(filtering.read_round_labels(tmp_path / "1" / "case.npz", "case"), labels)
    with pytest.raises(UserError, match="b is missing"):
        filtering.read_round_labels(tmp_path / "1" / "b.npz", "b")


def test_impossible_epochs_are_rejected_before_the_first_step(make_trainer):
    with pytest.raises(UserError, match=r"filter_epochs.*\[9\]"):
        make_trainer("SemiMeanTeacherTrainer", filter_epochs=[2, 9])
    make_trainer("SemiMeanTeacherTrainer", filter_epochs=[2])


def test_scoring_leaves_the_networks_as_they_were(make_trainer):
    trainer = make_trainer("SemiCPSTrainer", filter_epochs=[2])
    networks = [trainer.bare_network, trainer.companion("second")]
    before = [weights_of(network) for network in networks]
    trainer.pool.filter.filter_cases(
        2, trainer.pool.folder, trainer.unlabelled_selection().in_fold, trainer.predictor
    )
    for network, weights in zip(networks, before, strict=True):
        assert same_weights(weights, weights_of(network))
        assert network.training and network.decoder.deep_supervision
