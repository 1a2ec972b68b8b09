"""What an ``auto`` has done and how long it took, kept over restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from semi_nnunet.automatic.schedule import Rate, Round
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.util.validation import read_as

NOTE_EVERY_S = 10.0  # a killed auto forgets at most so much of its time
BEGIN_ANEW = "remove this file to begin anew (trainings that are done and fit are kept)"


@dataclass(frozen=True)
class Saved:
    """What is in the file of a :class:`State`; the fields are told there."""

    asked: dict[str, str]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rates: dict[str, Rate]
    rounds: dict[str, Round]
    ranked: dict[str, list[str]]


@dataclass
class State:
    """The choices that stay as they are when the command is repeated.

    Args:
        path: of its file.
        asked: the options that may not change on the way, such as the candidates.
        seconds: spent so far, over all restarts.
        rates: trainer -> what it takes; {}: not measured yet.
        rounds: those that were begun.
        ranked: round -> its candidates, the best first, of those that are done.
    """

    path: Path
    asked: dict[str, str]
    seconds: float = 0.0
    rates: dict[str, Rate] = field(default_factory=dict)
    rounds: dict[str, Round] = field(default_factory=dict)
    ranked: dict[str, list[str]] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, path: Path, asked: dict[str, str]) -> State:
        """Read what an earlier run left; else begin.

        Raises:
            UserError: it was begun with other options, or holds something else.
        """
        if not path.is_file():
            return cls(path, asked)
        saved = read_as(Saved, path, "semi_nnunet auto", BEGIN_ANEW)
        changed = [key for key in asked if saved.asked.get(key) != asked[key]]
        if changed:
            said = ", ".join(
                f"{key} was {saved.asked.get(key)!r} and is {asked[key]!r}" for key in changed
            )
            raise UserError(
                f"{path} was begun with other options: {said}",
                fix=f"repeat the command as it was, or {BEGIN_ANEW}",
            )
        return cls(path, asked, saved.seconds, saved.rates, saved.rounds, saved.ranked)

    @property
    def lock(self) -> Path:
        """Held while an auto is at work."""
        return self.path.with_name(f".{self.path.stem}.lock")

    def save(self) -> None:
        """Write it down."""
        saved = Saved(self.asked, self.seconds, self.rates, self.rounds, self.ranked)
        with self._guard:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, asdict(saved))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block, and write it down every few seconds."""
        ended, started, spent = threading.Event(), time.monotonic(), self.seconds

        def count() -> None:
            self.seconds = spent + time.monotonic() - started
            self.save()

        def tick() -> None:
            while not ended.wait(NOTE_EVERY_S):
                count()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            count()
