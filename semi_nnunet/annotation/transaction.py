"""Change many files of a data set at once: all of them, or none, however the process ends.

A round has a folder ``.annotation/round_NNN`` in the raw data set, and another one in the
preprocessed data set. New content is written there first. Then the journal, which lists all
changes, enters the phase "commit", and each change is one rename. After a kill, the phase says what
to do: in "prepare" nothing was changed and the folder is discarded; in "commit" and "undo" the rest
of the list is done. Every change may be repeated.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from semi_nnunet.raw.layout import (
    JOURNAL,
    ROUNDS_FOLDER,
    UNFINISHED_PHASES,
    suggest_journal_repair,
)
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import (
    sha256_of_file,
    write_atomically,
    write_json,
    writing,
)
from semi_nnunet.util.validation import read_as

PREPARE, DONE = "prepare", "done"
COMMIT, UNDO = UNFINISHED_PHASES
INTACT = "The data set is unchanged"
HALF_DONE = "The same command finishes the round"


@dataclass(frozen=True)
class FileChange:
    """One file that a round creates, moves, replaces or removes.

    Paths are "raw/..." or "preprocessed/...", so that the data set may be moved.

    Args:
        target: the file.
        new: its new content, which is moved to the target; None: the target is removed.
        old: where the previous content is kept; None: there was no file.
        digest: SHA-256 of the new content, if an undo must not lose later edits of it; or of a list
            that only grows.
        grows: whether lines may be appended to the target later, which an undo keeps.
        size: of the new content of a list that grows.
    """

    target: str
    new: str | None = None
    old: str | None = None
    digest: str = ""
    grows: bool = False
    size: int = 0


@dataclass(frozen=True)
class Journal:
    """The content of the file that lists the changes of a round."""

    phase: Literal["prepare", "commit", "undo", "done"]
    changes: tuple[FileChange, ...]


@dataclass
class Transaction:
    """The changes of one round.

    Args:
        roots: "raw" and "preprocessed" -> folders of the data set.
        number: of the round, from 1.
        phase: see the module.
        changes: in their order.
    """

    roots: Mapping[str, Path]
    number: int
    phase: str = PREPARE
    changes: list[FileChange] = field(default_factory=list)

    # ---- the journal

    @property
    def folder(self) -> Path:
        """The folder of the round in the raw data set."""
        return self.side_folder("raw")

    def side_folder(self, root: str) -> Path:
        """Return the folder of the round below "raw" or "preprocessed"."""
        return self.roots[root] / ROUNDS_FOLDER / f"round_{self.number:03d}"

    def save(self, phase: str) -> None:
        """Write the journal in a new phase."""
        self.phase = phase
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"phase": phase, "changes": [asdict(change) for change in self.changes]}
        write_json(self.folder / JOURNAL, content)

    def discard(self) -> None:
        """Remove the folders of the round, the journal last."""
        if (side := self.side_folder("preprocessed")).exists():
            shutil.rmtree(side)
            _remove_if_empty(side.parent)
        for path in list(self.folder.iterdir()) if self.folder.exists() else []:
            if path.is_dir():
                shutil.rmtree(path)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_if_empty(self.folder.parent)

    # ---- preparing

    def find(self, path: str) -> Path:
        """Return the path of a file named "raw/..." or "preprocessed/..."."""
        root, _, rest = path.partition("/")
        return self.roots[root] / rest

    def stage(self, target: str, protected: bool = False, grows: bool = False) -> Path:
        """Return the path for the new content of a file; :meth:`seal` reads what was written."""
        new = self._side_path(target, "new")
        self.changes.append(
            FileChange(target, new, None, digest="?" if protected or grows else "", grows=grows)
        )
        path = self.find(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def move(self, source: str, target: str) -> None:
        """Move a file within the data set."""
        self.changes.append(FileChange(target, source))

    def remove(self, target: str) -> None:
        """Remove a file; an undo restores it."""
        old = self._side_path(target, "old")
        self.find(old).parent.mkdir(parents=True, exist_ok=True)
        self.changes.append(FileChange(target, old=old))

    def _side_path(self, target: str, kind: str) -> str:
        root, _, rest = target.partition("/")
        return f"{root}/{ROUNDS_FOLDER}/round_{self.number:03d}/{kind}/{rest}"

    def seal(self) -> None:
        """Keep the present content of all files that are replaced, and enter the commit."""
        self.changes = [self._keep_present(change) for change in self.changes]
        self.save(COMMIT)

    def _keep_present(self, change: FileChange) -> FileChange:
        target = self.find(change.target)
        if change.new is None or not os.path.lexists(target):
            sealed = change
        else:
            old = self._side_path(change.target, "old")
            self.find(old).parent.mkdir(parents=True, exist_ok=True)
            _copy(target, self.find(old))
            sealed = replace(change, old=old)
        if change.digest and change.new is not None:
            new = self.find(change.new)
            sealed = replace(sealed, digest=sha256_of_file(new), size=new.stat().st_size)
        return sealed

    # ---- doing and undoing

    def commit(self) -> None:
        """Do the rest of the changes."""
        with writing(self.roots["raw"], self.roots["raw"], state=HALF_DONE):
            for change in self.changes:
                self._apply(change)
        self.save(DONE)

    def _apply(self, change: FileChange) -> None:
        target = self.find(change.target)
        if change.new is not None:
            move_file(self.find(change.new), target)
        elif change.old is not None:
            move_file(target, self.find(change.old))

    def undo(self) -> None:
        """Take all changes back, and remove the folders of the round."""
        self.save(UNDO)
        with writing(self.roots["raw"], self.roots["raw"], state=HALF_DONE):
            for change in reversed(self.changes):
                self._take_back(change)
        self.discard()

    def _take_back(self, change: FileChange) -> None:
        target = self.find(change.target)
        if change.old is None and change.new is not None:
            move_file(target, self.find(change.new))
        elif change.old is not None and change.grows:
            self._shorten(target, self.find(change.old), change)
        elif change.old is not None:
            move_file(self.find(change.old), target)

    def _shorten(self, target: Path, old: Path, change: FileChange) -> None:
        """Remove the lines of the round from a list, and keep those that came later."""
        if not old.exists():
            return
        current = target.read_bytes() if target.exists() else b""
        copy = old.with_name(f"{old.name}.round")
        copy.write_bytes(current[: change.size])
        if sha256_of_file(copy) == change.digest:
            content = old.read_bytes() + current[change.size :]
            write_atomically(target, lambda path: path.write_bytes(content))
        copy.unlink()
        old.unlink()

    def find_later_edits(self) -> list[Problem]:
        """Return the files of the round that were edited since, whose edits an undo would lose."""
        fix = "move your version away and restore the file as accept wrote it, or keep the round"
        return [
            Problem(str(path), "was changed after the round", fix)
            for change in self.changes
            if change.digest and not change.grows
            for path in [self.find(change.target)]
            if not path.is_file() or sha256_of_file(path) != change.digest
        ]


def read_transactions(roots: Mapping[str, Path]) -> list[Transaction]:
    """Return the transactions of a data set whose journal exists, by number.

    Raises:
        UserError: a journal is damaged.
    """
    transactions = []
    for path in sorted((roots["raw"] / ROUNDS_FOLDER).glob(f"round_*/{JOURNAL}")):
        try:
            journal = read_as(Journal, path, "semi_nnunet accept", "")
        except UserError as error:
            raise UserError(error.what, fix=suggest_journal_repair(path)) from error
        number = int(path.parent.name.removeprefix("round_"))
        transactions.append(Transaction(roots, number, journal.phase, list(journal.changes)))
    return transactions


def move_file(source: Path, target: Path) -> None:
    """Rename a file, or copy it to another disk; do nothing if the source has gone."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(target, partial(shutil.copy2, source))
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def list_done(transactions: Sequence[Transaction]) -> list[Transaction]:
    """Return the rounds that can be taken back."""
    return [transaction for transaction in transactions if transaction.phase == DONE]
