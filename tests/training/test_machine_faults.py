"""Memory that runs out, killed workers, and networks that cannot be compiled."""

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

from semi_nnunet.training.machine_faults import raise_if_machine_fault
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs, same_weights, weights_of

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
