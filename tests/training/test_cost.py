"""What a training costs adds up over interruptions and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from semi_nnunet.training import cost
from semi_nnunet.training.cost import Cost, Recorded, Share, machine_of, read_cost
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


def epoch(found: Cost, clock: Clock, seconds: float) -> float:
    found.start()
    clock.now += seconds
    return found.stop()


def on(machine: str, seconds: float, memory: float) -> dict:
    return {"machine": machine, "seconds": seconds, "memory_gib": memory, "gpu_memory_gib": None}


def test_epochs_add_up_and_what_is_between_them_does_not_count(clock):
    found = Cost(CPU, 1)
    assert found.state() == []
    assert epoch(found, clock, 7.0) == 7.0
    clock.now += 1000
    assert epoch(found, clock, 5.0) == 5.0
    (share,) = found.state()
    assert share["seconds"] == 12.0 and share["machine"] == machine_of(CPU)
    assert share["memory_gib"] > 0.01 and share["gpu_memory_gib"] is None


def test_a_checkpoint_within_an_epoch_knows_the_part_that_is_done(clock):
    found = Cost(CPU, 1)
    epoch(found, clock, 7.0)
    found.start()
    clock.now += 3
    kept = found.state()
    clock.now += 50  # lost with the process
    again = Cost(CPU, 1)
    again.restore(json.loads(json.dumps(kept)))
    assert epoch(again, clock, 2.0) == 2.0
    assert [share["seconds"] for share in again.state()] == [12.0]


def test_every_machine_has_a_share_and_the_highest_memory_counts(clock, monkeypatch):
    here = machine_of(CPU)
    found = Cost(CPU, 1)
    found.restore([on("another", 60.0, 2.0), on(here, 5.0, 4000.0)])
    epoch(found, clock, 1.0)
    assert found.state() == [on("another", 60.0, 2.0), on(here, 6.0, 4000.0)]


def test_of_a_training_whose_beginning_is_not_known_nothing_is_told(clock, tmp_path):
    found = Cost(CPU, 1)
    found.restore(None)
    assert epoch(found, clock, 9.0) == 9.0 and found.state() is None
    found.write(tmp_path)
    assert read_cost(tmp_path) == Recorded()


def test_the_file_tells_training_and_validation(clock, tmp_path):
    assert read_cost(tmp_path) == Recorded()
    found = Cost(CPU, 1)
    found.restore([on("another", 60.0, 2.0)])
    found.write_validation(tmp_path, seconds=12.0, cases=4)
    shares = (Share("another", 60.0, 2.0, None),)
    assert read_cost(tmp_path) == Recorded(shares, machine_of(CPU), 3.0)
    found.write_validation(tmp_path, seconds=12.0, cases=0)
    assert read_cost(tmp_path) == Recorded(shares)
    found.write(tmp_path)  # another training: its validation is not there yet
    assert read_cost(tmp_path) == Recorded(shares)
    (tmp_path / cost.FILE).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        read_cost(tmp_path)


def test_a_machine_is_its_processor_with_threads_or_its_gpu(monkeypatch):
    monkeypatch.setattr(cost, "processor_name", lambda: "CPU 3000")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU 9")
    assert machine_of(CPU) == "CPU 3000, 1 thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert machine_of(CPU, 2) == "2 processes, each CPU 3000, 4 threads"
    assert machine_of(torch.device("cuda", 0)) == "GPU 9, CPU 3000"
    assert machine_of(torch.device("mps")) == "mps, CPU 3000"


def seconds_in(checkpoint: Path) -> float:
    (share,) = torch.load(checkpoint, weights_only=True)["semi"]["cost"]
    return float(share["seconds"])


def test_a_training_that_goes_on_costs_the_sum_of_its_parts(make_trainer):
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


def test_of_an_older_checkpoint_the_cost_is_not_known(make_trainer):
    first = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(first, 1)
    latest = Path(first.output_folder) / "checkpoint_latest.pth"
    content = torch.load(latest, weights_only=True)
    del content["semi"]["cost"]
    second = make_trainer("SemiMeanTeacherTrainer", start=False)
    second.load_checkpoint(content)
    run_epochs(second, 2)
    assert read_cost(Path(first.output_folder)) == Recorded()
