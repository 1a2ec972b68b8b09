"""How a mistake of the user's is reported: the rule, what was found, the fix; no traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

MAX_LISTED = 50


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
        super().__init__("\n".join([message, *shown]))


def print_user_errors_plainly() -> None:
    """Make an uncaught :class:`UserError` end the program with its message instead of a traceback.

    nnU-Net's own commands run our trainers, so this is the only place where we can catch what they
    raise.
    """
    if getattr(sys.excepthook, "prints_user_errors_plainly", False):
        return
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"semi_nnunet: error: {error}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.prints_user_errors_plainly = True  # type: ignore[attr-defined]
    sys.excepthook = hook
