"""A real nnUNetv2_train, killed with SIGKILL and continued, ends like an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.training.interruptions import EXIT_CODE
from tests.runs.interrupting import in_a_group, press_ctrl_c_twice
from tests.runs.tiny import trainings_with, wait_for
from tests.warm import warm

PLANS = "nnUNetPlans_kill"
TRAIN = "from nnunetv2.run.run_training import run_training_entry as run; run()"
PREDICT = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point as run; run()"


def start(code: str, arguments: list[str], results: Path) -> subprocess.Popen:
    """Start one of nnU-Net's own commands in its own process group."""
    environment = {
        **os.environ,
        "nnUNet_results": str(results),
        "nnUNet_extTrainer": str(TRAINERS_FOLDER),
        "OMP_WAIT_POLICY": "passive",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        warm([sys.executable, "-c", code, *arguments]),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train(
    results: Path,
    *options: str,
    kill_at: str | None = None,
    by: signal.Signals = signal.SIGKILL,
    code: int = -signal.SIGKILL,
    plans: str = PLANS,
) -> str:
    """Run nnUNetv2_train to its end, or kill it at a line with ``kill_at``; return its output."""
    arguments = ["901", "2d", "0", "-tr", "SemiMeanTeacherTrainer", "-p", plans, "-device", "cpu"]
    process = start(TRAIN, [*arguments, *options], results)
    said, expected = [], 0
    for line in process.stdout:
        said.append(line)
        if kill_at is not None and kill_at in line:
            os.killpg(process.pid, by)
            kill_at, expected = None, code
    process.wait()
    assert process.returncode == expected, "".join(said[-20:])
    return "".join(said)


def final_checkpoint(results: Path) -> dict:
    path = next(results.glob("Dataset901_*/*/fold_0/checkpoint_final.pth"))
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_killed_and_continued_training_equals_an_uninterrupted_one(phantom, tmp_path):
    settings = ["epochs=5", "steps_per_epoch=3", "validation_steps_per_epoch=1"]
    settings += ["save_every_epochs=1", "2d.labelled_batch_size=2", "2d.unlabelled_batch_size=2"]
    plan = ["plan", "-d", "901", "--new-plans", PLANS, "--budget", "cpu", "--set", *settings]
    assert main(plan) == 0
    train(tmp_path / "whole")
    train(tmp_path / "killed", kill_at="Epoch 2")
    asked = tmp_path / "asked"  # by a cluster that takes the machine away
    said = train(asked, kill_at="Epoch 2", by=signal.SIGTERM, code=EXIT_CODE)
    assert "SIGTERM: saved, continue with --c" in said and "Traceback" not in said
    for folder in (tmp_path / "killed", asked):
        assert not list(folder.glob("*/*/fold_0/checkpoint_final.pth"))
        assert "Loaded " in train(folder, "--c")
        whole, continued = final_checkpoint(tmp_path / "whole"), final_checkpoint(folder)
        for part in ("network_weights", "student"):
            first, second = (
                each[part] if part in each else each["semi"][part] for each in (whole, continued)
            )
            assert all(torch.equal(first[name], second[name]) for name in first), part

    images, out = phantom.raw / "imagesTs", tmp_path / "predictions"
    where = ["-d", "901", "-c", "2d", "-f", "0", "-tr", "SemiMeanTeacherTrainer", "-p", PLANS]
    options = ["-i", str(images), "-o", str(out), "-device", "cpu", "-npp", "1", "-nps", "1"]
    process = start(PREDICT, [*where, *options], tmp_path / "killed")
    said, _ = process.communicate()
    assert process.returncode == 0, said[-2000:]
    expected = {path.name.replace("_0000", "") for path in images.iterdir()}
    assert expected and expected == {path.name for path in out.glob("*.nii.gz")}


@pytest.mark.slow
def test_a_mistake_in_nnunets_command_is_a_message_without_a_traceback(phantom, tmp_path):
    plans = PLANS + "_wrong"
    assert main(["plan", "-d", "901", "--new-plans", plans]) == 0
    path = phantom.preprocessed / f"{plans}.json"
    path.write_text(path.read_text().replace('"semi": {', '"semi": {"ema_decai": 1.5, ', 1))
    arguments = ["901", "2d", "0", "-tr", "SemiMeanTeacherTrainer", "-p", plans, "-device", "cpu"]
    process = start(TRAIN, arguments, tmp_path)
    said, _ = process.communicate()
    assert process.returncode != 0
    assert "semi_nnunet: error:" in said and "ema_decai" in said and "Traceback" not in said


@pytest.mark.slow
def test_ctrl_c_pressed_twice_ends_nnunets_command_and_its_workers(phantom, tmp_path):
    settings = ["epochs=400", "steps_per_epoch=3", "validation_steps_per_epoch=1"]
    settings += ["save_every_epochs=1", "2d.labelled_batch_size=2", "2d.unlabelled_batch_size=2"]
    plans, log = PLANS + "_ctrl_c", tmp_path / "log"
    plan = ["plan", "-d", "901", "--new-plans", plans, "--budget", "cpu", "--set", *settings]
    assert main(plan) == 0
    words = ["901", "2d", "0", "-tr", "SemiMeanTeacherTrainer", "-p", plans, "-device", "cpu"]
    variables = {
        "nnUNet_results": str(tmp_path), "nnUNet_extTrainer": str(TRAINERS_FOLDER),
        "nnUNet_n_proc_DA": "2",
    }  # fmt: skip
    process = in_a_group([sys.executable, "-u", "-c", TRAIN, *words, "--c"], log, variables)
    try:
        wait_for(lambda: list(tmp_path.glob("*/*/fold_0/checkpoint_latest.pth")), 120)
        press_ctrl_c_twice(process, 0.05)
        process.wait(30)
    finally:
        process.kill()
    said = log.read_text()
    assert process.returncode in (-signal.SIGINT, 130) and "Traceback" not in said, said[-3000:]
    assert "interrupted" in said and "--c" in said
    wait_for(lambda: not trainings_with(str(tmp_path)), 20)
    again = train(tmp_path, "--c", plans=plans, kill_at="Epoch ")
    assert "Loaded " in again
