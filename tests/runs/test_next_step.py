"""What to type next fits the machine and the plans, and can be typed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semi_nnunet.util.files import write_json
from semi_nnunet.workflows.next_step import (
    detect_device,
    format_device_option,
    format_next_lines,
    suggest_after_measuring,
    suggest_measuring,
    suggest_preprocessing,
    suggest_training,
)
from tests.runs.jobs import BASE, OURS, fake_job, leave
from tests.runs.parsing import parse_command


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
    plan, preprocess, train = suggest_training(dataset, "nnUNetPlans", "2d")
    parsed = parse_command(plan.split())
    assert (parsed.dataset, parsed.plans, parsed.budget) == (dataset, "nnUNetPlans", "cpu")
    parsed = parse_command(preprocess.split())  # coarser images are other files
    assert (parsed.plans, parsed.configurations) == ("nnUNetPlans_cpu", ["2d"])
    assert train.startswith(f"nnUNetv2_train {dataset} 2d 0 -tr ")
    assert train.endswith(" -p nnUNetPlans_cpu -device cpu")


def test_the_fold_of_all_cases_is_trained_where_there_is_no_other(dataset):
    for command in suggest_training(dataset, "nnUNetPlans", "2d", "all")[2:]:
        assert command.startswith(f"nnUNetv2_train {dataset} 2d all -tr ")


def test_plans_that_were_planned_are_trained_as_they_are(dataset):
    (train,) = suggest_training(dataset, "small", "2d")
    assert train.endswith(" -p small -device cpu")


@pytest.mark.parametrize(("gpu", "device"), [("cuda", ""), ("mps", " -device mps")])
def test_a_gpu_trains_nnunets_plans(dataset, monkeypatch, gpu, device):
    has_gpu(monkeypatch, **{gpu: True})
    (train,) = suggest_training(dataset, "nnUNetPlans", "2d")
    assert train == f"nnUNetv2_train {dataset} 2d 0 -tr SemiUnifiedTrainer{device}"
    (train,) = suggest_training(dataset, "small", "2d")
    assert train.endswith(f" -p small{device}")


def test_the_suggested_preprocessing_is_one_of_our_commands():
    words = suggest_preprocessing("Dataset500_Empty", "small", ["2d", "3d_fullres"]).split()
    parsed = parse_command(words)
    assert (parsed.dataset, parsed.plans) == ("Dataset500_Empty", "small")
    assert parsed.configurations == ["2d", "3d_fullres"] and words[0] == "semi_nnunet"


def test_the_device_is_the_machines(monkeypatch):
    for kinds, device in (({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda")):
        has_gpu(monkeypatch, **kinds)
        assert detect_device() == device
        assert format_device_option() == (() if device == "cuda" else ("-device", device))
    assert format_device_option("cpu") == ("-device", "cpu")  # though there is a GPU


def test_trainings_by_hand_are_measured_by_one_command(empty, monkeypatch):
    has_gpu(monkeypatch)
    jobs = [replace(fake_job(empty, name), fold=fold) for name in (BASE, OURS) for fold in "01"]
    assert suggest_measuring(jobs, "tiny") == []  # nothing is trained
    for job in jobs:
        leave(job)
    (command,) = suggest_measuring(jobs, "tiny")
    parsed = parse_command(command.split())
    assert (parsed.dataset, parsed.plans) == (empty.results.name, "tiny")
    assert (parsed.trainers, parsed.configurations) == ([BASE, OURS], ["2d"])
    assert (parsed.folds, parsed.seeds) == (["0", "1"], 1)
    assert parsed.launcher.device == "cpu"
    of_another_seed = replace(jobs[3], seed=2, plans="tiny_seed2")
    leave(of_another_seed)
    alone, seeds = suggest_measuring([*jobs[:2], of_another_seed], "tiny")
    assert f"-tr {BASE} -f 0 1 --device" in alone and f"-tr {OURS} -f 1 --seeds 3" in seeds


def test_a_training_on_all_cases_needs_labelled_test_images(empty):
    job = replace(fake_job(empty, OURS), fold="all")
    leave(job)
    need, command = suggest_measuring([job], "tiny")
    assert f"imagesTs and labelsTs of {empty.raw}" in need
    assert command.startswith("semi_nnunet crossval") and " -f all " in command


def test_predictions_in_a_folder_of_the_users_lead_to_the_trainings(empty, monkeypatch, tmp_path):
    has_gpu(monkeypatch)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(getattr(empty, name).parent))
    predictions, name = tmp_path / "predictions", empty.results.name
    predictions.mkdir()
    assert suggest_after_measuring(predictions) == []  # their plans are unknown
    plans = {"dataset_name": name, "plans_name": "tiny"}
    write_json(predictions / "plans.json", plans)
    assert suggest_after_measuring(predictions) == []  # nothing is trained here
    leave(fake_job(empty, OURS))
    measure, baseline, compare = suggest_after_measuring(predictions)
    assert f"-tr {BASE} -f 0 " in baseline
    write_json(predictions / "plans.json", {})
    record = {"model": f"{name}/{OURS}__tiny_seed1__2d"}
    write_json(predictions / "semi_predicted_from.json", record)
    assert suggest_after_measuring(predictions) == [measure, baseline, compare]
    assert measure.startswith("semi_nnunet crossval ") and measure.endswith(" --device cpu")
    assert compare == f"semi_nnunet compare -d {name} -p tiny"
    assert format_next_lines([measure, compare]) == f"next: {measure}\n      {compare}"
    write_json(predictions / "plans.json", {**plans, "dataset_name": "Dataset501_Elsewhere"})
    assert suggest_after_measuring(predictions) == []
