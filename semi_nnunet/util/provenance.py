"""What derived files were made from: records of their inputs, compared before a result is trusted.

A record holds size, times, inode and SHA-256 of a file. An input whose size, times and inode are
unchanged is unchanged; of any other the content decides. So thousands of unchanged inputs are
compared without reading them, and a copied or touched file does not count as changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import optional_json, sha256_of_file, sha256_of_version, write_json

# Name within a record, such as "reference case_1" -> the file, or text such as a digest of settings
Inputs = Mapping[str, Path | str]
LINKED = "linked"  # such a text: the result holds links to the file, and follows its changes


@dataclass(frozen=True)
class FileRecord:
    """The state and the content of a file.

    Args:
        size: in bytes.
        modified_ns: time of the last change of the content, in nanoseconds.
        changed_ns: time of the last change of the file, its times and names included; on Windows
            the time of its creation.
        inode: number in its file system.
        digest: SHA-256 of the content.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Read a file and return its record.

        Raises:
            UserError: the file changes while it is read.
        """
        state, digest = read_state(path), sha256_of_file(path)
        if read_state(path) != state:
            raise UserError(f"{path} changed while it was read", fix="wait for its copy to end")
        return cls(*state, digest)

    @classmethod
    def of_any(cls, path: Path) -> FileRecord:
        """Return the record of a file, without a digest if it changes, or cannot be read."""
        try:
            return cls.of(path)
        except (OSError, UserError):
            pass
        try:
            return cls(*read_state(path), digest="")
        except OSError:
            return cls(0, 0, 0, 0, digest="")

    @property
    def state(self) -> tuple[int, int, int, int]:
        """Everything but the digest, see :func:`read_state`."""
        return self.size, self.modified_ns, self.changed_ns, self.inode

    def refreshed(self, path: Path) -> FileRecord | None:
        """Return the record of a file with this content as it is now; None if it has another.

        The file is read only if in doubt.
        """
        try:
            state = read_state(path)
            if state == self.state:
                return self
            if state[0] != self.size or sha256_of_version(path) != self.digest:
                return None
            return FileRecord(*state, self.digest)
        except OSError:
            return None


Records = Mapping[str, FileRecord | str]  # name -> the record of a file, or the text


def read_state(path: str | Path) -> tuple[int, int, int, int]:
    """Return size, times of modification and change (ns), and inode of a file."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@contextmanager
def recorded(record: Path, inputs: Inputs) -> Iterator[None]:
    """Write the record of the inputs after the block, which computes a result from them.

    The earlier record is removed before the block, so that no failure leaves a wrong one.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "label").write_text("1")
    >>> with recorded(folder / "made_from.json", {"label": folder / "label"}):
    ...     _ = (folder / "result").write_text("2")
    >>> find_changed(folder / "made_from.json", {"label": folder / "label"})
    []
    >>> _ = (folder / "label").write_text("3")
    >>> find_changed(folder / "made_from.json", {"label": folder / "label"})
    ['label']

    Raises:
        UserError: an input changed meanwhile, so that the result may be of neither content.
    """
    record.unlink(missing_ok=True)
    records = read_inputs(inputs)
    yield
    require_unchanged(records, inputs)
    write_record(record, records)


def read_inputs(
    inputs: Inputs, read: Callable[[Path], FileRecord] = FileRecord.of
) -> dict[str, FileRecord | str]:
    """Read the inputs and return their records.

    Args:
        read: returns the record of a file.
    """
    return {
        name: read(source) if isinstance(source, Path) else source
        for name, source in inputs.items()
    }


def require_unchanged(records: Records, inputs: Inputs) -> None:
    """Raise a UserError if inputs are not as recorded."""
    raise_if_any(
        "Files changed while they were used:",
        [
            Problem(str(inputs[name]), "changed meanwhile", "repeat the command")
            for name, entry in records.items()
            if not is_unchanged(entry, inputs[name])
        ],
    )


def write_record(record: Path, records: Records) -> None:
    """Write the records of inputs to a file."""
    write_json(
        record,
        {
            name: astuple(entry) if isinstance(entry, FileRecord) else entry
            for name, entry in records.items()
        },
    )


def find_changed(record: Path, inputs: Inputs) -> list[str]:
    """Return the names of inputs that are new, gone or have another content than in a record.

    Without a record, as of results of earlier versions, nothing counts as changed.
    """
    if not record.is_file():
        return []
    try:
        records = read_record(record)
    except (UserError, TypeError):  # damaged by hand: it is not known what the result is of
        return list(inputs)
    return compare_inputs(records, inputs)


def compare_inputs(records: Records, inputs: Inputs) -> list[str]:
    """Return the names of inputs that are new, gone or have another content than recorded."""
    gone = [name for name in records if name not in inputs]
    changed = [
        name
        for name, source in inputs.items()
        if name not in records or not is_unchanged(records[name], source)
    ]
    return gone + changed


def read_record(record: Path) -> dict[str, FileRecord | str]:
    """Return the content of a record."""
    return {
        name: values if isinstance(values, str) else FileRecord(*values)
        for name, values in optional_json(record).items()
    }


def is_unchanged(entry: FileRecord | str, source: Path | str) -> bool:
    """Return whether an input is still as recorded; of a file, a text is its SHA-256."""
    if not isinstance(source, Path):
        return entry == source
    if isinstance(entry, FileRecord):
        return entry.refreshed(source) is not None
    return source.is_file() and sha256_of_version(source) == entry
