"""The cost of a training: seconds and memory on each machine that it ran on.

The clock runs during epochs, including validation on patches and filtering of unlabelled images.
Its state is in every checkpoint, so that an interrupted training costs the sum of its parts. Steps
that were lost with a process and repeated count once: the cost is that of the work behind the
weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.machine import processor_name
from semi_nnunet.util.memory import GIB, peak_memory_bytes
from semi_nnunet.util.names import format_count

COST_FILE = "semi_cost.json"


@dataclass(frozen=True)
class MachineShare:
    """The cost of a training on one machine.

    Args:
        machine: name by :func:`describe_machine`.
        seconds: duration of the epochs.
        memory_gib: peak memory of the (first) process, without its loaders.
        gpu_memory_gib: peak memory of tensors on the GPU; None on a CPU.
    """

    machine: str
    seconds: float
    memory_gib: float | None
    gpu_memory_gib: float | None


@dataclass(frozen=True)
class RecordedCost:
    """The recorded cost of a training.

    Args:
        training: one share for each machine; () if part of the training predates the record.
        validated_on: machine of nnU-Net's validation; "" if unknown.
        seconds_a_case: duration of that validation (predict, write, measure) for each case.
    """

    training: tuple[MachineShare, ...] = ()
    validated_on: str = ""
    seconds_a_case: float | None = None


class TrainingCost:
    """The clock of a training, including earlier runs on the same and other machines.

    Args:
        processes: number of processes that share the training.
    """

    def __init__(self, device: torch.device, processes: int):
        self.device, self.processes = device, processes
        self._shares: list[MachineShare] | None = []  # None: part of the training is not recorded
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, at the beginning of an epoch or to continue one."""
        self._started = time.monotonic()

    def stop(self) -> float:
        """Stop the clock; return the seconds since its start."""
        seconds = self._running_seconds()
        self._shares, self._started = self._add_seconds(seconds), None
        return seconds

    def state(self) -> list[dict[str, Any]] | None:
        """Return the shares until now as plain values, also while the clock runs."""
        shares = self._add_seconds(self._running_seconds())
        return None if shares is None else [asdict(share) for share in shares]

    def restore(self, state: Sequence[dict[str, Any]] | None) -> None:
        """Restore a :meth:`state`; None if the beginning of the training was not recorded."""
        self._shares = None if state is None else [MachineShare(**share) for share in state]

    def _running_seconds(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _add_seconds(self, seconds: float) -> list[MachineShare] | None:
        """Return the shares with ``seconds`` added to that of this machine."""
        if self._shares is None or self._started is None:
            return self._shares
        machine = describe_machine(self.device, self.processes)
        earlier = [share for share in self._shares if share.machine == machine]
        elsewhere = [share for share in self._shares if share.machine != machine]
        on_gpu = self.device.type == "cuda"
        gpu_bytes = torch.cuda.max_memory_allocated(self.device) if on_gpu else None
        return [
            *elsewhere,
            MachineShare(
                machine,
                sum(share.seconds for share in earlier) + seconds,
                _peak_gib([share.memory_gib for share in earlier], peak_memory_bytes()),
                _peak_gib([share.gpu_memory_gib for share in earlier], gpu_bytes),
            ),
        ]

    def write(self, folder: Path) -> None:
        """Write the cost of the training, and remove that of an earlier validation."""
        write_json(folder / COST_FILE, {"training": self.state()})

    def write_validation(self, folder: Path, seconds: float, cases: int) -> None:
        """Write the cost of the training and of nnU-Net's validation."""
        machine = describe_machine(self.device, self.processes)
        validation = {"machine": machine, "seconds": seconds, "cases": cases}
        write_json(folder / COST_FILE, {"training": self.state(), "validation": validation})


def describe_machine(device: torch.device, processes: int = 1) -> str:
    """Return GPU, or processor and threads: seconds are comparable if these are equal.

    >>> describe_machine(torch.device("cpu"), processes=2)
    '2 processes, each ..., ... thread...'
    """
    threads = torch.get_num_threads()
    name = f"{processor_name()}, {format_count(threads, 'thread')}"
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {processor_name()}"
    elif device.type != "cpu":
        name = f"{device.type}, {processor_name()}"
    return name if processes == 1 else f"{processes} processes, each {name}"


def _peak_gib(earlier_gib: Sequence[float | None], peak_bytes: int | None) -> float | None:
    """Return the largest known value in GiB, or None."""
    peak_gib = None if peak_bytes is None else peak_bytes / GIB
    return max((gib for gib in (*earlier_gib, peak_gib) if gib is not None), default=None)


def read_cost(folder: Path) -> RecordedCost:
    """Read the cost from the folder of a fold; empty if the training predates the record.

    Raises:
        UserError: the file is damaged.
    """
    content = optional_json(folder / COST_FILE)
    shares = tuple(MachineShare(**share) for share in content.get("training") or ())
    validation = content.get("validation")
    if not validation or not validation["cases"]:
        return RecordedCost(shares)
    seconds = validation["seconds"] / validation["cases"]
    return RecordedCost(shares, validation["machine"], seconds)
