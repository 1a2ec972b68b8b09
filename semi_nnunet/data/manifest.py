"""The list of finished cases of a preprocessed folder.

A case's line is written after its files are complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semi_nnunet.data.layout import manifest_file
from semi_nnunet.files import sha256_of_file


@dataclass(frozen=True)
class Entry:
    """One finished case.

    Args:
        case: its identifier.
        source: what it was made from: a hash of images, label and the way of preprocessing.
        files: file name -> [bytes, SHA-256].
        facts: shape, spacing and intensity statistics of the preprocessed image.
    """

    case: str
    source: str
    files: dict[str, list[Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, case: str, source: str, paths: list[Path], facts: Mapping[str, Any]) -> Entry:
        """Describe the finished files ``paths``."""
        files: dict[str, list[Any]] = {
            path.name: [path.stat().st_size, sha256_of_file(path)] for path in paths
        }
        return cls(case, source, files, dict(facts))

    def is_present(self, folder: Path) -> bool:
        """Whether every file is there with its size (fast)."""
        return all(
            (folder / name).is_file() and (folder / name).stat().st_size == size
            for name, (size, _) in self.files.items()
        )

    def is_intact(self, folder: Path) -> bool:
        """Whether every file is there with its checksum (reads all of it)."""
        return self.is_present(folder) and all(
            sha256_of_file(folder / name) == digest for name, (_, digest) in self.files.items()
        )


class Manifest:
    """The finished cases of ``case_folder``; appended to by one process at a time.

    A line torn by a crash is ignored, which means that its case is done again.

    Args:
        case_folder: where the files are.
        path: the list; None: beside the folder.
    """

    def __init__(self, case_folder: str | Path, path: Path | None = None):
        self.folder = Path(case_folder)
        self.path = path or manifest_file(case_folder)

    def read(self) -> dict[str, Entry]:
        """Case -> its newest entry."""
        entries: dict[str, Entry] = {}
        if self.path.is_file():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    entry = Entry(**json.loads(line))
                except (json.JSONDecodeError, TypeError):
                    continue
                entries[entry.case] = entry
        return entries

    def present(self) -> dict[str, Entry]:
        """The entries whose files are all there."""
        return {case: entry for case, entry in self.read().items() if entry.is_present(self.folder)}

    def add(self, entry: Entry) -> None:
        """Append ``entry`` and flush it to disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = end > 0 and file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
