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
from semi_nnunet.training.preemption import EXIT_CODE, AsyncScalar, Preempted, Preemption
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of

CPU = torch.device("cpu")
FILTERED = {
    "filter_epochs": (1,), "filter_keep": 2, "locate_epochs": (1,),
    "unlabelled_foreground_oversampling": 0.33,
}  # fmt: skip


def preemption() -> Preemption:
    return Preemption(Ranks())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_recorded_and_the_process_leaves_at_the_end(name: str) -> None:
    handler, watch = signal.getsignal(getattr(signal, name)), preemption()
    with pytest.raises(Preempted) as caught, watch.watch():
        assert not watch.is_asked(CPU)
        os.kill(os.getpid(), getattr(signal, name))
        assert watch.is_asked(CPU) and watch.signal_name == name
    assert caught.value.code == EXIT_CODE == 75
    assert signal.getsignal(getattr(signal, name)) is handler


def test_without_a_signal_nothing_happens_and_errors_are_raised() -> None:
    with preemption().watch():
        pass
    with pytest.raises(KeyError), preemption().watch():
        raise KeyError


def test_forked_processes_still_end_by_the_signal() -> None:
    """Such as workers that load batches."""
    with preemption().watch():
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
    preempted = make_trainer(name, **options, **WITHOUT_RAMP)
    run_epochs(preempted, 1)
    begin_epoch(preempted)
    for _ in range(steps - 1):
        preempted.train_step(next(preempted.dataloader_train))
    preempted.preemption.signal_name = "SIGTERM"
    with pytest.raises(Preempted):
        preempted.train_step(next(preempted.dataloader_train))
    path = Path(preempted.output_folder) / checkpoints.LATEST
    resumed = make_trainer(name, **options, **WITHOUT_RAMP)
    filtered: list[int] = []
    resumed.load_checkpoint(str(path))
    assert (resumed.current_epoch, resumed.step_in_epoch) == (1, steps)
    monkeypatch.setattr(
        type(resumed.pool), "begin_epoch", lambda self, epoch, *_: filtered.append(epoch)
    )
    run_epochs(resumed, 3)
    assert filtered == [2]  # epoch 1 has already begun
    assert same_weights(weights_of(whole.bare_network), weights_of(resumed.bare_network))
    assert same_weights(weights_of(whole._companions), weights_of(resumed._companions))
    for row, other in zip(whole.history.rows, resumed.history.rows, strict=True):
        row.pop("seconds"), other.pop("seconds")
        assert row == other


def test_the_more_advanced_checkpoint_is_continued(make_trainer: Any) -> None:
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


def test_several_processes_leave_together_one_step_later(monkeypatch: Any) -> None:
    """The other process gets a signal in its third step."""
    others = iter([0, 0, 1, 1])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flag: flag.add_(next(others)))
    watch = Preemption(Ranks(0, 2))
    assert [watch.is_asked(CPU) for _ in range(4)] == [False, False, False, True]


def test_only_the_copy_from_a_gpu_is_waited_for(monkeypatch: Any) -> None:
    """Not later work of the GPU, for which ``item`` would wait, too."""
    events: list[str] = []

    class Event:
        def synchronize(self) -> None:
            events.append("waited for the copy")

    class Stream:
        def record_event(self) -> Event:
            events.append("recorded the copy")
            return Event()

    class OnGpu:
        is_cuda, device = True, "cuda:0"

        def to(self, device: str, non_blocking: bool) -> torch.Tensor:
            events.append(f"copies to {device}" if non_blocking else "waited for all")
            return torch.tensor(2)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    value = AsyncScalar(OnGpu())  # type: ignore[arg-type]
    assert events == ["copies to cpu", "recorded the copy"]
    assert value.read() == 2 and events[2:] == ["waited for the copy"]
