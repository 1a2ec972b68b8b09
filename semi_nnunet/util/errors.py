"""How a mistake of the user's is reported: the rule, what was found, the fix; no traceback."""

from __future__ import annotations

import errno
import signal
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

MAX_LISTED = 50
OBEYED = ("Cc", "Cs")  # control characters, and bytes that are no letters
OF_A_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # or one to read alone
OF_THE_DISK = OF_A_FULL_DISK | {
    errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one input.

    Args:
        where: the file, case or setting.
        what: the rule that is broken and the value found.
        fix: what to do about it.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}"


class UserError(ValueError):
    """Something the user gave is wrong; the message says what was found and how to mend it."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()):
        self.problems = tuple(problems)
        shown = [f"  {problem}" for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            shown.append(f"  ... and {len(self.problems) - MAX_LISTED} more")
        super().__init__(printable("\n".join([message, *shown])))


def refuse(headline: str, problems: Iterable[Problem]) -> None:
    """Raise all that is wrong at once, if anything is.

    Args:
        headline: what cannot be done, ending with a colon.
        problems: what is wrong.

    Raises:
        UserError: something is.
    """
    if found := list(problems):
        raise UserError(headline, found)


@contextmanager
def noting(problems: list[Problem], where: str) -> Iterator[None]:
    """Inside the block, a mistake is noted instead of raised, to be told together with others.

    Args:
        problems: those that were found; gets the ones of the mistake.
        where: of a mistake that lists none.
    """
    try:
        yield
    except UserError as error:
        what, _, fix = str(error).removeprefix(f"{where} ").partition(" Fix: ")
        problems += error.problems or [Problem(where, what.rstrip("."), fix or "correct it")]


def printable(text: str) -> str:
    """The text without characters that a terminal obeys, such as ESC in the name of a file."""
    return "".join(
        repr(letter)[1:-1]
        if unicodedata.category(letter) in OBEYED and letter not in "\n\t"
        else letter
        for letter in text
    )


class DiskError(UserError):
    """Something could not be written: the disk is full or not writable."""


def said_of_disk(error: BaseException) -> str | None:
    """What a user is told of an error of the disk; None: the error is another one."""
    if not isinstance(error, OSError) or error.errno not in OF_THE_DISK:
        return None
    name = error.filename2 or error.filename  # a copy reads the first and writes the second
    where = f"{name}: " if name else ""
    return printable(
        f"{where}{error.strerror}. Fix: free space there, or make it writable, or choose another "
        f"place, and run the same command again"
    )


def print_user_errors_plainly() -> None:
    """Make an uncaught :class:`UserError` end the program with its message instead of a traceback.

    So do errors of the disk and Ctrl-C.

    nnU-Net's own commands run our trainers, so this is the only place where we can catch what they
    raise.
    """
    if getattr(sys.excepthook, "prints_user_errors_plainly", False):
        return
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        said = str(error) if isinstance(error, UserError) else said_of_disk(error)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends us without a traceback
            print("semi_nnunet: interrupted; the same command with --c goes on", file=sys.stderr)
        elif said is not None:
            print(f"semi_nnunet: error: {said}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.prints_user_errors_plainly = True  # type: ignore[attr-defined]
    sys.excepthook = hook
