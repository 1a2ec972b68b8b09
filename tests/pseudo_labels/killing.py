"""Processes that label a shard of a pool and are killed at any step of their writing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.util.shards import Shard

WRITES = ["flush .nii.gz", "rename .nii.gz", "flush .npz", "rename .npz", "flush .jsonl"]


def worker(shard: Shard[LabellingRequest], log: Path) -> None:
    """Label a shard, as its process does."""
    words = [*map(str, shard.work.command(shard.of)[1:]), "--only", "0", "--worker"]
    words += ["--device", "cpu"]
    with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        if main(words):
            sys.exit(1)


def killed_worker(shard: Shard[LabellingRequest], log: Path, kill_at: int, torn: bool) -> None:
    """Label until write number ``kill_at``, then cut its file in half if ``torn``, and die."""
    calls, (fsync, rename) = itertools.count(1), (os.fsync, os.replace)

    def end_of(path: str) -> str:
        return next(ending for ending in (".nii.gz", ".npz", ".jsonl") if path.endswith(ending))

    def reached(name: str, path: str) -> None:
        if next(calls) < kill_at:
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
    worker(shard, log)


def list_finished_cases(shard: Shard[LabellingRequest]) -> list[str]:
    """Return the case of every complete line of a shard's list."""
    lines = shard.finished.read_text().splitlines() if shard.finished.is_file() else []
    return [json.loads(line)["case"] for line in lines if line.endswith("}")]
