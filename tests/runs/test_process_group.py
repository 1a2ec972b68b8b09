"""A fold is trained by processes that torchrun starts, on one machine or on several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.runs import process_group as launch
from semi_nnunet.util.errors import UserError
from tests.ranks import Training, free_port, plans_with
from tests.runs.tiny import wait_for
from tests.trainers import SHORT, WITHOUT_RAMP

TWO_MACHINES = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d"]
TWO_MACHINES += ["--max_restarts", "1"]
FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # else restarted ones find addresses of the dead


def agent(training: Training, port: int, output: Path, *options: str) -> subprocess.Popen[str]:
    """torchrun on one of the machines; its processes write into the file, too."""
    words = [sys.executable, "-u", "-m", "torch.distributed.run", *TWO_MACHINES]
    words += ["--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "fold", "--local_addr"]
    words += ["127.0.0.1", "-m", "semi_nnunet", "train", *training.words(*options)]
    environment = {**os.environ, "nnUNet_results": str(training.results), FRESH_STORE: "1"}
    with output.open("a", encoding="utf-8") as file:
        return subprocess.Popen(words, env=environment, stdout=file, stderr=file, text=True)


def start_agents(training: Training, folder: Path, *options: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [agent(training, port, folder / f"{name}.txt", *options) for name in "ab"]


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The trainings that an agent has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_bytes().split()
    return [
        int(name)
        for name in listed
        if b"semi_nnunet" in Path(f"/proc/{int(name)}/cmdline").read_bytes()
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_two_machines_train_a_fold_and_continue_by_themselves_after_a_kill(
    prepared_dataset: Any, tmp_path: Path
) -> None:
    dataset = prepared_dataset("labels", 1)
    training = Training(tmp_path / "results", dataset.number)
    outputs = [tmp_path / f"{name}.txt" for name in "ab"]
    settings = {**SHORT, **WITHOUT_RAMP, "epochs": 6}
    with plans_with(dataset, **settings, labelled_batch_size=4, unlabelled_batch_size=4):
        agents = start_agents(training, tmp_path, "--c")
        wait_for(lambda: any("Epoch 2" in name.read_text() for name in outputs), 120)
        (killed,) = children_of(agents[1])
        os.kill(killed, signal.SIGKILL)
        codes = [process.wait(300) for process in agents]
    outputs_text = [name.read_text() for name in outputs]
    assert codes == [0, 0], outputs_text
    assert "training has ended" in outputs_text[0]
    assert all("Loaded " in name for name in outputs_text)
    history = training.checkpoint()["semi"]["history"]
    assert [row["epoch"] for row in history] == list(range(6))
    summary = json.loads((training.folder / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 1


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set the variables of a launcher; by default those of the third of three processes."""
    for name in launch.LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, variables.get(name, "3" if name == "WORLD_SIZE" else "2"))


def test_a_process_is_launched_if_all_variables_are_set_and_there_are_others(monkeypatch) -> None:
    launched(monkeypatch)
    assert launch.is_launched() and not launch.is_first_process()
    launched(monkeypatch, RANK="0")
    assert launch.is_launched() and launch.is_first_process()
    launched(monkeypatch, WORLD_SIZE="1")
    assert not launch.is_launched() and launch.is_first_process()
    launched(monkeypatch)
    monkeypatch.delenv("MASTER_PORT")
    assert not launch.is_launched() and launch.is_first_process()
    with launch.join_process_group("cpu"):
        assert not torch.distributed.is_initialized()


def test_all_options_that_a_launch_cannot_use_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("nnUNetTrainer_5epochs", 2, True)
    assert not [*launch.find_launch_problems(*options)]
    launched(monkeypatch)
    stock, weights, gpus = map(str, launch.find_launch_problems(*options))
    assert "-tr SemiBaselineTrainer" in stock and "set pretrained=FILE" in weights
    assert "started 3 processes" in gpus
    assert not [*launch.find_launch_problems("SemiMeanTeacherTrainer", 1, False)]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UserError, match=r"number 2 \(from 0\) .* has 2. Fix: --nproc_per_node 2"),
        launch.join_process_group("cuda"),
    ):
        pass


def test_on_gpus_the_processes_talk_by_nccl_and_take_the_gpu_of_their_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 5 of two machines with four GPUs each is the second process of the second one."""
    launched(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1")
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", calls.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append("left"))
    with launch.join_process_group("cuda"):
        assert calls == [1, "nccl"]
    assert calls[-1] == "left"
    with pytest.raises(KeyError), launch.join_process_group("cuda"):
        raise KeyError
    assert calls[-1] == "nccl"  # it does not wait for processes that are gone
