"""Preprocessed cases are predicted as nnU-Net predicts them, each by one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.prediction import CasePredictor, ready_to_predict, with_previous_stage


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


def cases_of(trainer) -> list[str]:
    return sorted(path.stem for path in labelled_folder(trainer).glob("*[0-9].b2nd"))


def test_the_logits_are_those_of_nnunets_sliding_window(trained) -> None:
    trainer, predictor = trained
    folder, cases = labelled_folder(trainer), cases_of(trainer)[:1]
    ((case, logits, properties),) = predictor.predict(
        {"one": trainer.network}, folder, cases, "cases", mirror=True
    )
    assert case == cases[0] and "spacing" in properties
    stock = predictor.nnunet_predictor(trainer.network, mirror=True)
    data, _, _, _ = trainer.dataset_class(str(folder), cases).load_case(case)
    with ready_to_predict(trainer.network):
        expected = stock.predict_sliding_window_return_logits(torch.from_numpy(data[:]))
    assert torch.equal(logits["one"], expected.cpu())


def test_processes_share_the_cases_and_none_is_lost(trained) -> None:
    trainer, predictor = trained
    folder, cases = labelled_folder(trainer), cases_of(trainer)
    found = []
    for number in range(3):
        one = replace(predictor, ranks=Ranks(number, 3))
        networks = {"one": trainer.network}
        found.append([c for c, _, _ in one.predict(networks, folder, cases, "cases", mirror=False)])
    assert (
        sorted(case for part in found for case in part) == cases
        and max(map(len, found)) - min(map(len, found)) <= 1
    )


def test_the_network_trains_on_as_before_after_an_error(trained) -> None:
    network = trained[0].network
    network.train()
    with pytest.raises(ZeroDivisionError), ready_to_predict(network):
        assert not network.training and not network.decoder.deep_supervision
        raise ZeroDivisionError
    assert network.training and network.decoder.deep_supervision


def test_the_previous_stage_comes_as_one_channel_for_each_class(trained) -> None:
    trainer, _ = trained
    image = np.zeros((1, 2, 3, 3), np.float32)
    assert with_previous_stage(image, None, trainer.label_manager) is image
    labels = trainer.label_manager.foreground_labels
    previous = np.zeros((2, 3, 3), np.int8)
    previous[0, 1, 2] = labels[-1]
    found = with_previous_stage(image, previous, trainer.label_manager)
    assert found.shape == (1 + len(labels), 2, 3, 3) and found.dtype == np.float32
    assert found[1:].sum() == 1 and found[-1, 0, 1, 2] == 1
