"""A training's loaders: repeatable batches, limited rotation, and the time that steps wait."""

from __future__ import annotations

import math
import time

import pytest
import torch

from semi_nnunet.loading.steps import StepLoader
from semi_nnunet.training.loaders import LoaderWaitLog, describe_waiting
from tests.trainers import same_weights, weights_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_baseline_and_mean_teacher_see_the_same_labelled_batches(make_trainer):
    trainers = [make_trainer(name) for name in ("SemiBaselineTrainer", "SemiMeanTeacherTrainer")]
    assert same_weights(*(weights_of(trainer.bare_network) for trainer in trainers))
    for _ in range(2):
        first, second = (next(trainer.dataloader_train)[0]["labelled"] for trainer in trainers)
        assert torch.equal(first["data"], second["data"]) and first["keys"] == second["keys"]


def draw_cases(trainer, steps):
    batches = (next(trainer.dataloader_train)[0] for _ in range(steps))
    return [case for batch in batches for case in batch["labelled"]["keys"]]


@pytest.mark.parametrize("share, has_pseudo_labels", [(1.0, False), (0.0, True)])
def test_the_share_of_labels_by_people_is_that_of_the_setting(
    share, has_pseudo_labels, make_trainer, monkeypatch
):
    pseudo = make_trainer("SemiBaselineTrainer").do_split()[0][1:]
    monkeypatch.setattr(
        "semi_nnunet.training.loaders.read_pseudo_labelled_cases", lambda folder: {*pseudo}
    )
    trainer = make_trainer("SemiBaselineTrainer", labelled_share=share)
    assert {case in pseudo for case in draw_cases(trainer, 4)} == {has_pseudo_labels}


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_rotation_can_be_limited(make_trainer, configuration):
    def configure(**settings):
        trainer = make_trainer("SemiBaselineTrainer", configuration, start=False, **settings)
        return trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()

    stock_range, flat, stock_patch, axes = configure()
    limited_range, *_ = configure(max_rotation_degrees=10)
    assert limited_range == pytest.approx((-math.radians(10), math.radians(10)))
    unlimited = configure(max_rotation_degrees=180)  # nnU-Net never rotates further
    assert unlimited[0] == stock_range and list(unlimited[2]) == list(stock_patch)
    assert unlimited[1] == flat and unlimited[3] == axes


def test_mirroring_can_be_turned_off_for_training_and_prediction(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", mirror=False)
    assert trainer.inference_allowed_mirroring_axes is None
    for stream in trainer.dataloader_train.dataset.streams.values():
        assert "Mirror" not in str([type(t).__name__ for t in stream.transforms.transforms])
    assert make_trainer("SemiMeanTeacherTrainer").inference_allowed_mirroring_axes == (0, 1)


@pytest.mark.parametrize("mirror, limit", [(False, 30.0), (True, 180.0)])
@pytest.mark.parametrize("name", ["SemiBaselineTrainer", "SemiBCPTrainer"])
def test_labelled_patches_are_rotated_less_if_orientation_matters(
    name, mirror, limit, make_trainer
):
    assert make_trainer(name, mirror=mirror).settings.max_rotation_degrees == limit
    explicit = make_trainer(name, mirror=mirror, max_rotation_degrees=5.0)
    assert explicit.settings.max_rotation_degrees == 5.0


@pytest.mark.parametrize(
    ("share", "device", "augmentation", "fix"),
    [
        (0.4, CPU, "workers", None),
        (0.15, CUDA, "workers", None),
        (0.16, CUDA, "workers", "--set augmentation=device"),
        (0.16, CUDA, "device", "nnUNet_n_proc_DA"),
    ],
)
def test_a_fix_is_named_if_a_gpu_waits_long(share, device, augmentation, fix):
    line = describe_waiting(share, augmentation, device)
    assert f"{share:.0%}" in line and "\n" not in line
    assert fix in line if fix else "Fix" not in line
    assert ("augmentation=device" in line) == (fix is not None and augmentation == "workers")


class SlowBatches:
    """Batches that take a while, the first one longest."""

    def __getitem__(self, step: int) -> int:
        time.sleep(2.0 if step == 0 else 0.02)
        return step


def test_waiting_for_the_first_batch_does_not_count():
    loader = StepLoader(SlowBatches(), 0, 0, False)  # type: ignore[arg-type]
    assert loader.begun is None and next(loader) == 0 and loader.waited == 0
    for _ in range(3):
        next(loader)
    assert 0.06 <= loader.waited < 2.0


def test_waiting_is_logged_once_and_after_the_first_batch():
    log: list[str] = []
    wait_log = LoaderWaitLog("workers", CUDA, log.append)
    loader = StepLoader(SlowBatches(), 0, 0, False)  # type: ignore[arg-type]
    wait_log.log_once(loader)
    wait_log.log_once(iter([1, 2]))  # of another class
    assert not log
    loader.begun, loader.waited = time.perf_counter() - 2, 1.0
    wait_log.log_once(loader)
    wait_log.log_once(loader)
    assert len(log) == 1 and ("50%" in log[0] or "49%" in log[0])


def test_a_training_logs_waiting_after_its_first_epoch(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer")
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    with open(trainer.log_file, encoding="utf-8") as log:
        assert log.read().count("of the time for their batches") == 1
