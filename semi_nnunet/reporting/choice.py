"""How ``semi_nnunet auto`` chose a method, for its page and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from semi_nnunet.util.files import write_json
from semi_nnunet.util.markdown import table
from semi_nnunet.util.validation import read_as

COLUMNS = ("round", "steps", "folds", "methods", "best first")


@dataclass(frozen=True)
class MethodChoice:
    """The rounds that led to a method.

    Args:
        trainer: the chosen method; it was not chosen on the cases of the report.
        before: sentences above the table.
        rows: of the rounds, each with a text for every one of :data:`COLUMNS`.
        after: sentences below the table.
    """

    trainer: str
    before: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str, str], ...]
    after: tuple[str, ...]

    def markdown(self) -> list[str]:
        """Return the lines of a page."""
        rounds = table([COLUMNS, *self.rows]).splitlines()
        return [*add_blank_lines(self.before), *rounds, "", *add_blank_lines(self.after)]

    def write(self, path: Path) -> None:
        """Write the file that :func:`read_choice` reads."""
        write_json(path, asdict(self))


def read_choice(path: str | Path) -> MethodChoice:
    """Read a file written by :meth:`MethodChoice.write`.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    return read_as(MethodChoice, path, "semi_nnunet auto", "correct --choice")


def add_blank_lines(sentences: Sequence[str]) -> list[str]:
    """Return the sentences, each followed by an empty line."""
    return [line for sentence in sentences for line in (sentence, "")]
