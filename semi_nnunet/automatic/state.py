"""The progress and the spent time of an ``auto``, kept over restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from semi_nnunet.automatic.schedule import TrainingRate, TrainingRound
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.util.validation import read_as

NOTE_EVERY_S = 10.0  # a killed auto loses at most this much of its time
START_AGAIN = "remove this file to start again (finished trainings that fit are kept)"


@dataclass(frozen=True)
class RoundForecast:
    """The steps and the seconds of a round, as the last schedule had them."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class SavedState:
    """The file of an :class:`AutoState`, which documents the fields."""

    asked: dict[str, str]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rates: dict[str, TrainingRate]
    rounds: dict[str, TrainingRound]
    ranked: dict[str, list[str]]
    dice: dict[str, dict[str, float]] = field(default_factory=dict)
    forecast: dict[str, RoundForecast] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)


@dataclass
class AutoState:
    """The decisions that stay when the command is repeated.

    Args:
        path: of the file.
        options: that may not change between runs, such as the candidates.
        seconds: spent so far, over all restarts.
        rates: trainer -> time that its trainings take; {} before they are measured.
        rounds: the rounds that were begun.
        ranked: finished round -> its candidates, the best first.
        dice: finished round -> the mean Dice of its trainers on the cases that choose.
        forecast: round -> what the last schedule expected of it.
        begun: round -> seconds that were spent before it.
        notes: sentences on changes of the schedule.
        queued: names of the trainings that were handed to a cluster; their time is not counted yet.
    """

    path: Path
    options: dict[str, str]
    seconds: float = 0.0
    rates: dict[str, TrainingRate] = field(default_factory=dict)
    rounds: dict[str, TrainingRound] = field(default_factory=dict)
    ranked: dict[str, list[str]] = field(default_factory=dict)
    dice: dict[str, dict[str, float]] = field(default_factory=dict)
    forecast: dict[str, RoundForecast] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    _spent: float = field(default=0.0, repr=False, compare=False)  # before the running block
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _saved: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, path: Path, options: dict[str, str]) -> AutoState:
        """Read the state of an earlier run, or begin a new one.

        Raises:
            UserError: the earlier run had other options, or the file has another content.
        """
        if not path.is_file():
            return cls(path, options)
        saved = read_as(SavedState, path, "semi_nnunet auto", START_AGAIN)
        changes = [
            f"{key} was {saved.asked.get(key)!r} and is {value!r}"
            for key, value in options.items()
            if saved.asked.get(key) != value
        ]
        if changes:
            raise UserError(
                f"{path} was begun with other options: {', '.join(changes)}",
                fix=f"repeat the command as it was, or {START_AGAIN}",
            )
        kept = {entry.name: getattr(saved, entry.name) for entry in fields(saved)}
        return cls(path, options, **{name: kept[name] for name in kept if name != "asked"})

    @property
    def lock(self) -> Path:
        """The lock that a running auto holds."""
        return self.path.with_name(f".{self.path.stem}.lock")

    def save(self) -> None:
        """Write the state to its file."""
        saved = SavedState(
            self.options, self.seconds, self.rates, self.rounds, self.ranked, self.dice,
            self.forecast, self.begun, self.notes, self.queued,
        )  # fmt: skip
        self._saved = asdict(saved)
        self._write()

    def _write(self) -> None:
        """Write what :meth:`save` wrote last, with the seconds until now."""
        with self._guard:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**self._saved, "seconds": self.seconds})

    def add_seconds(self, seconds: float) -> None:
        """Count time that was spent elsewhere."""
        self._spent += seconds
        self.seconds += seconds

    def forget(self, rounds: Collection[str]) -> None:
        """Forget rounds, as if they had not begun, and what was expected of later ones."""
        self.forecast.clear()
        for decisions in (self.rounds, self.ranked, self.dice, self.begun):
            for name in rounds:
                decisions.pop(name, None)  # type: ignore[attr-defined]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block, and write it every few seconds, but no unsaved decision."""
        ended, started = threading.Event(), time.monotonic()
        self._spent = self.seconds

        def count() -> None:
            self.seconds = self._spent + time.monotonic() - started
            self._write()

        def tick() -> None:
            while not ended.wait(NOTE_EVERY_S):
                count()

        self.save()
        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            count()
