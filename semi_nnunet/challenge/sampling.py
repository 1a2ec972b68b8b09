"""Run a program and sample processor, memory and GPU memory every tenth of a second.

The figures are FLARE's: CPU use is user + system time of the whole machine in percent, memory is
that in use on the machine, GPU memory that in use on its first GPU, in MiB. Areas under these
curves over time are integrated by the trapezoidal rule over the sampling moments.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from scipy.integrate import trapezoid

INTERVAL = 0.1  # seconds, FLARE's
CHANGE = 0.01  # of the pages of all processes, until the shared ones are counted again
COARSE = 0.5  # the longest gap between two samples, in seconds, with which areas still mean much
MIB = 2**20
NVIDIA = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0",
          f"--loop-ms={INTERVAL * 1000:.0f}")  # fmt: skip
ENGINES = ("docker", "podman", "nerdctl")
ID_FILE = "--cidfile"
LAST_LINES_S = 0.2  # for the last lines of a program that has ended
PATIENCE_S = 30.0  # for an engine to kill a container, and for its client to notice


# ---- samples ----


@dataclass
class Curve:
    """A quantity over time.

    >>> Curve([0.0, 1.0, 2.0], [10.0, 20.0, 10.0]).area
    30.0

    Args:
        moments: seconds, ascending.
        values: at these moments.
    """

    moments: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, moment: float, value: float) -> None:
        """Append a sample."""
        self.moments.append(moment)
        self.values.append(value)

    @property
    def area(self) -> float:
        """Area under the curve: the value's unit times seconds."""
        return float(trapezoid(self.values, self.moments)) if self.values else 0.0

    @property
    def largest(self) -> float:
        return max(self.values, default=0.0)

    def longest_gap(self, begin: float, end: float) -> float:
        """Return the longest time without a sample between two moments, in seconds."""
        inside = [moment for moment in self.moments if begin <= moment <= end]
        return float(np.diff([begin, *inside, end]).max())


@dataclass(frozen=True)
class Samples:
    """Curves of a machine.

    Args:
        cpu: percent of the machine's processors.
        memory: MiB in use on the machine.
        own: MiB of the processes started since sampling began, recorded when they may have grown; a
            shared page is counted once. Containers are started by another process and do not count.
        gpu: MiB in use on the first GPU; None: the machine has none.
    """

    cpu: Curve
    memory: Curve
    own: Curve
    gpu: Curve | None


def start_gpu_samples(curve: Curve) -> subprocess.Popen[str] | None:
    """Start nvidia-smi and record its first sample.

    Returns:
        The process, or None without a GPU; nvidia-smi may be installed where no driver is.
    """
    try:
        process = subprocess.Popen(NVIDIA, stdout=subprocess.PIPE, text=True)
    except OSError:
        return None
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    has_gpu = process.stdout is not None and _add_sample(process.stdout.readline(), curve)
    patience.cancel()
    if not has_gpu:
        process.kill()
        process.communicate()
    return process if has_gpu else None


@contextmanager
def sample_machine(interval: float = INTERVAL) -> Iterator[Samples]:
    """Sample in the background inside the block.

    Args:
        interval: seconds between samples of processor and memory.
    """
    stop, threads, memory_of_gpu = threading.Event(), [], Curve()
    gpu = start_gpu_samples(memory_of_gpu)
    samples = Samples(Curve(), Curve(), Curve(), None if gpu is None else memory_of_gpu)
    if gpu is not None:
        threads.append(threading.Thread(target=_record_gpu, args=(gpu, memory_of_gpu)))
    earlier = set(psutil.Process().children(recursive=True))
    arguments = (samples, earlier, stop, interval)
    threads.append(threading.Thread(target=_record_machine, args=arguments))
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


def _record_machine(
    samples: Samples, excluded: set[psutil.Process], stop: threading.Event, interval: float
) -> None:
    previous, ends, counted_pages, most = psutil.cpu_times(), False, 0, 0
    while not ends:
        ends = stop.wait(interval)  # a program that ends earlier still gets a sample
        current, moment = psutil.cpu_times(), time.perf_counter()
        spent = sum(current) - sum(previous)
        busy = current.user + current.system - previous.user - previous.system
        samples.cpu.add(moment, 100.0 * busy / spent if spent else 0.0)
        samples.memory.add(moment, count_used_memory() / MIB)
        pages = count_child_bytes(count_all_pages, excluded)
        if pages > most and abs(pages - counted_pages) > CHANGE * counted_pages:
            counted_pages, share = pages, count_child_bytes(count_page_shares, excluded)
            most = max(most, share)  # for many processes that share pages, far less than all pages
            samples.own.add(moment, share / MIB)
        previous = current


def count_used_memory() -> int:
    """Return the bytes that are not available to other programs."""
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def count_child_bytes(count: Callable[[psutil.Process], int], excluded: set[psutil.Process]) -> int:
    """Return the bytes of all descendants of this process.

    Args:
        count: bytes of one process.
        excluded: processes to leave out.
    """
    total = 0
    for process in set(psutil.Process().children(recursive=True)) - excluded:
        with suppress(psutil.Error):  # it has just ended
            total += count(process)
    return total


