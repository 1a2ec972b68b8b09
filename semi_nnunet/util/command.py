"""A command line as data, and as a user would type it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

Command = Sequence[str | Path]  # beginning with the name of a console script


def typed(command: Command) -> str:
    """The command line as a user would type it; paths below the working folder are relative."""
    here = Path.cwd()
    return shlex.join(
        str(word.relative_to(here) if word.is_relative_to(here) else word)
        if isinstance(word, Path)
        else word
        for word in command
    )
