"""Processes that label a part of a pool, to be killed at any step of their writing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.pool import PoolShard

WRITES = ["flush .nii.gz", "rename .nii.gz", "flush .npz", "rename .npz", "flush .jsonl"]


def worker(part: PoolShard, log: Path) -> None:
    """The process that labels a part."""
    words = ["pseudo-label", *part.arguments(), "--only", "0", "--worker", "--device", "cpu"]
    with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        if main(words):
            sys.exit(1)


def killed_worker(part: PoolShard, log: Path, at: int, torn: bool) -> None:
    """A worker that is killed at its write ``at``; what it was about to flush is cut in half."""
    calls, (fsync, rename) = itertools.count(1), (os.fsync, os.replace)

    def end_of(path: str) -> str:
        return next(ending for ending in (".nii.gz", ".npz", ".jsonl") if path.endswith(ending))

    def reached(name: str, path: str) -> None:
        if next(calls) < at:
            return
        if torn:
            os.truncate(path, os.path.getsize(path) // 2)
        log.write_text(f"killed at {name} {end_of(path)}", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)

    def killing_fsync(file: int) -> None:
        reached("flush", os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def killing_rename(source: Path, target: Path) -> None:
        reached("rename", str(source))
        rename(source, target)

    os.fsync, os.replace = killing_fsync, killing_rename
    worker(part, log)


def finished_by(part: PoolShard) -> list[str]:
    """The case of every whole line of a part's list."""
    lines = part.finished.read_text().splitlines() if part.finished.is_file() else []
    return [json.loads(line)["case"] for line in lines if line.endswith("}")]
