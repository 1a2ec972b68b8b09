"""How ``semi_nnunet auto`` chose a method, as its page and the report tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from semi_nnunet.util.files import write_json
from semi_nnunet.util.markdown import table
from semi_nnunet.util.validation import read_as

COLUMNS = ("round", "steps", "folds", "trainers", "best first")


@dataclass(frozen=True)
class Choice:
    """The rounds that led to a method.

    Args:
        trainer: the method that was chosen; other cases than those of a report chose it.
        before: sentences above the table.
        rows: of the rounds, each with a text for every one of :data:`COLUMNS`.
        after: sentences below it.
    """

    trainer: str
    before: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str, str], ...]
    after: tuple[str, ...]

    def markdown(self) -> list[str]:
        """The lines of a page."""
        rounds = table([COLUMNS, *self.rows]).splitlines()
        return [*paragraphs(self.before), *rounds, "", *paragraphs(self.after)]

    def write(self, path: Path) -> None:
        """Write it for :func:`read_choice`."""
        write_json(path, asdict(self))


def read_choice(path: str | Path) -> Choice:
    """What :meth:`Choice.write` wrote.

    Raises:
        UserError: it is not there, or something else.
    """
    return read_as(Choice, path, "semi_nnunet auto", "correct --choice")


def paragraphs(sentences: Sequence[str]) -> list[str]:
    return [line for sentence in sentences for line in (sentence, "")]
