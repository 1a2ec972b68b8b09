"""What a machine does while a program runs: processor, memory and GPU memory, every tenth second.

The figures are FLARE's: CPU use is user + system time of the whole machine in percent, memory is
what the machine uses, GPU memory what its first GPU uses, in MiB. Areas under these curves over
time are integrated by the trapezoidal rule over the moments at which they were sampled.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import psutil
from scipy.integrate import trapezoid

from semi_nnunet.challenge.containers import container_of, kill_container

INTERVAL = 0.1  # seconds, FLARE's
CHANGE = 0.01  # of the pages of all processes, until the shared ones are counted again
COARSE = 0.5  # the longest gap between two samples, in seconds, with which areas still mean much
MIB = 2**20
NVIDIA = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0",
          f"--loop-ms={INTERVAL * 1000:.0f}")  # fmt: skip


@dataclass
class Curve:
    """A quantity over time.

    Args:
        moments: seconds, ascending.
        values: at these.
    """

    moments: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, moment: float, value: float) -> None:
        """Append a sample."""
        self.moments.append(moment)
        self.values.append(value)

    @property
    def area(self) -> float:
        """Under the curve: the value's unit times seconds."""
        return float(trapezoid(self.values, self.moments)) if self.values else 0.0

    @property
    def largest(self) -> float:
        return max(self.values, default=0.0)

    def longest_gap(self, begin: float, end: float) -> float:
        """Seconds without a sample between two moments."""
        inside = [moment for moment in self.moments if begin <= moment <= end]
        return float(np.diff([begin, *inside, end]).max())


@dataclass(frozen=True)
class Samples:
    """What was sampled.

    Args:
        cpu: percent of the machine's processors.
        memory: MiB in use on the machine.
        own: MiB of the processes that this one has started since sampling began, whenever these
            may be more than before; a page that several share is counted once. A container is
            started by another process, and does not count.
        gpu: MiB in use on the first GPU; None: the machine has none.
    """

    cpu: Curve
    memory: Curve
    own: Curve
    gpu: Curve | None


@contextmanager
def sampling(interval: float = INTERVAL) -> Iterator[Samples]:
    """Sample in the background inside the block.

    Args:
        interval: seconds between samples of processor and memory.
    """
    has_gpu = shutil.which(NVIDIA[0]) is not None
    samples = Samples(Curve(), Curve(), Curve(), Curve() if has_gpu else None)
    stop, threads = threading.Event(), []
    gpu: subprocess.Popen[str] | None = None
    if samples.gpu is not None:
        gpu = subprocess.Popen(NVIDIA, stdout=subprocess.PIPE, text=True)
        threads.append(threading.Thread(target=_sample_gpu, args=(gpu, samples.gpu)))
    others = set(psutil.Process().children(recursive=True))
    machine = (samples, others, stop, interval)
    threads.append(threading.Thread(target=_sample_machine, args=machine))
    for thread in threads:
        thread.start()
    try:
        yield samples
    finally:
        stop.set()
        if gpu is not None:
            gpu.terminate()
        for thread in threads:
            thread.join()


def _sample_machine(
    samples: Samples, others: set[psutil.Process], stop: threading.Event, interval: float
) -> None:
    before, ends, looked_at, most = psutil.cpu_times(), False, 0, 0
    while not ends:
        ends = stop.wait(interval)  # a program that has ended before still gets a sample
        now, moment = psutil.cpu_times(), time.perf_counter()
        spent = sum(now) - sum(before)
        busy = now.user + now.system - before.user - before.system
        samples.cpu.add(moment, 100.0 * busy / spent if spent else 0.0)
        samples.memory.add(moment, used_memory() / MIB)
        pages = bytes_of_children(all_pages, others)
        if pages > most and abs(pages - looked_at) > CHANGE * looked_at:
            looked_at, share = pages, bytes_of_children(share_of_pages, others)
            most = max(most, share)  # of many processes with the same pages it is far less
            samples.own.add(moment, share / MIB)
        before = now


def used_memory() -> int:
    """Bytes that no other program could have."""
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def bytes_of_children(
    bytes_of: Callable[[psutil.Process], int], others: set[psutil.Process]
) -> int:
    """Bytes of the processes that this one has started, and those that they have.

    Args:
        bytes_of: one of them.
        others: are not counted.
    """
    total = 0
    for process in set(psutil.Process().children(recursive=True)) - others:
        with suppress(psutil.Error):  # it has just ended
            total += bytes_of(process)
    return total


def all_pages(process: psutil.Process) -> int:
    """Bytes of a process; a page that several share is counted for each."""
    return int(process.memory_info().rss)


def share_of_pages(process: psutil.Process) -> int:
    """The same; a shared page is counted once. For gigabytes this takes a tenth of a second and
    more, in which the system works and not the program that is measured.
    """
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))  # Linux alone tells shares


def _sample_gpu(process: subprocess.Popen[str], curve: Curve) -> None:
    for line in process.stdout or ():
        if line.strip().isdigit():
            curve.add(time.perf_counter(), float(line))


@dataclass(frozen=True)
class Cost:
    """What one run of a program cost.

    Args:
        seconds: from its start to its end.
        cpu_area: percent x seconds, of all processors together.
        memory: the most that the machine used, MiB.
        own_memory: the most that the program itself used, MiB, without that of containers.
        gpu_area: MiB x seconds; None: there is no GPU.
        gpu_memory: the most that the GPU used, MiB.
        gap: the longest time without a sample, seconds.
        exit_code: of the program; None: it was ended at its time limit.
    """

    seconds: float
    cpu_area: float
    memory: float
    own_memory: float
    gpu_area: float | None
    gpu_memory: float | None
    gap: float
    exit_code: int | None

    @property
    def is_coarse(self) -> bool:
        """Whether so few samples were taken that areas and largest values mean little."""
        return self.gap > COARSE


def cost_of(
    command: Sequence[str],
    limit: float | None = None,
    interval: float = INTERVAL,
    say: Callable[[str], None] = lambda line: None,
) -> Cost:
    """Run a program and take what it costs.

    Args:
        command: its words.
        limit: seconds after which it is ended.
        interval: between samples.
        say: gets each line that it prints.
    """
    with sampling(interval) as samples:
        begin = time.perf_counter()
        code = _run(command, limit, say)
        end = time.perf_counter()
    curves = [samples.cpu, *([samples.gpu] if samples.gpu else [])]
    gap = max(curve.longest_gap(begin, end) for curve in curves)
    gpu = samples.gpu
    return Cost(
        end - begin, samples.cpu.area, samples.memory.largest, samples.own.largest,
        None if gpu is None else gpu.area, None if gpu is None else gpu.largest, gap, code,
    )  # fmt: skip


def _run(command: Sequence[str], limit: float | None, say: Callable[[str], None]) -> int | None:
    """The exit code of a program; None: it was ended with all that it started."""
    with container_of(command) as (words, killing):
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        reading = threading.Thread(target=_read, args=(process, say))
        reading.start()
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _end(process, killing)
            reading.join()


def _end(process: subprocess.Popen[str], killing: Sequence[str]) -> None:
    """Kill a program, all that it started, and the container that it is the client of."""
    if killing:
        kill_container(killing, process)
    started = []
    with suppress(psutil.Error):  # it has just ended
        started = psutil.Process(process.pid).children(recursive=True)
    for one in [*started, process]:
        with suppress(psutil.Error):
            one.kill()
    process.wait()


def _read(process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    for line in process.stdout or ():
        say(line.rstrip("\n"))
