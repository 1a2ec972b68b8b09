"""Checkpoints written in a thread are equal to those written at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.training import checkpoints
from semi_nnunet.training.checkpoints import CheckpointWriter, copy_to_cpu
from semi_nnunet.util.errors import UserError
from tests.trainers import WITHOUT_RAMP


def make_content() -> dict[str, Any]:
    """Return tensors that share memory, views, a repeated tensor, and plain values."""
    weights = torch.arange(12.0)
    shared, name = weights[2:8].view(2, 3).t(), "a name"
    return {
        "network_weights": {"w": weights, "view": shared, "half": weights.half()},
        "twice": [shared, shared],
        "empty": (torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.tensor(3)),
        "grad": torch.ones(2, requires_grad=True),
        "semi": {"student": {"w": weights[:]}, name: name, "values": [1, 2.5, None, True, name]},
    }


class Gate:
    """Delays the writing of checkpoints until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.opened, self.begun, real = threading.Event(), threading.Event(), checkpoints.save

        def save(value: Any, path: Any) -> None:
            self.begun.set()
            assert self.opened.wait(60)
            real(value, path)

        monkeypatch.setattr(checkpoints, "save", save)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch):
    closed_gate = Gate(monkeypatch)
    yield closed_gate
    closed_gate.opened.set()


def test_a_copy_is_saved_to_the_same_bytes(tmp_path: Path) -> None:
    for name, value in (
        ("one", make_content()),
        ("other", copy_to_cpu(checkpoints.to_plain_values(make_content()))),
    ):
        (tmp_path / name).mkdir()
        checkpoints.save(value, tmp_path / name / "checkpoint.pth")
    one, other = (tmp_path / name / "checkpoint.pth" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_copy_does_not_change_later() -> None:
    content = make_content()
    copied = copy_to_cpu(content)
    content["network_weights"]["w"].zero_()
    content["semi"]["values"].append(7)
    assert torch.equal(copied["network_weights"]["w"], torch.arange(12.0))
    assert torch.equal(copied["semi"]["student"]["w"], torch.arange(12.0))
    assert len(copied["semi"]["values"]) == 5
    copied["network_weights"]["w"][2] = 77  # memory is shared as it was
    assert copied["twice"][0][0, 0] == 77 and copied["semi"]["student"]["w"][2] == 77


def test_the_content_of_the_time_of_saving_is_written(gate: Gate, tmp_path: Path) -> None:
    writer, path, log = CheckpointWriter(), tmp_path / "checkpoint.pth", list[str]()
    value = make_content()
    with writer.running(log.append):
        with writer.in_background():
            writer.save(value, path)
        assert gate.begun.wait(60) and not path.exists()
        with torch.no_grad():
            value["network_weights"]["w"].zero_()
        gate.opened.set()
    saved = checkpoints.read_checkpoint(path)  # the end of the block has waited
    assert torch.equal(saved["network_weights"]["w"], torch.arange(12.0)) and not log


def test_the_next_save_and_a_fork_wait(gate: Gate, tmp_path: Path) -> None:
    writer, paths = CheckpointWriter(), [tmp_path / "one.pth", tmp_path / "two.pth"]
    with writer.running(print):
        for path in paths:
            gate.opened.clear()
            threading.Timer(0.3, gate.opened.set).start()
            with writer.in_background():
                writer.save(make_content(), path)
        assert paths[0].exists()
        child = os.fork()
        if child == 0:
            os._exit(0 if paths[1].exists() else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("is_running", [True, False])
def test_outside_the_block_it_is_written_at_once(is_running: bool, tmp_path: Path) -> None:
    """Outside of a training, and for the last checkpoint of one."""
    writer, path = CheckpointWriter(), tmp_path / "checkpoint.pth"
    if is_running:
        with writer.running(print):
            writer.save(make_content(), path)
            assert path.exists() and writer._thread is None
    else:
        with writer.in_background():
            writer.save(make_content(), path)
        assert path.exists() and writer._thread is None


def test_it_is_written_at_once_without_memory_for_a_copy(tmp_path: Path, monkeypatch) -> None:
    def fail(value: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(checkpoints, "copy_to_cpu", fail)
    writer, path = CheckpointWriter(), tmp_path / "checkpoint.pth"
    with writer.running(print), writer.in_background():
        writer.save(make_content(), path)
        assert path.exists()


@pytest.mark.parametrize("when", ["the next save", "the end"])
def test_an_error_in_the_thread_is_raised_later(when: str, tmp_path: Path) -> None:
    writer, absent = CheckpointWriter(), tmp_path / "absent" / "checkpoint.pth"
    with pytest.raises(UserError) as at_once:
        checkpoints.save(make_content(), absent)
    with pytest.raises(UserError) as later, writer.running(print), writer.in_background():
        writer.save(make_content(), absent)
        if when == "the next save":
            writer.save(make_content(), tmp_path / "checkpoint.pth")
    assert str(later.value) == str(at_once.value)
    writer.wait()  # it is raised once


def test_another_error_is_raised_after_the_thread_has_ended(gate: Gate, tmp_path: Path) -> None:
    log, threads = list[str](), []
    writer, absent = CheckpointWriter(), tmp_path / "absent" / "checkpoint.pth"
    threading.Timer(0.3, gate.opened.set).start()
    with pytest.raises(KeyboardInterrupt), writer.running(log.append):
        with writer.in_background():
            writer.save(make_content(), absent)
        threads.append(writer._thread)
        raise KeyboardInterrupt
    assert not threads[0].is_alive() and "absent" in log[0]


def test_a_training_writes_the_checkpoints_of_epochs_in_a_thread(make_trainer, monkeypatch):
    """The last file is equal to that of a training that writes them at once."""
    written: dict[str, list[tuple[str, bool]]] = {}
    real = checkpoints.save

    def train(mode: str) -> Any:
        trainer = make_trainer("SemiMeanTeacherTrainer", **WITHOUT_RAMP, save_every_epochs=1)
        written[mode] = []

        def save(value: Any, path: Any) -> None:
            main = threading.current_thread() is threading.main_thread()
            written[mode].append((Path(path).name, main))
            real(value, path)

        monkeypatch.setattr(checkpoints, "save", save)
        if mode == "at once":
            monkeypatch.setattr(
                trainer.checkpoint_writer,
                "in_background",
                trainer.checkpoint_writer.__class__().in_background,
            )
        trainer.run_training()
        return checkpoints.read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")

    threaded, at_once = train("thread"), train("at once")
    names = [name for name, _ in written["thread"]]
    assert names == [name for name, _ in written["at once"]] and names[-1] == "checkpoint_final.pth"
    assert {"checkpoint_best.pth", "checkpoint_latest.pth"} <= set(names)
    assert [main for _, main in written["thread"]] == [False] * (len(names) - 1) + [True]
    assert all(main for _, main in written["at once"])
    for key, value in threaded["semi"]["companions"].items():
        assert torch.equal(value, at_once["semi"]["companions"][key])