def count_all_pages(process: psutil.Process) -> int:
    """Return the bytes of a process; a shared page is counted for each process."""
    return int(process.memory_info().rss)


def count_page_shares(process: psutil.Process) -> int:
    """Return the bytes of a process; a shared page is split among its processes.

    For gigabytes this takes a tenth of a second or more of system time.
    """
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))  # only Linux reports shares


def _record_gpu(process: subprocess.Popen[str], curve: Curve) -> None:
    for line in process.stdout or ():
        _add_sample(line, curve)


def _add_sample(line: str, curve: Curve) -> bool:
    """Add the memory that nvidia-smi printed; return whether the line holds a number."""
    if line.strip().isdigit():
        curve.add(time.perf_counter(), float(line))
        return True
    return False


# ---- the program ----


@dataclass(frozen=True)
class ProgramCost:
    """The cost of one run of a program.

    Args:
        seconds: from start to end.
        cpu_area: percent x seconds, of all processors together.
        memory: the most that the machine used, MiB.
        own_memory: the most that the program itself used, MiB, without containers.
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
        """Whether there are too few samples for meaningful areas and largest values."""
        return self.gap > COARSE


def measure_program(
    command: Sequence[str],
    limit: float | None = None,
    interval: float = INTERVAL,
    say: Callable[[str], None] = lambda line: None,
) -> ProgramCost:
    """Run a program and return its cost.

    Args:
        command: its words.
        limit: seconds after which it is ended.
        interval: between samples.
        say: receives each line that the program prints.
    """
    with sample_machine(interval) as samples:
        begin = time.perf_counter()
        code = _run(command, limit, say)
        end = time.perf_counter()
    curves = [samples.cpu, *([samples.gpu] if samples.gpu else [])]
    gap = max(curve.longest_gap(begin, end) for curve in curves)
    gpu = samples.gpu
    return ProgramCost(
        end - begin, samples.cpu.area, samples.memory.largest, samples.own.largest,
        None if gpu is None else gpu.area, None if gpu is None else gpu.largest, gap, code,
    )  # fmt: skip


def _run(command: Sequence[str], limit: float | None, say: Callable[[str], None]) -> int | None:
    """Return the exit code of a program, or None if it was ended with its descendants."""
    with track_container(command) as (words, kill_words):
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        reading = threading.Thread(target=_read, args=(process, say), daemon=True)
        reading.start()
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _end(process, kill_words)
            reading.join(LAST_LINES_S)  # what the program left behind may hold its output open


def _end(process: subprocess.Popen[str], kill_words: Sequence[str]) -> None:
    """Kill a program, its descendants, and the container whose client it is."""
    if kill_words:
        kill_container(kill_words, process)
    descendants = []
    with suppress(psutil.Error):  # it has just ended
        descendants = psutil.Process(process.pid).children(recursive=True)
    for running in [*descendants, process]:
        with suppress(psutil.Error):
            running.kill()
    process.wait()


def _read(process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    for line in process.stdout or ():
        say(line.rstrip("\n"))


# ---- containers: killing a client of docker leaves its container running ----


@contextmanager
def track_container(command: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Have the engine write the container's id into a file, so that it can be killed.

    >>> with track_container(["sh", "predict.sh"]) as (words, kill_words):
    ...     print(words, kill_words)
    ['sh', 'predict.sh'] []

    Args:
        command: words such as docker container run --rm NAME, or of any other program.

    Yields:
        The words to run, and those of :func:`kill_container`, empty for another program.
    """
    words = list(command)
    run = find_run_word(words)
    if run is None:
        yield words, []
        return
    id_word = next((word for word in words if word.split("=")[0] == ID_FILE), None)
    if id_word is not None:  # the command has such a file already
        is_separate = id_word == ID_FILE
        file = words[words.index(id_word) + 1] if is_separate else id_word.split("=", 1)[1]
        yield words, [*words[:run], file]
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "id")
        yield [*words[: run + 1], ID_FILE, file, *words[run + 1 :]], [*words[:run], file]


def find_run_word(words: Sequence[str]) -> int | None:
    """Return the index of an engine's command ``run``, also after sudo, or None.

    >>> find_run_word(["sudo", "docker", "container", "run", "NAME"])
    3
    """
    names = [Path(word).name for word in words]
    engine = next((n for n, name in enumerate(names[:2]) if name in ENGINES), None)
    return words.index("run", engine) if engine is not None and "run" in words[engine:] else None


def kill_container(words: Sequence[str], client: subprocess.Popen[str]) -> None:
    """Kill a tracked container and wait for its client, unless it has ended or has not begun.

    Args:
        words: of the engine, and last the file of the container's id.
        client: the engine's process, which ends with its container.
    """
    *engine, file = words
    with suppress(OSError, subprocess.SubprocessError):
        name = Path(file).read_text(encoding="utf-8").strip()
        subprocess.run([*engine, "kill", name], capture_output=True, timeout=PATIENCE_S, check=True)
        client.wait(PATIENCE_S)
