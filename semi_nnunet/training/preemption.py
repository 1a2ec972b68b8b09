"""A machine that is taken away: save after the present step and leave, to be continued with --c.

A cluster sends SIGTERM, or the signal that a job asks for (SLURM: ``--signal=USR1@120``), before it
kills. nnU-Net dies of it and loses up to 50 epochs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
from torch import distributed as dist

from semi_nnunet.training.distributed import Ranks
from semi_nnunet.util.signals import handled

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
NAMES = ("SIGTERM", "SIGUSR1")


class Preempted(SystemExit):
    """Leaves the process with :data:`EXIT_CODE`; what it has done is saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class OnItsWay:
    """One value of a device on its way to the host, to be read later.

    Reading it waits for what the device was told to do before, and for nothing that it was told
    since, as ``value.item()`` then would.

    Args:
        value: a tensor with one element, to which nothing is written any more.
    """

    def __init__(self, value: torch.Tensor):
        self._copy = value.to("cpu", non_blocking=True)  # of a GPU, into pinned memory
        on_gpu = value.is_cuda
        self._copied = torch.cuda.current_stream(value.device).record_event() if on_gpu else None

    def read(self) -> float:
        """The value."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._copy)


class Preemption:
    """Notes the signals by which a training is asked to leave.

    Args:
        ranks: of the training; all leave if one is asked.
    """

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.signal_name: str | None = None
        self._of_all: OnItsWay | None = None  # how many were asked, at the last step

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the block the signals are noted instead of ending the process.

        Afterwards all processes leave if one was asked to and has not yet. Processes that are
        forked inside, such as those that load batches, end by the signals as ever.
        """
        own, parent = os.getpid(), os.getppid()

        def note(number: int, frame: FrameType | None) -> None:
            if os.getpid() == own:
                self.signal_name = signal.Signals(number).name
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        def note_if_orphaned(number: int, frame: FrameType | None) -> None:
            """What ``nnUNetv2_train -num_gpus`` starts gets SIGINT when SIGTERM ends that.

            Also in the background of a script, where Ctrl-C is ignored, and still is.
            """
            if os.getpid() == own and os.getppid() != parent:
                note(number, frame)
            elif not ignored:
                signal.default_int_handler(number, frame)

        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts = ("SIGINT",) if self.ranks.count > 1 else ()
        with handled(NAMES, note), handled(interrupts, note_if_orphaned):
            yield
        if any(self.ranks.listed(self.signal_name)):
            raise Preempted

    def leave(self, say: Callable[[str], None]) -> NoReturn:
        """Leave the process, once that which saves has saved: a launcher ends what is left then.

        Args:
            say: prints a line into the training's log.
        """
        self.ranks.barrier()
        say(f"{self.signal_name or 'another process was asked to leave'}: saved, continue with --c")
        raise Preempted

    def is_asked(self, device: torch.device) -> bool:
        """Whether this process, or another of the training on ``device``, was asked to leave.

        Of several processes, it is asked once a step, and tells what was so at the step before:
        all of them know the same then, and a GPU is waited for that is a whole step behind alone.
        """
        asked = self.signal_name is not None
        if self.ranks.count == 1:
            return asked
        before, count = self._of_all, torch.full((), int(asked), device=device)
        dist.all_reduce(count)
        self._of_all = OnItsWay(count)
        return before is not None and before.read() > 0


class Part(Protocol):
    """What notes something in every step and forgets it at the end of an epoch."""

    def state(self) -> Any:
        """What was noted, as tensors and plain values."""

    def restore(self, state: Any) -> None:
        """Take over a state."""


class WithinEpoch:
    """What a training has noted of the present epoch, for a checkpoint between two of its steps.

    Args:
        ranks: of the training; each has noted its own.
        parts: what notes something, by name.
    """

    def __init__(self, ranks: Ranks, parts: dict[str, Part]):
        self.ranks, self.parts = ranks, parts

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps, after so many steps of the epoch; every rank has to ask."""
        own = {name: part.state() for name, part in self.parts.items()}
        return {"step_in_epoch": step, "epoch_states": self.ranks.listed(own)}

    def restore(self, semi: Mapping[str, Any]) -> int:
        """Take over what a checkpoint has under "semi"; returns how many steps were done."""
        if states := semi.get("epoch_states"):
            for name, state in self.ranks.own_of(states).items():
                self.parts[name].restore(state)
        return int(semi.get("step_in_epoch", 0))
