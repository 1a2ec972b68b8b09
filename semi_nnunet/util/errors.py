"""Errors for users: the broken rule, the value found and the fix, without a traceback."""

from __future__ import annotations

import errno
import signal
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

# controls, undecodable bytes, marks of direction and other formats, separators of lines
ESCAPED = ("Cc", "Cs", "Cf", "Zl", "Zp")
MAX_LISTED = 50
FULL_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # or read-only
DISK_ERRNOS = FULL_DISK_ERRNOS | {
    errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A mistake in one input.

    >>> print(Problem("case_1", "has 2 channels, expected 1", fix="remove one"))
    case_1: has 2 channels, expected 1. Fix: remove one

    Args:
        where: the file, case or setting.
        what: the broken rule and the value found.
        fix: what to do about it.
    """

    where: str
    what: str
    fix: str

    kind: ClassVar[str] = "WARNING"  # where a problem does not stop the work

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}"

    def as_warning(self) -> str:
        """Return the line that reports the problem without stopping the work."""
        return f"{self.kind}: {self}"


@dataclass(frozen=True)
class Suggestion(Problem):
    """Something that may be better; nothing is wrong.

    >>> print(Suggestion("labelsTr", "are scribbles", fix="try crf_weight=0.03").as_warning())
    NOTE: labelsTr: are scribbles; try crf_weight=0.03
    """

    kind: ClassVar[str] = "NOTE"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"


def shorten_reason(error: BaseException) -> str:
    """Return one line of an exception's text, or its type if it has none.

    SimpleITK and others wrap the reason in several lines.

    >>> shorten_reason(ValueError("too long\\nsee the log")), shorten_reason(AssertionError())
    ('too long', 'AssertionError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marked = [line.split("ERROR:", 1)[1].strip() for line in lines if "ERROR:" in line]
    line = next((line for line in [*marked, *lines] if line), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."


class UserError(ValueError):
    """Report a mistake of the user: what is wrong, the value found, and the fix.

    >>> print(UserError("epochs must be at least 1, got 0", fix="raise it"))
    epochs must be at least 1, got 0. Fix: raise it

    Args:
        what: the broken rule and the value found, as one sentence without a full stop; a headline
            that ends with a colon if ``problems`` follow.
        problems: everything that is wrong, listed below the headline.
        fix: what to do about it.
    """

    def __init__(self, what: str, problems: Iterable[Problem] = (), *, fix: str | None = None):
        self.what = what.rstrip().removesuffix(".")
        self.problems = tuple(problems)
        self.fix = fix
        headline = what if fix is None else f"{self.what}. Fix: {fix}"
        lines = [f"  {problem}" for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"  ... and {len(self.problems) - MAX_LISTED} more")
        super().__init__(printable("\n".join([headline, *lines])))

    def as_problems(self, where: str) -> list[Problem]:
        """Return the problems of this error, or the error itself as one problem of ``where``."""
        if self.problems:
            return list(self.problems)
        return [Problem(where, self.what.removeprefix(f"{where} "), self.fix or "correct it")]


def raise_if_any(headline: str, problems: Iterable[Problem]) -> None:
    """Raise one :class:`UserError` that lists all problems, if there are any.

    >>> raise_if_any("2d cannot be trained:", [])

    Args:
        headline: what cannot be done, ending with a colon.
        problems: what is wrong.

    Raises:
        UserError: ``problems`` is not empty.
    """
    if listed := list(problems):
        raise UserError(headline, listed)


@contextmanager
def collect_errors(problems: list[Problem], where: str) -> Iterator[None]:
    """Append each :class:`UserError` raised inside the block to ``problems``.

    Args:
        problems: extended by the problems of the error.
        where: the input to blame if the error lists no problems.
    """
    try:
        yield
    except UserError as error:
        problems += error.as_problems(where)


def printable(text: str) -> str:
    r"""Escape characters that control a terminal or the direction of text, such as ESC in a name.

    >>> print(printable("\x1b[31m.nii.gz"))
    \x1b[31m.nii.gz
    """
    return "".join(
        repr(letter)[1:-1]
        if unicodedata.category(letter) in ESCAPED and letter not in "\n\t"
        else letter
        for letter in text
    )


class DiskError(UserError):
    """An error of the disk: it is full or not writable."""


def disk_error_message(error: BaseException) -> str | None:
    """Return the message for a disk error, or None for any other error."""
    if not isinstance(error, OSError) or error.errno not in DISK_ERRNOS:
        return None
    name = error.filename2 or error.filename  # a copy reads the first and writes the second
    where = f"{name}: " if name else ""
    return printable(
        f"{where}{error.strerror}. Fix: free space there, make it writable or choose another "
        f"folder, and run the same command again"
    )


def install_error_hook() -> None:
    """Print a message instead of a traceback for an uncaught :class:`UserError`.

    The same holds for disk errors and Ctrl-C. nnU-Net's own commands run our trainers, so this is
    the only place where their errors can be caught.
    """
    if getattr(sys.excepthook, "prints_user_errors_plainly", False):
        return
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = str(error) if isinstance(error, UserError) else disk_error_message(error)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends without a traceback
            print("semi_nnunet: interrupted; the same command with --c continues", file=sys.stderr)
        elif message is not None:
            print(f"semi_nnunet: error: {message}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.prints_user_errors_plainly = True  # type: ignore[attr-defined]
    sys.excepthook = hook
