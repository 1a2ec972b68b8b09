"""What ends a training early: a machine that is taken away, and errors of the machine.

A cluster sends SIGTERM, or the signal that a job requests (SLURM: ``--signal=USR1@120``), before it
kills. nnU-Net would end at once, and lose up to 50 epochs; here the training saves after the
current step and leaves, and --c continues it. Errors of the machine, such as a full memory, become
messages with a fix.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
import torch._dynamo
from torch import distributed as dist

from semi_nnunet.loading.steps import StepLoader
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.util.errors import UserError, disk_error_message
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import could_not_write
from semi_nnunet.util.signals import handled

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNAL_NAMES = ("SIGTERM", "SIGUSR1")
INTACT = "The checkpoints are intact; nnUNetv2_train continues from the newest with --c"
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo


class Preempted(SystemExit):
    """Ends the process with :data:`EXIT_CODE` after its work is saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class AsyncScalar:
    """A value on its way from a device to the host.

    Reading it waits for the work that the device got before it, and not for later work, as a later
    ``value.item()`` would.

    >>> AsyncScalar(torch.tensor(2.0)).read()
    2.0

    Args:
        value: tensor with one element, which is not written to any more.
    """

    def __init__(self, value: torch.Tensor):
        self._copy = value.to("cpu", non_blocking=True)  # of a GPU, into pinned memory
        on_gpu = value.is_cuda
        self._copied = torch.cuda.current_stream(value.device).record_event() if on_gpu else None

    def read(self) -> float:
        """Wait for the copy and return the value."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._copy)


class Preemption:
    """Records the signals that request a training to leave.

    Args:
        ranks: processes of the training; all leave if one gets a signal.
    """

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.signal_name: str | None = None
        self._signalled_ranks: AsyncScalar | None = None  # number of them in the last step

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the signals inside the block instead of ending the process.

        At the end of the block all processes leave if one got a signal. Forked processes, such
        as those that load batches, still end by the signals.
        """
        own_pid, parent_pid = os.getpid(), os.getppid()

        def record(number: int, frame: FrameType | None) -> None:
            if os.getpid() == own_pid:
                self.signal_name = signal.Signals(number).name
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        def record_if_orphaned(number: int, frame: FrameType | None) -> None:
            """Handle SIGINT, which children of ``nnUNetv2_train -num_gpus`` get if SIGTERM ends it.

            Ctrl-C stays ignored if it was, such as in the background of a script.
            """
            if os.getpid() == own_pid and os.getppid() != parent_pid:
                record(number, frame)
            elif not is_ignored:
                signal.default_int_handler(number, frame)

        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts = ("SIGINT",) if self.ranks.world_size > 1 else ()
        with handled(SIGNAL_NAMES, record), handled(interrupts, record_if_orphaned):
            yield
        if any(self.ranks.all_gather(self.signal_name)):
            raise Preempted

    def leave(self, say: Callable[[str], None]) -> NoReturn:
        """Leave the process after rank 0 has saved, because a launcher then ends the others."""
        self.ranks.barrier()
        say(f"{self.signal_name or 'another process was asked to leave'}: saved, continue with --c")
        raise Preempted

    def is_asked(self, device: torch.device) -> bool:
        """Return whether any process of the training was asked to leave.

        Call it once a step on all processes. With several processes it returns the state of the
        previous step, so that all of them agree, and a GPU only waits if it is a whole step behind.
        """
        has_signal = self.signal_name is not None
        if self.ranks.world_size == 1:
            return has_signal
        previous, count = self._signalled_ranks, torch.full((), int(has_signal), device=device)
        dist.all_reduce(count)
        self._signalled_ranks = AsyncScalar(count)
        return previous is not None and previous.read() > 0


class EpochState(Protocol):
    """An object that collects values in every step and drops them at the end of the epoch."""

    def state(self) -> Any:
        """Return the collected values as tensors and plain values."""

    def restore(self, state: Any) -> None:
        """Restore a state."""


class EpochProgress:
    """The state of a training within an epoch, for a checkpoint between two of its steps.

    Args:
        ranks: processes of the training, each with its own state.
        states: name -> object whose state is saved.
    """

    def __init__(self, ranks: Ranks, states: dict[str, EpochState]):
        self.ranks, self.states = ranks, states

    def state(self, step: int) -> dict[str, Any]:
        """Return the state after ``step`` steps of the epoch; call it on all ranks."""
        own_state = {name: item.state() for name, item in self.states.items()}
        return {"step_in_epoch": step, "epoch_states": self.ranks.all_gather(own_state)}

    def restore(self, semi: Mapping[str, Any]) -> int:
        """Restore the state in a checkpoint's key "semi"; return the number of finished steps."""
        if states := semi.get("epoch_states"):
            for name, state in self.ranks.shard(states).items():
                self.states[name].restore(state)
        return int(semi.get("step_in_epoch", 0))


# ---- errors of the machine ----


def tolerate_compiler_errors() -> None:
    """Let networks that torch.compile cannot compile run uncompiled, with torch's warning.

    nnU-Net ends with an error of the compiler, which may simply not be installed.
    """
    torch._dynamo.config.suppress_errors = True


def raise_if_machine_fault(
    error: RuntimeError | OSError, folder: str | Path, loader: StepLoader | None = None
) -> None:
    """Raise a message with a fix if memory ran out, a process was killed, or the disk is full.

    Args:
        error: error that ended the training.
        folder: folder of the results, named if an error of the disk names no file.
        loader: loader of the training's batches; it knows the cases of killed processes.
    """
    if isinstance(error, OSError):
        if disk_error_message(error) is not None and error.filename is None:
            raise could_not_write(f"to {folder}", error, folder, state=INTACT) from error
        return
    text = str(error)
    first_line = text.partition("\n")[0]
    if is_of_memory(error):
        raise UserError(
            f"the memory does not suffice for a step: {first_line:.300}",
            fix=f"semi_nnunet plan with --set and a smaller labelled_batch_size and "
            f"unlabelled_batch_size (2 at least for methods that mix unlabelled patches; "
            f"accumulate_batches=2 makes two small batches one step), or a "
            f"smaller --patch; or end other programs that use the memory. {INTACT}",
        ) from error
    if "DataLoader worker" in text:
        cases = [] if loader is None else loader.list_cases_of_ended_workers()
        working_on = f" It was at work on {', '.join(cases)}." if cases else ""
        raise UserError(
            f"a process that prepares batches has ended: {first_line:.300}{working_on} The system "
            f"kills such processes if memory runs out",
            fix=f"set nnUNet_n_proc_DA to fewer of them, or free memory. {INTACT}",
        ) from error
    if dist.is_initialized() and any(message in text for message in LOST_CONNECTION):
        raise UserError(
            f"another process of this training has ended: {first_line:.300} See its own messages "
            f"for the cause; the system kills processes if memory runs out. {INTACT}"
        ) from error


def raise_if_batch_too_small(error: ValueError) -> None:
    """Raise a message with a fix if batch normalisation got a single value for each channel."""
    if "more than 1 value per channel" in str(error):
        raise UserError(
            "this network normalises over the batch what it pools to one value, and needs at "
            "least 2 patches of each kind on each GPU, got 1",
            fix="raise labelled_batch_size and unlabelled_batch_size in plans['semi'], or train on "
            "fewer GPUs",
        ) from error
