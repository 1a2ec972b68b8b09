"""Manifest of a preprocessed folder: the list of its finished cases.

A case's line is written after its files are complete. If several processes share the work
(semi_nnunet.preprocessing.shards), each writes its own list.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from semi_nnunet.raw.layout import WRITTEN_FILE
from semi_nnunet.util.files import sha256_of_file, writing
from semi_nnunet.util.provenance import read_state
from semi_nnunet.util.validation import line_as

# The parts of a case's source, in their order; the last is missing in entries of version 0.2.0.
SOURCE_PARTS = ("image", "label", "preprocessing", "spacing")
SHORT = 8  # a training records this many characters of each part
SizeAndDigest = Annotated[list[Any], Field(min_length=2, max_length=2)]


def get_manifest_file(case_folder: str | Path) -> Path:
    """Return the manifest of a preprocessed folder; it lies next to the folder.

    >>> get_manifest_file("Dataset042_Hearts/nnUNetPlans_2d").name
    'nnUNetPlans_2d.manifest.jsonl'
    """
    folder = Path(case_folder)
    return folder.with_name(folder.name + ".manifest.jsonl")


def get_shards_folder(case_folder: str | Path) -> Path:
    """Return the folder of lists, logs and locks of the processes that share the work."""
    folder = Path(case_folder)
    return folder.with_name(folder.name + ".parts")


@dataclass(frozen=True)
class ManifestEntry:
    """One finished case.

    Args:
        source: hashes of what it was made from, see :data:`SOURCE_PARTS`, joined by "-".
        files: file name -> [bytes, SHA-256]; at least one.
        facts: shape and intensity quantiles of the preprocessed image, the original spacing, and
            facts of the label and its classes.
        when: time of its end, in seconds since 1970; the newer of two entries counts.
    """

    case: str
    source: str
    files: Annotated[dict[str, SizeAndDigest], Field(min_length=1)]
    facts: dict[str, Any] = field(default_factory=dict)
    when: float = field(default=0.0, compare=False)

    @classmethod
    def of(
        cls, case: str, source: str, paths: list[Path], facts: Mapping[str, Any]
    ) -> ManifestEntry:
        """Return the entry of a case with the finished files ``paths``."""
        files: dict[str, list[Any]] = {
            path.name: [path.stat().st_size, sha256_of_file(path)] for path in paths
        }
        return cls(case, source, files, dict(facts), time.time())

    def is_present(self, folder: Path) -> bool:
        """Return whether every file exists with its size (fast)."""
        return all(
            os.path.isfile(path := os.path.join(folder, name)) and os.path.getsize(path) == size
            for name, (size, _) in self.files.items()
        )

    def is_unchanged(self, folder: Path) -> bool:
        """Return whether every file is as it was written (reads only files touched since then)."""
        return self.is_present(folder) and all(
            max((stat := os.stat(folder / name)).st_mtime, stat.st_ctime) <= self.when
            or sha256_of_file(folder / name) == digest
            for name, (_, digest) in self.files.items()
        )

    def is_intact(self, folder: Path) -> bool:
        """Return whether every file exists with its checksum (reads all bytes)."""
        return self.is_present(folder) and all(
            sha256_of_file(folder / name) == digest for name, (_, digest) in self.files.items()
        )


def read_sources(case_folder: str | Path, cases: Collection[str] | None = None) -> dict[str, str]:
    """Return case -> short hashes of what it was made from; cases without an entry are left out.

    Args:
        cases: whose hashes to return; None: all.
    """
    entries = Manifest(case_folder).read()
    return {
        case: "-".join(part[:SHORT] for part in entries[case].source.split("-"))
        for case in sorted(entries if cases is None else cases)
        if case in entries
    }


def describe_source_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what has changed of the cases in both.

    >>> describe_source_changes({"a": "1-2-3"}, {"a": "1-4-3-5", "b": "6-7-3-5"})
    ['label of a']
    """
    return [
        f"{name} of {case}"
        for case, source in before.items()
        if case in now
        for name, old, new in zip(
            SOURCE_PARTS, source.split("-"), now[case].split("-"), strict=False
        )
        if old != new
    ]


class Manifest:
    """The finished cases of ``case_folder``. Only one process at a time may append to a list.

    Torn lines (of a crash) and foreign content are ignored, and their cases are done again.

    Args:
        case_folder: folder of the files.
        path: the list to read and append to. None: read all lists, and append to the one next to
            the folder.
    """

    def __init__(self, case_folder: str | Path, path: Path | None = None):
        self.folder = Path(case_folder)
        self.path = path or get_manifest_file(case_folder)
        self._reads_one_list = path is not None

    def read(self) -> dict[str, ManifestEntry]:
        """Return case -> its newest entry."""
        lists = [self.path]
        if not self._reads_one_list:
            lists += sorted(get_shards_folder(self.folder).glob("*.jsonl"))
        entries: dict[str, ManifestEntry] = {}
        for path in lists:
            if not path.is_file():
                continue
            for case, entry in _parse_list(path, read_state(path)).items():
                if case not in entries or entry.when >= entries[case].when:
                    entries[case] = entry
        return entries

    def present(self) -> dict[str, ManifestEntry]:
        """Return the entries whose files all exist."""
        return {case: entry for case, entry in self.read().items() if entry.is_present(self.folder)}

    def list_damaged(self, cases: Iterable[str]) -> list[str]:
        """Return the recorded cases with a missing file, or a file of another size."""
        entries = self.read()
        return [
            case for case in cases if case in entries and not entries[case].is_present(self.folder)
        ]

    def add(self, entry: ManifestEntry) -> None:
        """Append ``entry`` and flush it to the disk.

        Raises:
            DiskError: the disk is full or not writable.
        """
        with writing(self.path, self.path.parent, state="Its other lines are intact"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                torn = end > 0 and file.read(1) != b"\n"
                file.write((b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())


class WrittenLabels(Manifest):
    """The labels of a folder as a command wrote them, to notice later corrections.

    Args:
        folder: of the labels; the list is a file in it.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, folder / WRITTEN_FILE)

    def record(self, case: str, path: Path) -> None:
        """Record a label; ``path`` is the file in the folder, or the one to be copied there."""
        self.add(ManifestEntry.of(case, "", [path], {}))

    def list_unchanged(self) -> set[str]:
        """Return the cases whose label is as it was written."""
        return {case for case, entry in self.read().items() if entry.is_unchanged(self.folder)}


@lru_cache(maxsize=4)  # checks before a training, and the training, read the same lists
def _parse_list(path: Path, state: tuple[int, ...]) -> Mapping[str, ManifestEntry]:
    """Return case -> its last entry in a list with this state."""
    entries: dict[str, ManifestEntry] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if entry := line_as(ManifestEntry, line):
            entries[entry.case] = entry
    return MappingProxyType(entries)


def forget_lists() -> None:
    """Free the memory of the lists that were read, before long work."""
    _parse_list.cache_clear()
