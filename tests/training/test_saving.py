"""Checkpoints that are written beside a training are those that would be written at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.training import checkpoints, saving
from semi_nnunet.training.saving import CheckpointWriter, snapshot
from semi_nnunet.util.errors import UserError
from tests.trainers import WITHOUT_RAMP


def content() -> dict[str, Any]:
    """Tensors that share memory, views, one that is there twice, and plain values."""
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
    """Lets the writing of checkpoints wait until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.opened, self.begun, real = threading.Event(), threading.Event(), checkpoints.save

        def save(value: Any, path: Any) -> None:
            self.begun.set()
            assert self.opened.wait(60)
            real(value, path)

        monkeypatch.setattr(checkpoints, "save", save)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch):
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


def test_a_snapshot_is_saved_to_the_same_bytes(tmp_path: Path) -> None:
    for name, value in (("one", content()), ("other", snapshot(checkpoints.plain(content())))):
        (tmp_path / name).mkdir()
        checkpoints.save(value, tmp_path / name / "checkpoint.pth")
    one, other = (tmp_path / name / "checkpoint.pth" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_nothing_changes_a_snapshot_later() -> None:
    before = content()
    taken = snapshot(before)
    before["network_weights"]["w"].zero_()
    before["semi"]["values"].append(7)
    assert torch.equal(taken["network_weights"]["w"], torch.arange(12.0))
    assert torch.equal(taken["semi"]["student"]["w"], torch.arange(12.0))
    assert len(taken["semi"]["values"]) == 5
    taken["network_weights"]["w"][2] = 77  # memory is shared as it was
    assert taken["twice"][0][0, 0] == 77 and taken["semi"]["student"]["w"][2] == 77


def test_the_content_is_that_of_the_moment_of_saving(gate: Gate, tmp_path: Path) -> None:
    writer, path, told = CheckpointWriter(), tmp_path / "checkpoint.pth", list[str]()
    value = content()
    with writer.running(told.append):
        with writer.beside():
            writer.save(value, path)
        assert gate.begun.wait(60) and not path.exists()
        with torch.no_grad():
            value["network_weights"]["w"].zero_()
        gate.opened.set()
    found = checkpoints.read(path)  # the end of the block has waited
    assert torch.equal(found["network_weights"]["w"], torch.arange(12.0)) and not told


def test_the_next_save_and_a_fork_wait(gate: Gate, tmp_path: Path) -> None:
    writer, paths = CheckpointWriter(), [tmp_path / "one.pth", tmp_path / "two.pth"]
    with writer.running(print):
        for path in paths:
            gate.opened.clear()
            threading.Timer(0.3, gate.opened.set).start()
            with writer.beside():
                writer.save(content(), path)
        assert paths[0].exists()
        child = os.fork()
        if child == 0:
            os._exit(0 if paths[1].exists() else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("is_running", [True, False])
def test_elsewhere_it_is_written_at_once(is_running: bool, tmp_path: Path) -> None:
    """Outside of a training, and within it for what ends it."""
    writer, path = CheckpointWriter(), tmp_path / "checkpoint.pth"
    if is_running:
        with writer.running(print):
            writer.save(content(), path)
            assert path.exists() and writer._thread is None
    else:
        with writer.beside():
            writer.save(content(), path)
        assert path.exists() and writer._thread is None


def test_without_memory_for_a_copy_it_is_written_at_once(tmp_path: Path, monkeypatch) -> None:
    def fails(value: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(saving, "snapshot", fails)
    writer, path = CheckpointWriter(), tmp_path / "checkpoint.pth"
    with writer.running(print), writer.beside():
        writer.save(content(), path)
        assert path.exists()


@pytest.mark.parametrize("when", ["the next save", "the end"])
def test_what_could_not_be_written_is_raised_as_if_at_once(when: str, tmp_path: Path) -> None:
    writer, absent = CheckpointWriter(), tmp_path / "absent" / "checkpoint.pth"
    with pytest.raises(UserError) as at_once:
        checkpoints.save(content(), absent)
    with pytest.raises(UserError) as later, writer.running(print), writer.beside():
        writer.save(content(), absent)
        if when == "the next save":
            writer.save(content(), tmp_path / "checkpoint.pth")
    assert str(later.value) == str(at_once.value)
    writer.wait()  # it is raised once


def test_another_error_is_not_replaced_and_waits(gate: Gate, tmp_path: Path) -> None:
    told, threads = list[str](), []
    writer, absent = CheckpointWriter(), tmp_path / "absent" / "checkpoint.pth"
    threading.Timer(0.3, gate.opened.set).start()
    with pytest.raises(KeyboardInterrupt), writer.running(told.append):
        with writer.beside():
            writer.save(content(), absent)
        threads.append(writer._thread)
        raise KeyboardInterrupt
    assert not threads[0].is_alive() and "absent" in told[0]


def test_a_training_writes_the_checkpoints_of_epochs_beside_its_steps(make_trainer, monkeypatch):
    """And leaves the same file as one that writes them at once."""
    written: dict[str, list[tuple[str, bool]]] = {}
    real = checkpoints.save

    def trained(way: str) -> Any:
        trainer = make_trainer("SemiMeanTeacherTrainer", **WITHOUT_RAMP, save_every_epochs=1)
        written[way] = []

        def save(value: Any, path: Any) -> None:
            main = threading.current_thread() is threading.main_thread()
            written[way].append((Path(path).name, main))
            real(value, path)

        monkeypatch.setattr(checkpoints, "save", save)
        if way == "at once":
            monkeypatch.setattr(trainer.saving, "beside", trainer.saving.__class__().beside)
        trainer.run_training()
        return checkpoints.read(Path(trainer.output_folder) / "checkpoint_final.pth")

    beside, at_once = trained("beside"), trained("at once")
    names = [name for name, _ in written["beside"]]
    assert names == [name for name, _ in written["at once"]] and names[-1] == "checkpoint_final.pth"
    assert {"checkpoint_best.pth", "checkpoint_latest.pth"} <= set(names)
    assert [main for _, main in written["beside"]] == [False] * (len(names) - 1) + [True]
    assert all(main for _, main in written["at once"])
    for key, value in beside["semi"]["companions"].items():
        assert torch.equal(value, at_once["semi"]["companions"][key])
