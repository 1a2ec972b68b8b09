"""The time that a case takes is that of its tiles, mirrored images and file."""

from __future__ import annotations

import pytest

from semi_nnunet.benchmarking import prediction
from semi_nnunet.benchmarking.prediction import case_of_median_size, seconds_of_case
from semi_nnunet.benchmarking.work import Work, aside, ready
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.timing import Seconds


@pytest.fixture
def trainer(prepared_dataset, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    work = Work(prepared_dataset().name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)
    with aside():
        yield ready(work, BASELINE)


def test_passes_are_as_many_as_nnunet_makes(trainer, monkeypatch) -> None:
    """Its own sliding window calls the network as often as is counted here."""
    import torch

    calls = []
    shape, _ = case_of_median_size(trainer)
    predictor = trainer.predictor.nnunet_predictor(trainer.bare_network, mirror=True)
    trainer.set_deep_supervision_enabled(False)
    trainer.bare_network.register_forward_hook(lambda *_: calls.append(1))
    predictor.predict_sliding_window_return_logits(torch.zeros((1, *shape)))
    passes = len(calls)
    monkeypatch.setattr(prediction, "in_turn", lambda *_, **__: {"pass": Seconds(2.0, 2.0, 2.0)})
    monkeypatch.setattr(prediction, "seconds_of_file", lambda *_: 100.0)
    assert seconds_of_case(trainer) == 2.0 * passes + 100.0 > 104.0


def test_it_is_measured_and_leaves_the_network_as_it_was(trainer) -> None:
    training = trainer.bare_network.training
    assert 0 < seconds_of_case(trainer) < 60 and trainer.bare_network.training == training


def test_the_case_is_of_median_size(trainer, monkeypatch) -> None:
    sizes = {"a": 90, "b": 10, "c": 50}

    class Cases:
        def __init__(self, folder, names):
            assert set(names) <= set(sizes)

        def load_case(self, name):
            import numpy as np

            return np.zeros((1, 1, sizes[name], 2)), None, None, {"name": name}

    monkeypatch.setattr(trainer, "dataset_class", Cases)
    monkeypatch.setattr(trainer, "labelled_identifiers", lambda: sorted(sizes))
    assert case_of_median_size(trainer) == ([1, 50, 2], {"name": "c"})
