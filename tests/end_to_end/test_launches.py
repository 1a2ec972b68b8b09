"""Real processes of one training: killed, asked to stop, continued by others, started twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.training.interruptions import EXIT_CODE
from tests.forking import forked
from tests.ranks import Rank, Training, free_port, plans_with, run_rank, told_by_launcher
from tests.runs.tiny import wait_for
from tests.trainers import SHORT, WITHOUT_RAMP, same_weights

EPOCHS, STEPS = 4, 4
ALL_STEPS = list(range(EPOCHS * STEPS))
SETTINGS = {**SHORT, **WITHOUT_RAMP, "epochs": EPOCHS, "steps_per_epoch": STEPS}
GONE = "another process of this training has ended"


@pytest.fixture(scope="module")
def dataset(prepared_dataset: Any) -> Iterator[Any]:
    made = prepared_dataset("labels", 1)
    with plans_with(made, **SETTINGS, labelled_batch_size=6, unlabelled_batch_size=6):
        yield made


@pytest.fixture(scope="module")
def whole(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of two undisturbed processes."""
    training = Training(tmp_path_factory.mktemp("whole"), dataset.number)
    for rank in training.finish(2):
        assert rank.steps == ALL_STEPS
    return training.checkpoint()


@pytest.fixture
def training(dataset: Any, tmp_path: Path) -> Training:
    return Training(tmp_path / "results", dataset.number)


def in_step(ranks: list[Rank], step: int) -> bool:
    return all(step in rank.steps for rank in ranks)


def same_ending(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether student, teacher and history are equal."""
    one, other = first["semi"], second["semi"]
    for row in [*one["history"], *other["history"]]:
        row.pop("seconds", None)
    networks = all(same_weights(one[part], other[part]) for part in ("student", "companions"))
    return networks and one["history"] == other["history"]


def lose_a_process(training: Training, victim: int) -> None:
    """Kill one of two processes in the third epoch, after a checkpoint of two; the other ends."""
    ranks = training.start(2, slow=True)
    wait_for(lambda: in_step(ranks, 9))
    ranks[victim].process.kill()
    other = ranks[1 - victim]
    assert other.ended(60) not in (0, EXIT_CODE) and GONE in other.said


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_all_continue_exactly(
    victim: int, training: Training, whole: dict[str, Any]
) -> None:
    lose_a_process(training, victim)
    for rank in training.finish(2, "--c"):
        assert "Loaded " in rank.said and rank.steps == ALL_STEPS[8:]
    assert same_ending(training.checkpoint(), whole)


@pytest.fixture(scope="module")
def lost(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes, of which the first was killed."""
    training = Training(tmp_path_factory.mktemp("lost"), dataset.number)
    lose_a_process(training, victim=0)
    return training.results


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_processes_continues_after_a_kill_with_the_same_networks(
    count: int, lost: Path, training: Training, whole: dict[str, Any]
) -> None:
    """Patches differ afterwards, and a warning says so; what was trained before is kept."""
    shutil.copytree(lost, training.results)
    before = training.checkpoint("latest")
    for rank in training.finish(count, "--c"):
        assert rank.steps == ALL_STEPS[8:]
        assert f"WARNING: {count} processes continue a training of 2" in rank.said
        teacher = torch.load(rank.output.with_suffix(".pth"), weights_only=True)
        assert same_weights(teacher, before["semi"]["companions"])
    after = training.checkpoint()
    assert not same_ending(after, whole)  # which also drops the seconds of the rows
    assert [row["epoch"] for row in after["semi"]["history"]] == list(range(EPOCHS))
    assert after["semi"]["history"][:2] == whole["semi"]["history"][:2]


@pytest.fixture(scope="module")
def left(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes; the second was asked to stop within an epoch."""
    training = Training(tmp_path_factory.mktemp("left"), dataset.number)
    ranks = training.start(2, slow=True)
    wait_for(lambda: in_step(ranks, 8))
    os.kill(ranks[1].process.pid, signal.SIGTERM)
    assert [rank.ended(60) for rank in ranks] == [EXIT_CODE, EXIT_CODE]
    assert "SIGTERM: saved, continue with --c" in ranks[1].said
    assert "another process was asked to leave: saved" in ranks[0].said
    return training.results


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_training_that_was_asked_to_stop_continues_with_any_number_of_processes(
    count: int, left: Path, training: Training, whole: dict[str, Any]
) -> None:
    shutil.copytree(left, training.results)
    before = training.checkpoint("latest")
    done = before["current_epoch"] * STEPS + before["semi"]["step_in_epoch"]
    assert before["semi"]["step_in_epoch"] > 0
    ranks = training.finish(count, "--c")
    warning = f"WARNING: {count} processes continue a training of 2"
    for rank in ranks:
        assert rank.steps == ALL_STEPS[done:] and (warning in rank.said) == (count != 2)
        teacher = torch.load(rank.output.with_suffix(".pth"), weights_only=True)
        assert same_weights(teacher, before["semi"]["companions"])
    after = training.checkpoint()
    rows, first = after["semi"]["history"], before["semi"]["history"]
    assert len(rows) == EPOCHS and rows[: len(first)] == first
    assert same_ending(after, whole) == (count == 2)


def spawn_two(training: Training, port: int) -> None:
    """Start two processes as ``nnUNetv2_train -num_gpus 2`` does, but forked."""
    torch.multiprocessing.start_processes(spawned, (training, port), nprocs=2, start_method="fork")


def spawned(number: int, training: Training, port: int) -> None:
    told = told_by_launcher(number, 2, port, training.results)
    run_rank(told, training.words(), training.results / f"{number}.txt", True)


def test_processes_save_when_their_parent_is_asked_to_stop(
    training: Training, whole: dict[str, Any]
) -> None:
    """nnUNetv2_train -num_gpus dies of SIGTERM, and the system then interrupts its children."""
    training.results.mkdir()
    starter = forked(spawn_two, training, free_port())
    ranks = [Rank(starter, training.results / f"{number}.txt") for number in range(2)]
    wait_for(lambda: in_step(ranks, 6))
    starter.terminate()
    starter.join()
    wait_for(lambda: all("saved, continue with --c" in rank.said for rank in ranks), 60)
    assert not any("Traceback" in rank.said for rank in ranks)
    done = len(ranks[0].steps)
    for rank in training.finish(2, "--c"):
        assert rank.steps == ALL_STEPS[done:]
    assert same_ending(training.checkpoint(), whole)


def test_a_job_that_is_queued_twice_does_not_disturb_the_running_one(
    training: Training, whole: dict[str, Any]
) -> None:
    first = training.start(2, slow=True)
    wait_for(lambda: in_step(first, 4))
    named = f"process {first[0].process.pid} on {os.uname().nodename} since 20"
    for again in (training.start(2, "--c"), training.start(1, "--c")):
        for rank in again:
            assert rank.ended(60) not in (0, EXIT_CODE) and not rank.steps
            assert named in rank.said and "spoil each other" in rank.said
    for rank in first:
        assert rank.process.is_alive() and not rank.process.join(0)
        os.kill(rank.process.pid, signal.SIGTERM)
    assert [rank.ended(60) for rank in first] == [EXIT_CODE, EXIT_CODE]
    done = len(first[0].steps)
    assert done < len(ALL_STEPS)
    for rank in training.finish(2, "--c"):
        assert rank.steps == ALL_STEPS[done:]
    assert same_ending(training.checkpoint(), whole)
