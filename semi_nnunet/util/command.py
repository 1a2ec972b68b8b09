"""A command line as data, and as a user would type it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

Command = Sequence[str | Path]  # begins with the name of a console script


def typed(command: Command) -> str:
    """Return the command line as a user would type it, with relative paths where possible.

    >>> typed(["semi_nnunet", "evaluate", Path.cwd() / "my labels"])
    "semi_nnunet evaluate 'my labels'"
    """
    folder = Path.cwd()
    return shlex.join(
        str(word.relative_to(folder) if word.is_relative_to(folder) else word)
        if isinstance(word, Path)
        else word
        for word in command
    )
