"""The list of finished cases of a preprocessed folder.

A case's line is written after its files are complete. Where several processes share the work
(semi_nnunet.data.unlabelled_shards), each has a list of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from semi_nnunet.data.layout import manifest_file, shards_folder
from semi_nnunet.util.files import sha256_of_file, writing
from semi_nnunet.util.validation import line_as

SizeAndDigest = Annotated[list[Any], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class Entry:
    """One finished case.

    Args:
        case: its identifier.
        source: what it was made from: a hash of images, label and the way of preprocessing.
        files: file name -> [bytes, SHA-256]; at least one.
        facts: shape, spacing and intensity statistics of the preprocessed image.
        when: it was finished, in seconds since 1970; of two lists' entries the newer one counts.
    """

    case: str
    source: str
    files: Annotated[dict[str, SizeAndDigest], Field(min_length=1)]
    facts: dict[str, Any] = field(default_factory=dict)
    when: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, case: str, source: str, paths: list[Path], facts: Mapping[str, Any]) -> Entry:
        """Describe the finished files ``paths``."""
        files: dict[str, list[Any]] = {
            path.name: [path.stat().st_size, sha256_of_file(path)] for path in paths
        }
        return cls(case, source, files, dict(facts), time.time())

    def is_present(self, folder: Path) -> bool:
        """Whether every file is there with its size (fast)."""
        return all(
            os.path.isfile(path := os.path.join(folder, name)) and os.path.getsize(path) == size
            for name, (size, _) in self.files.items()
        )

    def is_intact(self, folder: Path) -> bool:
        """Whether every file is there with its checksum (reads all of it)."""
        return self.is_present(folder) and all(
            sha256_of_file(folder / name) == digest for name, (_, digest) in self.files.items()
        )


class Manifest:
    """The finished cases of ``case_folder``; a list is appended to by one process at a time.

    A line torn by a crash, or of another content, is ignored: its case is done again.

    Args:
        case_folder: where the files are.
        path: the list to read and append to; None: all lists are read, that beside the folder is
            appended to.
    """

    def __init__(self, case_folder: str | Path, path: Path | None = None):
        self.folder = Path(case_folder)
        self.path = path or manifest_file(case_folder)
        self._alone = path is not None

    def read(self) -> dict[str, Entry]:
        """Case -> its newest entry."""
        lists = [self.path]
        if not self._alone:
            lists += sorted(shards_folder(self.folder).glob("*.jsonl"))
        entries: dict[str, Entry] = {}
        for path in lists:
            for case, entry in self._listed(path).items():
                if case not in entries or entry.when >= entries[case].when:
                    entries[case] = entry
        return entries

    def _listed(self, path: Path) -> dict[str, Entry]:
        """Case -> its last entry in one list."""
        entries: dict[str, Entry] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if entry := line_as(Entry, line):
                    entries[entry.case] = entry
        return entries

    def present(self) -> dict[str, Entry]:
        """The entries whose files are all there."""
        return {case: entry for case, entry in self.read().items() if entry.is_present(self.folder)}

    def add(self, entry: Entry) -> None:
        """Append ``entry`` and flush it to disk.

        Raises:
            DiskError: the disk is full or not writable.
        """
        with writing(self.path, self.path.parent, left="Its other lines are intact"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                torn = end > 0 and file.read(1) != b"\n"
                file.write((b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
