"""Loaders of a training: the same labelled batches for every method, shares as asked for."""

from __future__ import annotations

import pytest
import torch

from tests.trainers import same_weights, weights_of


def test_baseline_and_mean_teacher_of_a_seed_see_the_same_labelled_batches(make_trainer):
    trainers = [make_trainer(name) for name in ("SemiBaselineTrainer", "SemiMeanTeacherTrainer")]
    assert same_weights(*(weights_of(trainer.bare_network) for trainer in trainers))
    for _ in range(2):
        first, second = (next(trainer.dataloader_train)[0]["labelled"] for trainer in trainers)
        assert torch.equal(first["data"], second["data"]) and first["keys"] == second["keys"]


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
