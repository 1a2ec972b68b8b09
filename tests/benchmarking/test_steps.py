"""Steps are timed in turn, and their operations are those of the network's passes."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking import steps
from semi_nnunet.benchmarking.steps import (
    FLOOR,
    Seconds,
    count_operations,
    in_turn,
    said,
    time_steps,
)
from semi_nnunet.benchmarking.work import BASELINE, Work, aside
from semi_nnunet.util.errors import UserError


@pytest.fixture
def work(prepared_dataset) -> Work:
    return Work(prepared_dataset().name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)


def test_parts_take_turns_and_the_first_rounds_do_not_count() -> None:
    turns: list[str] = []

    def part(name: str, seconds: float) -> None:
        turns.append(name)
        time.sleep(seconds if turns.count(name) > steps.UNCOUNTED else 10 * seconds)

    found = in_turn(
        {"short": lambda: part("short", 0.01), "long": lambda: part("long", 0.04)},
        rounds=4,
        device=torch.device("cpu"),
    )
    assert turns == ["short", "long"] * (steps.UNCOUNTED + 4)
    assert 0.01 <= found["short"].low <= found["short"].median <= found["short"].high
    assert 2 < found["long"].median / found["short"].median < 8


def test_seconds_are_the_median_and_the_quartiles() -> None:
    assert Seconds.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Seconds(3.0, 2.0, 4.0)


def test_operations_without_values_are_those_of_a_step_that_computes(work, make_trainer):
    with aside():
        found = count_operations(work, [BASELINE, "SemiMeanTeacherTrainer"])
    trainer = make_trainer(
        "SemiMeanTeacherTrainer", fold="all", ramp_up="constant", unlabelled_start_steps=0
    )
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    assert found["SemiMeanTeacherTrainer"] == counter.get_total_flops()
    assert found[FLOOR] == found[BASELINE] > 0
    assert found["SemiMeanTeacherTrainer"] == pytest.approx(2.33 * found[FLOOR], rel=0.01)


def test_trainers_are_timed_beside_the_floor_and_a_mistake_is_told(work, monkeypatch):
    def refuses(work: Work, name: str) -> object:
        if name == "SemiBCPTrainer" and work.device == "cpu":
            raise UserError("needs two patches. Fix: more")
        return ready(work, name)

    ready = steps.ready
    monkeypatch.setattr(steps, "ready", refuses)
    times = time_steps(work, [BASELINE, "SemiBCPTrainer", "SemiMeanTeacherTrainer"])
    assert set(times.seconds) == {BASELINE, FLOOR, "SemiMeanTeacherTrainer"}
    assert times.refused == {"SemiBCPTrainer": "needs two patches. Fix: more"}
    assert times.seconds["SemiMeanTeacherTrainer"].median > times.seconds[FLOOR].low


def test_too_little_memory_is_told_and_a_fault_of_ours_is_not_hidden() -> None:
    assert "alone" in said(MemoryError())
    assert "alone" in said(RuntimeError("CUDA out of memory. Tried to allocate"))
    with pytest.raises(RuntimeError, match="shape"):
        said(RuntimeError("shape mismatch"))
