"""What a training costs: seconds and memory, on each machine that it ran on.

The clock runs in the epochs, with their validation on patches and their filtering of unlabelled
images. What it shows is in every checkpoint, so that a training that was interrupted anywhere costs
the sum of its parts. Steps that were lost with a process, and done again, are counted once: the
number is that of the work behind the weights.
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

FILE = "semi_cost.json"


@dataclass(frozen=True)
class Share:
    """What a training cost on one machine.

    Args:
        machine: of :func:`machine_of`.
        seconds: of its epochs there.
        memory_gib: the most that the (first) process of the training had, without its loaders.
        gpu_memory_gib: the most that its tensors had on the GPU; None on a CPU.
    """

    machine: str
    seconds: float
    memory_gib: float | None
    gpu_memory_gib: float | None


@dataclass(frozen=True)
class Recorded:
    """What is known of the costs of a training.

    Args:
        training: a share for each machine; () where the training, or a part, predates the record.
        validated_on: the machine of nnU-Net's validation, "" if that is not known.
        seconds_a_case: of that: prediction, writing and measuring.
    """

    training: tuple[Share, ...] = ()
    validated_on: str = ""
    seconds_a_case: float | None = None


class Cost:
    """The clock of a training, and what it showed on the machines before.

    Args:
        device: that it trains on.
        processes: that share the training.
    """

    def __init__(self, device: torch.device, processes: int):
        self.device, self.processes = device, processes
        self._shares: list[Share] | None = []  # None: how it began is not known
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, at the beginning of an epoch or where one goes on."""
        self._started = time.monotonic()

    def stop(self) -> float:
        """Stop the clock; returns the seconds since its start."""
        seconds = self._running()
        self._shares, self._started = self._after(seconds), None
        return seconds

    def state(self) -> list[dict[str, Any]] | None:
        """The shares until now as plain values, also while the clock runs."""
        shares = self._after(self._running())
        return None if shares is None else [asdict(share) for share in shares]

    def restore(self, state: Sequence[dict[str, Any]] | None) -> None:
        """Take over :meth:`state`; None: of a training whose beginning was not recorded."""
        self._shares = None if state is None else [Share(**share) for share in state]

    def _running(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _after(self, running: float) -> list[Share] | None:
        if self._shares is None or self._started is None:
            return self._shares
        machine = machine_of(self.device, self.processes)
        before = [share for share in self._shares if share.machine == machine]
        others = [share for share in self._shares if share.machine != machine]
        peaks = [(share.memory_gib, share.gpu_memory_gib) for share in before]
        on_host, on_gpu = zip(*peaks, (gib(peak_memory_bytes()), gpu_gib(self.device)), strict=True)
        seconds = sum(share.seconds for share in before) + running
        return [*others, Share(machine, seconds, highest(on_host), highest(on_gpu))]

    def write(self, folder: Path) -> None:
        """Write what the training cost, in place of what was known in the folder before."""
        write_json(folder / FILE, {"training": self.state()})

    def write_validation(self, folder: Path, seconds: float, cases: int) -> None:
        """Add to the folder's file what nnU-Net's validation took."""
        machine = machine_of(self.device, self.processes)
        found = {"machine": machine, "seconds": seconds, "cases": cases}
        write_json(folder / FILE, {"training": self.state(), "validation": found})


def machine_of(device: torch.device, processes: int = 1) -> str:
    """GPU, or processor and threads: what must agree where seconds are compared."""
    threads = torch.get_num_threads()
    name = f"{processor_name()}, {threads} thread{'' if threads == 1 else 's'}"
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {processor_name()}"
    elif device.type != "cpu":
        name = f"{device.type}, {processor_name()}"
    return name if processes == 1 else f"{processes} processes, each {name}"


def gib(amount: int | None) -> float | None:
    return None if amount is None else amount / GIB


def gpu_gib(device: torch.device) -> float | None:
    return gib(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def highest(amounts: Sequence[float | None]) -> float | None:
    """The largest of those that are known."""
    return max((amount for amount in amounts if amount is not None), default=None)


def read_cost(folder: Path) -> Recorded:
    """What the folder of a fold tells; nothing where the training predates the record.

    Raises:
        UserError: the file is damaged.
    """
    found = optional_json(folder / FILE)
    shares = tuple(Share(**share) for share in found.get("training") or ())
    validation = found.get("validation")
    if not validation or not validation["cases"]:
        return Recorded(shares)
    seconds = validation["seconds"] / validation["cases"]
    return Recorded(shares, validation["machine"], seconds)
