"""The cost of a training adds up over interruptions and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from semi_nnunet.training import cost
from semi_nnunet.training.cost import (
    MachineShare,
    RecordedCost,
    TrainingCost,
    describe_machine,
    read_cost,
)
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs

CPU = torch.device("cpu")


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(cost.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def run_epoch(training: TrainingCost, clock: Clock, seconds: float) -> float:
    training.start()
    clock.now += seconds
    return training.stop()


def share_of(machine: str, seconds: float, memory: float) -> dict:
    return {"machine": machine, "seconds": seconds, "memory_gib": memory, "gpu_memory_gib": None}


def test_epochs_add_up_and_the_time_between_them_does_not_count(clock):
    training = TrainingCost(CPU, 1)
    assert training.state() == []
    assert run_epoch(training, clock, 7.0) == 7.0
    clock.now += 1000
    assert run_epoch(training, clock, 5.0) == 5.0
    (share,) = training.state()
    assert share["seconds"] == 12.0 and share["machine"] == describe_machine(CPU)
    assert share["memory_gib"] > 0.01 and share["gpu_memory_gib"] is None


def test_a_checkpoint_within_an_epoch_includes_its_finished_steps(clock):
    training = TrainingCost(CPU, 1)
    run_epoch(training, clock, 7.0)
    training.start()
    clock.now += 3
    state = training.state()
    clock.now += 50  # lost with the process
    resumed = TrainingCost(CPU, 1)
    resumed.restore(json.loads(json.dumps(state)))
    assert run_epoch(resumed, clock, 2.0) == 2.0
    assert [share["seconds"] for share in resumed.state()] == [12.0]


def test_every_machine_has_a_share_and_the_highest_memory_counts(clock, monkeypatch):
    machine = describe_machine(CPU)
    training = TrainingCost(CPU, 1)
    training.restore([share_of("another", 60.0, 2.0), share_of(machine, 5.0, 4000.0)])
    run_epoch(training, clock, 1.0)
    assert training.state() == [share_of("another", 60.0, 2.0), share_of(machine, 6.0, 4000.0)]


def test_the_cost_is_unknown_if_the_beginning_was_not_recorded(clock, tmp_path):
    training = TrainingCost(CPU, 1)
    training.restore(None)
    assert run_epoch(training, clock, 9.0) == 9.0 and training.state() is None
    training.write(tmp_path)
    assert read_cost(tmp_path) == RecordedCost()


def test_the_file_has_training_and_validation(clock, tmp_path):
    assert read_cost(tmp_path) == RecordedCost()
    training = TrainingCost(CPU, 1)
    training.restore([share_of("another", 60.0, 2.0)])
    training.write_validation(tmp_path, seconds=12.0, cases=4)
    shares = (MachineShare("another", 60.0, 2.0, None),)
    assert read_cost(tmp_path) == RecordedCost(shares, describe_machine(CPU), 3.0)
    training.write_validation(tmp_path, seconds=12.0, cases=0)
    assert read_cost(tmp_path) == RecordedCost(shares)
    training.write(tmp_path)  # another training: its validation is not there yet
    assert read_cost(tmp_path) == RecordedCost(shares)
    (tmp_path / cost.COST_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="JSON"):
        read_cost(tmp_path)


def test_a_machine_is_named_by_processor_and_threads_or_gpu(monkeypatch):
    monkeypatch.setattr(cost, "processor_name", lambda: "CPU 3000")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU 9")
    assert describe_machine(CPU) == "CPU 3000, 1 thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert describe_machine(CPU, 2) == "2 processes, each CPU 3000, 4 threads"
    assert describe_machine(torch.device("cuda", 0)) == "GPU 9, CPU 3000"
    assert describe_machine(torch.device("mps")) == "mps, CPU 3000"


def seconds_in(checkpoint: Path) -> float:
    (share,) = torch.load(checkpoint, weights_only=True)["semi"]["cost"]
    return float(share["seconds"])


def test_an_interrupted_training_costs_the_sum_of_its_runs(make_trainer):
    first = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(first, 2)
    folder = Path(first.output_folder)
    (before,) = read_cost(folder).training
    assert before.seconds == seconds_in(folder / "checkpoint_latest.pth") > 0
    assert before.seconds == pytest.approx(
        sum(row["seconds"] for row in first.history.rows), abs=0.02
    )
    second = make_trainer("SemiMeanTeacherTrainer", start=False)
    second.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    run_epochs(second, 4)
    (after,) = read_cost(folder).training
    rows = second.history.rows
    assert len(rows) == 4
    assert after.seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=0.03)
    assert after.seconds - before.seconds == pytest.approx(
        sum(row["seconds"] for row in rows[2:]), abs=0.02
    )


def test_the_cost_is_unknown_after_an_older_checkpoint(make_trainer):
    first = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(first, 1)
    latest = Path(first.output_folder) / "checkpoint_latest.pth"
    content = torch.load(latest, weights_only=True)
    del content["semi"]["cost"]
    second = make_trainer("SemiMeanTeacherTrainer", start=False)
    second.load_checkpoint(content)
    run_epochs(second, 2)
    assert read_cost(Path(first.output_folder)) == RecordedCost()
