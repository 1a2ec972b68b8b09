"""Run parts of a measurement in forked processes, each with a limit, within a total limit.

Their output is stored, summarised, and packed into one file after each part.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import os
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import semi_nnunet

ENDING = 6  # seconds that packing takes at most
MOST_LINES, MOST_WIDE, MOST_SAID = 18, 230, 9500  # of what is printed


@dataclass
class Part:
    """Something that is run in a process of its own.

    Args:
        name: of its files.
        work: what it does; an exit status other than 0 or None, and an error, are failures.
        seconds: that it may take.
        needs: seconds that must be left for it to be worth beginning.
    """

    name: str
    work: Callable[[], Any]
    seconds: float
    needs: float = 5.0


class Runner:
    """Runs parts within a limit, and packs what they leave.

    Args:
        out: folder for the packed results.
        began: moment of time.time from which the limit counts.
        limit: seconds in all.
        only: names of the parts that are run, or their beginnings; (): all.
    """

    def __init__(self, out: Path, began: float, limit: float, only: Sequence[str]):
        self.out, self.began, self.limit, self.only = out, began, limit, only
        self.kept = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.results = self.kept / "results"
        self.results.mkdir()
        self.failed: list[str] = []
        self.said, self.method = 0, "fork"

    def find_method(self, device: str) -> None:
        """Spawn processes if forked ones cannot use the GPU."""
        process = self.start(Part("device", partial(uses, device), 30))
        process.join(30)
        if process.exitcode:
            self.method = "spawn"
            self.say(f"a forked process cannot use {device}; every part imports PyTorch anew")

    @property
    def passed(self) -> float:
        """Return the seconds since the beginning."""
        return time.time() - self.began

    @property
    def left(self) -> float:
        """Return the remaining seconds, without packing."""
        return self.limit - ENDING - self.passed

    def say(self, text: str) -> None:
        """Print up to a maximum in total, and add the text to the summary."""
        lines = "".join(f"{line[:MOST_WIDE]}\n" for line in text.splitlines())
        with (self.out / "summary.txt").open("a", encoding="utf-8") as file:
            file.write(lines)
        lines = lines[: max(MOST_SAID - self.said, 0)]
        self.said += len(lines)
        print(lines, end="", flush=True)

    def wants(self, name: str) -> bool:
        """Return whether a part is requested."""
        return not self.only or any(
            name.startswith(one) or one.startswith(name) for one in self.only
        )

    def together(self, parts: Sequence[Part], waits_for: Callable[[str], bool]) -> list[Any]:
        """Run parts side by side until all that are waited for have ended.

        Returns:
            The processes of the others.
        """
        running = [(part, self.start(part)) for part in parts]
        others = [one for one in running if not waits_for(one[0].name)]
        while waited := [one for one in running if one not in others]:
            for part, process in waited:
                late = self.left < 0 or self.passed > process.began + part.seconds
                if process.is_alive() and not late:
                    continue
                self.end(part, process)
                running.remove((part, process))
            time.sleep(0.2)
        return others

    def run(self, part: Part) -> None:
        """Run one part, if enough time remains."""
        if not self.wants(part.name):
            return
        if self.left < part.needs:
            self.say(f"{part.name}: SKIPPED, {max(self.left, 0):.0f} s were left")
            self.failed.append(part.name)
            return
        process = self.start(part)
        process.join(min(part.seconds, self.left))
        self.end(part, process)

    def start(self, part: Part) -> Any:
        """Start the process of a part."""
        file = self.results / f"{part.name}.txt"
        work = partial(in_child, part, file)
        context: Any = multiprocessing.get_context(self.method)
        process = context.Process(target=work, name=part.name)
        process.start()
        process.began = self.passed
        return process

    def end(self, part: Part, process: Any) -> None:
        """End a part if it still runs, print its outcome, and pack."""
        stopped = process.is_alive()
        if stopped:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has just begun, and no group of its own yet
                process.kill()
        process.join(5)
        code, seconds = process.exitcode, self.passed - process.began
        text = (self.results / f"{part.name}.txt").read_text(encoding="utf-8", errors="replace")
        log = (self.results / f"{part.name}.log").read_text(encoding="utf-8", errors="replace")
        how = "ok" if code == 0 else f"FAILED with exit code {code}"
        self.say(f"{part.name}: {'STOPPED, it took longer' if stopped else how}, {seconds:.0f} s")
        if stopped or code:
            self.failed.append(part.name)
            end = [line for line in log.splitlines() if line.strip()][-4 if stopped else -6 :]
            self.say("\n".join(f"    {line}" for line in end))
        self.say("\n".join(shown(part.name, text)))
        self.pack()

    def pack(self) -> None:
        """Write all results into one file atomically."""
        target = self.out / "gpu_check.tar.gz"
        aside = self.kept / target.name
        with tarfile.open(aside, "w:gz", compresslevel=1) as tar:
            tar.add(self.results, "gpu_check")
            tar.add(self.out / "summary.txt", "gpu_check/summary.txt")
        beside = target.with_suffix(".part")
        beside.write_bytes(aside.read_bytes())
        beside.replace(target)


def in_child(part: Part, file: Path) -> None:
    """Do the work of a part in this process, then exit."""
    os.setsid()
    for stream, where in ((1, file), (2, file.with_suffix(".log"))):
        os.dup2(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    code = 1
    try:
        code = part.work() or 0
    except SystemExit as left:
        print(left.code, file=sys.stderr)
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():  # what it has started ends with it
        child.kill()
    os._exit(int(code))


def shown(name: str, text: str) -> list[str]:
    """Return the lines of a part that are worth reading at once."""
    lines = [line for line in text.splitlines() if line.strip()]
    if name.startswith("steps_"):  # all is well: how many checks; else what is not
        wrong = [line for line in lines if ": ok" not in line]
        compiled = [line for line in lines if "compiled" in line and line not in wrong]
        short = [line.partition("uncompiled: ")[2] for line in compiled]
        return [f"    {len(lines) - len(wrong)} ok; {' '.join(short)}", *wrong[:MOST_LINES]]
    return lines[:MOST_LINES]


def uses(device: str) -> None:
    """Compute something on the device, and wait for it."""
    print(torch.ones(2, device=device).sum().item())


def make_known(folder: Path) -> None:
    """Let Python find the version of a checkout that is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("semi_nnunet")
        return
    told = folder / "semi_nnunet.dist-info"
    told.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: semi_nnunet\nVersion: {semi_nnunet.__version__}\n"
    (told / "METADATA").write_text(about, encoding="utf-8")
    sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{folder}"
