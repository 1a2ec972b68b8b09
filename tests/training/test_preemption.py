"""A training that is asked to leave saves after the step and continues exactly."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.training import checkpoints
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.preemption import EXIT_CODE, OnItsWay, Preempted, Preemption
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of

CPU = torch.device("cpu")
FILTERED = {
    "filter_epochs": (1,), "filter_keep": 2, "locate_epochs": (1,),
    "unlabelled_foreground_oversampling": 0.33,
}  # fmt: skip


def preemption() -> Preemption:
    return Preemption(Ranks())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_noted_and_the_process_leaves_at_the_end(name: str) -> None:
    before, watch = signal.getsignal(getattr(signal, name)), preemption()
    with pytest.raises(Preempted) as caught, watch.watched():
        assert not watch.is_asked(CPU)
        os.kill(os.getpid(), getattr(signal, name))
        assert watch.is_asked(CPU) and watch.signal_name == name
    assert caught.value.code == EXIT_CODE == 75
    assert signal.getsignal(getattr(signal, name)) is before


def test_without_a_signal_nothing_happens_and_errors_pass() -> None:
    with preemption().watched():
        pass
    with pytest.raises(KeyError), preemption().watched():
        raise KeyError


def test_processes_that_are_forked_inside_end_as_ever() -> None:
    """A worker that loads batches must not swallow what ends it."""
    with preemption().watched():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


def begin_epoch(trainer: Any) -> None:
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SemiMeanTeacherTrainer", {}),
        ("SemiCPSTrainer", FILTERED),
        ("SemiMeanTeacherTrainer", {"lr_schedule": "plateau", "accumulate_batches": 2}),
    ],
)
@pytest.mark.parametrize("steps", [1, 3])  # 3: the epoch's last
def test_a_training_that_left_within_an_epoch_ends_as_if_it_had_not(
    steps: int, name: str, settings: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"fold": "all", "epochs": 3, "steps_per_epoch": 3, "start": False, **settings}
    whole = make_trainer(name, **options, **WITHOUT_RAMP)
    run_epochs(whole, 3)
    left = make_trainer(name, **options, **WITHOUT_RAMP)
    run_epochs(left, 1)
    begin_epoch(left)
    for _ in range(steps - 1):
        left.train_step(next(left.dataloader_train))
    left.preemption.signal_name = "SIGTERM"
    with pytest.raises(Preempted):
        left.train_step(next(left.dataloader_train))
    path = Path(left.output_folder) / checkpoints.LATEST
    again = make_trainer(name, **options, **WITHOUT_RAMP)
    filtered: list[int] = []
    again.load_checkpoint(str(path))
    assert (again.current_epoch, again.step_in_epoch) == (1, steps)
    monkeypatch.setattr(
        type(again.pool), "begin_epoch", lambda self, epoch, *_: filtered.append(epoch)
    )
    run_epochs(again, 3)
    assert filtered == [2]  # epoch 1 has begun before
    assert same_weights(weights_of(whole.bare_network), weights_of(again.bare_network))
    assert same_weights(weights_of(whole._companions), weights_of(again._companions))
    for row, other in zip(whole.history.rows, again.history.rows, strict=True):
        row.pop("seconds"), other.pop("seconds")
        assert row == other


def test_the_one_that_got_farther_is_continued(make_trainer: Any) -> None:
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    best = Path(trainer.output_folder) / "checkpoint_best.pth"
    assert best.is_file()
    begin_epoch(trainer)
    trainer.preemption.signal_name = "SIGUSR1"
    with pytest.raises(Preempted):
        trainer.train_step(next(trainer.dataloader_train))
    _, path, _ = checkpoints.read_newest_valid(best, CPU)
    assert path.name == checkpoints.LATEST


def test_several_processes_leave_at_the_same_step_one_later(monkeypatch: Any) -> None:
    """The other process, imitated here, is asked to leave in its third step."""
    others = iter([0, 0, 1, 1])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flag: flag.add_(next(others)))
    watch = Preemption(Ranks(0, 2))
    assert [watch.is_asked(CPU) for _ in range(4)] == [False, False, False, True]


def test_of_a_gpu_only_the_copy_is_waited_for(monkeypatch: Any) -> None:
    """Not what the GPU was told to do since, which ``item`` waits for, too."""
    done: list[str] = []

    class Event:
        def synchronize(self) -> None:
            done.append("waited for the copy")

    class Stream:
        def record_event(self) -> Event:
            done.append("noted when it is copied")
            return Event()

    class OnGpu:
        is_cuda, device = True, "cuda:0"

        def to(self, where: str, non_blocking: bool) -> torch.Tensor:
            done.append(f"copies to {where}" if non_blocking else "waited for all")
            return torch.tensor(2)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    value = OnItsWay(OnGpu())  # type: ignore[arg-type]
    assert done == ["copies to cpu", "noted when it is copied"]
    assert value.read() == 2 and done[2:] == ["waited for the copy"]
