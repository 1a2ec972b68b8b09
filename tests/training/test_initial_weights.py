"""The checkpoint of a training's initial weights; see also tests/methods/test_pretraining.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from semi_nnunet.training.initial_weights import InitialWeights, find_initial_weights
from semi_nnunet.util.errors import UserError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for trainer in ("SemiPretrainTrainer", "SemiBaselineTrainer"):
        folder = tmp_path / f"{trainer}__plans__2d" / "fold_all"
        folder.mkdir(parents=True)
        content = {"network_weights": nn.Conv2d(1, 2, 1).state_dict()}
        torch.save(content, folder / "checkpoint_final.pth")
    return tmp_path


def test_pool_is_the_checkpoint_pretrained_with_the_same_plans(results: Path) -> None:
    model = results / "SemiBaselineTrainer__plans__2d"
    expected = results / "SemiPretrainTrainer__plans__2d/fold_all/checkpoint_final.pth"
    assert find_initial_weights("pool", model, "SemiBaselineTrainer", "do it") == expected
    assert find_initial_weights(None, model, "SemiBaselineTrainer", "do it") is None
    model = results / "SemiBaselineTrainer__b__2d"
    with pytest.raises(UserError, match="pool") as error:
        find_initial_weights("pool", model, "SemiBaselineTrainer", "do it")
    assert error.value.fix == "do it"


@pytest.mark.parametrize("end", ["", "fold_all", "fold_all/checkpoint_final.pth"])
def test_a_file_a_fold_or_a_model_may_be_named(results: Path, end: str) -> None:
    model = results / "SemiPretrainTrainer__plans__2d"
    path = find_initial_weights(str(model / end), results, "T", "")
    assert path == model / "fold_all" / "checkpoint_final.pth"


def test_weights_of_another_architecture_are_rejected_with_the_file(results: Path) -> None:
    path = results / "SemiPretrainTrainer__plans__2d/fold_all/checkpoint_final.pth"
    log: list[str] = []
    initial = InitialWeights(path, lambda classes: nn.Conv2d(1, classes, 1), log.append)
    with pytest.raises(UserError, match=str(path)):
        initial.load_into(nn.Linear(3, 3))
    assert not initial.record and not log


def test_a_file_that_can_execute_code_is_rejected(results: Path) -> None:
    path = results / "hostile.pth"
    torch.save({"network_weights": {}, "more": nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match="execute code"):
        InitialWeights(path, lambda classes: nn.Conv2d(1, classes, 1), print).load_into(
            nn.Linear(1, 1)
        )
