"""Which file the networks of a training begin with. See tests/methods/test_pretraining.py, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from semi_nnunet.training.initial_weights import InitialWeights, weights_file
from semi_nnunet.util.errors import UserError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for trainer in ("SemiPretrainTrainer", "SemiBaselineTrainer"):
        folder = tmp_path / f"{trainer}__plans__2d" / "fold_all"
        folder.mkdir(parents=True)
        content = {"network_weights": nn.Conv2d(1, 2, 1).state_dict()}
        torch.save(content, folder / "checkpoint_final.pth")
    return tmp_path


def test_pool_is_what_was_pretrained_with_the_same_plans(results: Path) -> None:
    model = results / "SemiBaselineTrainer__plans__2d"
    expected = results / "SemiPretrainTrainer__plans__2d/fold_all/checkpoint_final.pth"
    assert weights_file("pool", model, "SemiBaselineTrainer", "do it") == expected
    assert weights_file(None, model, "SemiBaselineTrainer", "do it") is None
    with pytest.raises(UserError, match=r"nothing was pre-trained.* Fix: do it"):
        weights_file("pool", results / "SemiBaselineTrainer__b__2d", "SemiBaselineTrainer", "do it")


@pytest.mark.parametrize("end", ["", "fold_all", "fold_all/checkpoint_final.pth"])
def test_a_file_a_fold_or_a_model_may_be_named(results: Path, end: str) -> None:
    model = results / "SemiPretrainTrainer__plans__2d"
    found = weights_file(str(model / end), results, "T", "")
    assert found == model / "fold_all" / "checkpoint_final.pth"


def test_what_does_not_fit_names_the_file(results: Path) -> None:
    path = results / "SemiPretrainTrainer__plans__2d/fold_all/checkpoint_final.pth"
    said: list[str] = []
    initial = InitialWeights(path, lambda classes: nn.Conv2d(1, classes, 1), said.append)
    with pytest.raises(UserError, match=f"pretrained {path}: none of its weights fits"):
        initial.give(nn.Linear(3, 3))
    assert not initial.record and not said


def test_a_hostile_file_is_refused(results: Path) -> None:
    path = results / "hostile.pth"
    torch.save({"network_weights": {}, "more": nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match="can execute code"):
        InitialWeights(path, lambda classes: nn.Conv2d(1, classes, 1), print).give(nn.Linear(1, 1))
