"""Preprocessed cases are predicted as nnU-Net predicts them, each by one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.training import prediction
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.prediction import (
    CasePredictor,
    NextStages,
    append_previous_stage,
    ready_to_predict,
)


@pytest.fixture
def trained(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer")
    predictor = CasePredictor(
        trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json,
        "SemiMeanTeacherTrainer", torch.device("cpu"), (0, 1), None, Ranks(0, 1),
    )  # fmt: skip
    return trainer, predictor


def labelled_folder(trainer) -> Path:
    return Path(trainer.preprocessed_dataset_folder)


def list_cases(trainer) -> list[str]:
    return sorted(path.stem for path in labelled_folder(trainer).glob("*[0-9].b2nd"))


def test_the_logits_are_those_of_nnunets_sliding_window(trained) -> None:
    trainer, predictor = trained
    folder, cases = labelled_folder(trainer), list_cases(trainer)[:1]
    ((case, logits, properties),) = predictor.predict(
        {"student": trainer.network}, folder, cases, "cases", mirror=True
    )
    assert case == cases[0] and "spacing" in properties
    stock = predictor.nnunet_predictor(trainer.network, mirror=True)
    data, _, _, _ = trainer.dataset_class(str(folder), cases).load_case(case)
    with ready_to_predict(trainer.network):
        expected = stock.predict_sliding_window_return_logits(torch.from_numpy(data[:]))
    assert torch.equal(logits["student"], expected.cpu())


@pytest.mark.parametrize("apart", [1, 10])
def test_processes_share_the_cases_and_none_is_lost(trained, monkeypatch, apart) -> None:
    trainer, predictor = trained
    folder, cases = labelled_folder(trainer), list_cases(trainer)
    shards, waits = [], [0, 0, 0]

    def wait(ranks: Ranks) -> None:
        waits[ranks.rank] += 1

    monkeypatch.setattr(prediction, "CASES_APART", apart)
    monkeypatch.setattr(Ranks, "barrier", wait)
    for rank in range(3):
        shard = replace(predictor, ranks=Ranks(rank, 3))
        networks = {"student": trainer.network}
        predictions = shard.predict(networks, folder, cases, "cases", mirror=False)
        shards.append([case for case, _, _ in predictions])
    assert sorted(case for shard in shards for case in shard) == cases
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert len(set(waits)) == 1 and waits[0] >= 1  # else some would wait for ever


def test_the_network_is_in_training_mode_again_after_an_error(trained) -> None:
    network = trained[0].network
    network.train()
    with pytest.raises(ZeroDivisionError), ready_to_predict(network):
        assert not network.training and not network.decoder.deep_supervision
        raise ZeroDivisionError
    assert network.training and network.decoder.deep_supervision


def test_the_previous_stage_is_one_channel_for_each_class(trained) -> None:
    trainer, _ = trained
    image = np.zeros((1, 2, 3, 3), np.float32)
    assert append_previous_stage(image, None, trainer.label_manager) is image
    labels = trainer.label_manager.foreground_labels
    previous = np.zeros((2, 3, 3), np.int8)
    previous[0, 1, 2] = labels[-1]
    channels = append_previous_stage(image, previous, trainer.label_manager)
    assert channels.shape == (1 + len(labels), 2, 3, 3) and channels.dtype == np.float32
    assert channels[1:].sum() == 1 and channels[-1, 0, 1, 2] == 1


def test_a_stage_that_is_not_preprocessed_is_named_with_its_command(trained, tmp_path) -> None:
    _, predictor = trained
    configuration = predictor.configuration
    configuration.configuration["next_stage"] = ["2d"]  # of which nothing lies in tmp_path
    said = list[str]()
    with NextStages(predictor, tmp_path, tmp_path, said.append).only_preprocessed() as stages:
        assert stages == [] and not configuration.next_stage_names
    plans = predictor.plans
    (message,) = said
    command = f"preprocess -d {plans.dataset_name} -c 2d -p {plans.plans_name}"
    assert command in message
