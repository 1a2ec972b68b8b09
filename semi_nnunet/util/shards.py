"""A pool of cases in shards: each a job of a launcher, with a list of what it has finished.

Which shard a case belongs to follows from its name alone, so that every process knows its cases,
and no two write to one file.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

from semi_nnunet.util.lock import holder_of

TEMPORARY = ".writing_"


class Shard:
    """One shard of a pool.

    Attributes:
        number: of the shard, from 0.
        of: how many shards there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.number + 1} of {self.of}"

    @property
    def folder(self) -> Path:
        """Where its list, lock, log and temporary files are."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The name that its files begin with."""
        return f"part_{self.number:05d}_of_{self.of:05d}"

    @property
    def finished(self) -> Path:
        """The list of its cases that it has finished."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def log(self) -> Path:
        """The file that its process prints to."""
        return self.folder / f"{self.name}.log"

    @property
    def lock(self) -> Path:
        """Held while it runs."""
        return self.folder / f".{self.name}.lock"

    @property
    def aside(self) -> Path:
        """The beginning of the names of its unfinished files, or the folder that holds them."""
        return self.folder / f"{TEMPORARY}{self.name}"

    def holds(self, case: str) -> bool:
        """Whether a case belongs to it."""
        return shard_of(case, self.of) == self.number


def shard_of(case: str, count: int) -> int:
    """The number of the shard a case belongs to."""
    return zlib.crc32(case.encode()) % count


def shards_holding(cases: Iterable[str], count: int) -> list[int]:
    """The numbers of those of ``count`` shards that hold any of the cases."""
    return sorted({shard_of(case, count) for case in cases})


def holders(folder: Path) -> dict[str, str]:
    """Name of a shard -> who works on it now."""
    found = {path: holder_of(path) for path in folder.glob(".part_*.lock")}
    return {path.name[1:-5]: holder for path, holder in found.items() if holder is not None}


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left unfinished, also where there are other shards now."""
    at_work = holders(folder)
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.name.removeprefix(TEMPORARY).split(".")[0] in at_work:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
