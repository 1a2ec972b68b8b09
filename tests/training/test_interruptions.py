"""A training that is asked to leave saves and continues; a fault of the machine is named."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semi_nnunet.training import checkpoints
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.interruptions import (
    EXIT_CODE,
    AsyncScalar,
    Preempted,
    Preemption,
    raise_if_machine_fault,
)
from semi_nnunet.util.errors import UserError
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


ON_CPU = "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError(ON_CPU)]
)
def test_memory_that_runs_out_in_the_teacher_names_what_to_turn(error: Any, make_trainer: Any):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    content = latest.read_bytes()

    def fail(module: nn.Module, args: Any) -> None:
        raise error

    trainer.companion("teacher").module.register_forward_pre_hook(fail)
    with pytest.raises(UserError, match="memory") as caught:
        trainer.run_training()
    assert "unlabelled_batch_size" in caught.value.fix and "intact" in caught.value.fix
    assert latest.read_bytes() == content


def test_a_killed_worker_ends_the_training_and_names_the_variable_and_the_cases(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=50)
    step, kill_times = trainer.train_step, []

    def kill_a_worker_first(batch: Any) -> Any:
        if not kill_times:
            worker = trainer.dataloader_train._batches._workers[0]
            os.kill(worker.pid, signal.SIGKILL)
            kill_times.append(time.monotonic())
        return step(batch)

    trainer.train_step = kill_a_worker_first
    with pytest.raises(UserError, match="batches") as error:
        trainer.run_training()
    assert "nnUNet_n_proc_DA" in error.value.fix
    named = set(re.findall(r"phantom_\w+", error.value.what))
    cases = {case for group in trainer.current_cases().values() for case in group}
    assert named and named <= cases
    assert kill_times and time.monotonic() - kill_times[0] <= 60


def test_other_errors_are_not_translated(tmp_path: Path) -> None:
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    for error in (other, OSError(5, "Input/output error"), OSError(28, "No space left", "x")):
        assert raise_if_machine_fault(error, tmp_path) is None


def test_a_disk_error_without_a_file_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}.*No space left.*intact"):
        raise_if_machine_fault(OSError(28, "No space left on device"), tmp_path)


def test_a_network_that_cannot_be_compiled_trains_as_it_is(
    make_trainer: Any, compiler_settings: Any
) -> None:
    def no_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    weights = []
    compiler_settings.suppress_errors = False
    for compiles in (False, True):
        trainer = make_trainer("SemiMeanTeacherTrainer")
        if compiles:
            assert compiler_settings.suppress_errors  # set by the trainer
            trainer.network = torch.compile(trainer.network, backend=no_compiler)
        trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    assert same_weights(*weights)


def test_a_lost_process_is_named_in_a_distributed_training(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]")
    assert raise_if_machine_fault(lost, "folder") is None
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UserError, match=r"another process.*intact"):
        raise_if_machine_fault(lost, "folder")
