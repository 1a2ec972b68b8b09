"""Work on many cases in shards: each is a job of a launcher and keeps a list of finished cases.

The shard of a case follows from its name, so that every process knows its cases, and no two
processes write to one file.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from semi_nnunet.util.command import Command
from semi_nnunet.util.lock import holder_of

TEMPORARY = ".writing_"


class ShardedWork(Protocol):
    """Cases to work on, each once, by any number of processes."""

    @property
    def title(self) -> str:
        """The beginning of a shard's name on the screen, such as the configuration."""

    @property
    def shards(self) -> Path:
        """The folder of the shards' lists, locks, logs and temporary files."""

    @property
    def cases(self) -> Mapping[str, Any]:
        """Name of a case -> the case."""

    def find_unfinished(self, cases: Collection[str] | None = None) -> list[str]:
        """Return the unfinished ones of ``cases`` (None: all)."""

    def shard_command(self, number: int, count: int, device: str) -> Command:
        """Return the command that does the unfinished cases of a shard."""


W = TypeVar("W", bound=ShardedWork)


@dataclass(frozen=True)
class Shard(Generic[W]):
    """The cases of one process: a job of a launcher.

    Args:
        work: all cases.
        number: of the shard, from 0.
        of: number of shards.
    """

    work: W
    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.work.title} shard {self.number + 1} of {self.of}".lstrip()

    @property
    def folder(self) -> Path:
        """The folder of its list, lock, log and temporary files."""
        return self.work.shards

    @property
    def name(self) -> str:
        """The beginning of the names of its files."""
        return f"part_{self.number:05d}_of_{self.of:05d}"

    @property
    def finished(self) -> Path:
        """The list of its finished cases."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def log(self) -> Path:
        """The output of its process."""
        return self.folder / f"{self.name}.log"

    @property
    def lock(self) -> Path:
        """The lock that is held while it runs."""
        return self.folder / f".{self.name}.lock"

    @property
    def aside(self) -> Path:
        """The folder of its unfinished files, or the beginning of their names."""
        return self.folder / f"{TEMPORARY}{self.name}"

    def holds(self, case: str) -> bool:
        """Return whether a case belongs to this shard."""
        return shard_of(case, self.of) == self.number

    def cases(self) -> dict[str, Any]:
        """Return its cases, finished or not, by name."""
        return {name: case for name, case in self.work.cases.items() if self.holds(name)}

    def find_unfinished(self) -> list[str]:
        """Return the names of its unfinished cases."""
        return self.work.find_unfinished(self.cases())

    @property
    def is_done(self) -> bool:
        """Whether all its cases are finished."""
        return not self.find_unfinished()

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """Yield the command that does the unfinished cases."""
        yield self.work.shard_command(self.number, self.of, device)


def shard_of(case: str, count: int) -> int:
    """Return the number of the shard, of ``count`` shards, that a case belongs to.

    >>> [shard_of(case, 4) for case in ("case_1", "case_2", "case_3")]
    [2, 0, 2]
    """
    return zlib.crc32(case.encode()) % count


def find_unfinished_shards(work: ShardedWork, count: int) -> list[int]:
    """Return the numbers of the shards, of ``count`` shards, that have unfinished cases."""
    return sorted({shard_of(case, count) for case in work.find_unfinished()})


def holders(folder: Path) -> dict[str, str]:
    """Return the running shards of a folder: name of the shard -> its process."""
    processes = {path: holder_of(path) for path in folder.glob(".part_*.lock")}
    return {path.name[1:-5]: process for path, process in processes.items() if process is not None}


def remove_unfinished(folder: Path) -> None:
    """Delete unfinished files of killed processes, also of shards of another number."""
    running = holders(folder)
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.name.removeprefix(TEMPORARY).split(".")[0] in running:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
