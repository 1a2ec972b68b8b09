"""What to type next fits the machine and the plans, and can be typed."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.cli.main import build_parser
from semi_nnunet.runs.next_step import to_preprocess, to_train
from semi_nnunet.util.files import write_json


@pytest.fixture
def dataset(empty, monkeypatch) -> str:
    """A data set with plans of nnU-Net's and planned ones, on a machine without a GPU."""
    monkeypatch.setenv("nnUNet_preprocessed", str(empty.preprocessed.parent))
    for name, more in (("nnUNetPlans", {}), ("small", {"semi_planned": {}})):
        content = {"plans_name": name, "configurations": {"2d": {}}, **more}
        write_json(empty.preprocessed / f"{name}.json", content)
    has_gpu(monkeypatch)
    return str(empty.preprocessed.name)


def has_gpu(monkeypatch, cuda: bool = False, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_without_a_gpu_networks_are_planned_smaller_first(dataset):
    plan, train = to_train(dataset, "nnUNetPlans", "2d")
    parsed = build_parser("plan").parse_args(plan.split()[1:])
    assert (parsed.dataset, parsed.plans, parsed.budget) == (dataset, "nnUNetPlans", "cpu")
    assert train.startswith(f"nnUNetv2_train {dataset} 2d 0 -tr ")
    assert train.endswith(" -p nnUNetPlans_cpu -device cpu")


def test_the_fold_of_all_cases_is_trained_where_there_is_no_other(dataset):
    for command in to_train(dataset, "nnUNetPlans", "2d", "all")[1:]:
        assert command.startswith(f"nnUNetv2_train {dataset} 2d all -tr ")


def test_plans_that_were_planned_are_trained_as_they_are(dataset):
    (train,) = to_train(dataset, "small", "2d")
    assert train.endswith(" -p small -device cpu")


@pytest.mark.parametrize(("kind", "device"), [("cuda", ""), ("mps", " -device mps")])
def test_a_gpu_trains_what_nnunet_planned(dataset, monkeypatch, kind, device):
    has_gpu(monkeypatch, **{kind: True})
    (train,) = to_train(dataset, "nnUNetPlans", "2d")
    assert train == f"nnUNetv2_train {dataset} 2d 0 -tr SemiMeanTeacherTrainer{device}"
    (train,) = to_train(dataset, "small", "2d")
    assert train.endswith(f" -p small{device}")


def test_what_preprocesses_is_one_of_our_commands():
    words = to_preprocess("Dataset500_Empty", "small", ["2d", "3d_fullres"]).split()
    parsed = build_parser("preprocess").parse_args(words[1:])
    assert (parsed.dataset, parsed.plans) == ("Dataset500_Empty", "small")
    assert parsed.configurations == ["2d", "3d_fullres"] and words[0] == "semi_nnunet"
