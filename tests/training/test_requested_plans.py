"""Plans copied by hand, whose names inside are those of others, train nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.training.one_launch import find_requested_plans
from semi_nnunet.util.errors import UserError


@pytest.fixture
def dataset(prepared_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a preprocessed data set, under its own name; nnU-Net finds our trainers."""
    source = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())
    copy = tmp_path / "preprocessed" / source.name
    shutil.copytree(source.preprocessed, copy)
    return copy


def make_as_nnunetv2_train_does(dataset: str, plans: str) -> object:
    trainer, device = "SemiBaselineTrainer", torch.device("cpu")
    return get_trainer_from_args(dataset, "2d", 0, trainer, plans, device=device)


def test_plans_copied_by_hand_do_not_train_into_the_results_of_others(
    dataset: Path, tmp_path: Path
) -> None:
    content = (dataset / "nnUNetPlans.json").read_bytes()
    (dataset / "mine.json").write_bytes(content)
    with pytest.raises(UserError, match="'plans_name' must be 'mine', got 'nnUNetPlans'"):
        make_as_nnunetv2_train_does(dataset.name, "mine")
    assert not list((tmp_path / "results").iterdir())
    assert make_as_nnunetv2_train_does(dataset.name, "nnUNetPlans")


def test_a_data_set_copied_to_another_number_does_not_train_on_the_first(
    dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset, dataset.with_name("Dataset555_Copy"))
    with pytest.raises(UserError, match=f"must be 'Dataset555_Copy', got '{dataset.name}'"):
        make_as_nnunetv2_train_does("Dataset555_Copy", "nnUNetPlans")
    assert not list((tmp_path / "results").iterdir())


def test_plans_from_elsewhere_are_of_no_file() -> None:
    assert find_requested_plans() is None
