"""Tasks are timed in turn."""

from __future__ import annotations

import time

import torch

from semi_nnunet.util.timing import UNCOUNTED, Seconds, in_turn


def test_tasks_take_turns_and_the_first_rounds_do_not_count() -> None:
    turns: list[str] = []

    def work(name: str, seconds: float) -> None:
        turns.append(name)
        time.sleep(seconds if turns.count(name) > UNCOUNTED else 10 * seconds)

    times = in_turn(
        {"short": lambda: work("short", 0.01), "long": lambda: work("long", 0.04)},
        rounds=4,
        device=torch.device("cpu"),
    )
    assert turns == ["short", "long"] * (UNCOUNTED + 4)
    assert 0.01 <= times["short"].low <= times["short"].median <= times["short"].high
    assert 2 < times["long"].median / times["short"].median < 8


def test_seconds_are_the_median_and_the_quartiles() -> None:
    assert Seconds.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Seconds(3.0, 2.0, 4.0)
