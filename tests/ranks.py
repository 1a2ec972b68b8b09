"""Trainings by several real processes (gloo, on the CPU), started as by a launcher."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.util.files import write_json
from tests.forking import forked

PLANS = "ranks"
SECONDS_OF_A_SLOW_STEP = 0.15  # long enough to be killed in


@dataclass(frozen=True)
class Rank:
    """One process of a training."""

    process: BaseProcess
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    @property
    def steps(self) -> list[int]:
        """The optimizer steps it ran."""
        return [int(number) for number in re.findall(r"^step (\d+)$", self.said, re.MULTILINE)]

    def ended(self, seconds: float = 120) -> int:
        """Wait for the exit code, at most so many seconds."""
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, f"it hangs: {self.said[-2000:]}"
        return code


@dataclass(frozen=True)
class Training:
    """A fold that several processes train.

    Args:
        results: nnU-Net's folder of results.
        number: of the data set.
        trainer: class name.
        fold: a number, or "all".
    """

    results: Path
    number: int
    trainer: str = "SemiMeanTeacherTrainer"
    fold: str = "0"

    def words(self, *options: str) -> list[str]:
        where = [str(self.number), "2d", self.fold, "-tr", self.trainer, "-p", PLANS]
        return [*where, "-device", "cpu", *options]

    def start(self, count: int, *options: str, slow: bool = False) -> list[Rank]:
        """Start the processes of one launch."""
        self.results.mkdir(exist_ok=True)
        launch, found, port = time.monotonic_ns(), [], free_port()
        for number in range(count):
            output = self.results / f"launch_{launch}_{number}.txt"
            told = told_by_launcher(number, count, port, self.results)
            process = forked(run_rank, told, self.words(*options), output, slow)
            found.append(Rank(process, output))
        return found

    def finish(self, count: int, *options: str) -> list[Rank]:
        """Train to the end; return the processes."""
        ranks = self.start(count, *options)
        for rank in ranks:
            assert rank.ended() == 0, rank.said[-3000:]
        return ranks

    @property
    def folder(self) -> Path:
        """The folder of the fold."""
        return next(self.results.glob(f"Dataset*/*/fold_{self.fold}"))

    def checkpoint(self, name: str = "final") -> dict[str, Any]:
        path = self.folder / f"checkpoint_{name}.pth"
        return dict(torch.load(path, weights_only=True))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def told_by_launcher(number: int, count: int, port: int, results: Path) -> dict[str, str]:
    """Return the environment variables of a process."""
    return {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "nnUNet_results": str(results),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def run_rank(told: dict[str, str], words: list[str], output: Path, slow: bool) -> None:
    """Run a process of a launch: a training without pictures and validation."""
    from nnunetv2.training.logging.nnunet_logger import MetaLogger

    from semi_nnunet.cli.main import main
    from semi_nnunet.training.trainer import SemiTrainer

    os.environ.update(told)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    MetaLogger.plot_progress_png = lambda self, folder: None
    SemiTrainer.plot_network_architecture = lambda self: None
    SemiTrainer.perform_actual_validation = lambda self, save_probabilities=False: None
    step, begin = SemiTrainer.train_step, SemiTrainer.on_train_start

    def train_step(self: Any, batch: Any) -> Any:
        print(f"step {self.step}")
        time.sleep(SECONDS_OF_A_SLOW_STEP if slow else 0)
        return step(self, batch)

    def on_train_start(self: Any) -> None:
        begin(self)
        torch.save(self._companions.state_dict(), output.with_suffix(".pth"))

    SemiTrainer.train_step, SemiTrainer.on_train_start = train_step, on_train_start
    sys.exit(main(["train", *words]))


@contextmanager
def plans_with(dataset: Any, **settings: Any) -> Iterator[None]:
    """Give a prepared data set plans with these settings inside the block."""
    path = dataset.preprocessed / f"{PLANS}.json"
    write_json(path, {**dataset.plans, "plans_name": PLANS, "semi": settings})
    try:
        yield
    finally:
        path.unlink()
