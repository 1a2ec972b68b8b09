"""Tasks that a launcher can run, which take no time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from semi_nnunet.runs import commands


@dataclass(frozen=True)
class Task:
    """Appends its name to a file, once another has, or fails."""

    folder: Path
    name: str
    until: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def lock(self) -> Path:
        return self.folder / f".{self.name}.lock"

    @property
    def is_done(self) -> bool:
        return (self.folder / f"{self.name}.done").exists()

    def commands(self, device: str, processes: int) -> Iterator[commands.Command]:
        fails = "sys.exit(1)" if "bad" in self.name else ""
        (ran := self.folder / "ran").touch()
        waiting = f"{self.until!r} not in open({str(ran)!r}).read() and time.time() < start + 60"
        yield (
            "python",
            f"import sys, time; start = time.time()\nwhile {waiting}: time.sleep(0.05)\n"
            f"open({str(ran)!r}, 'a').write('{self.name} '); {fails}",
        )


def run_code_as_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command ``("python", code)`` run the code."""

    def arguments(words: commands.Command, *_: object, **__: object) -> list[str]:
        return [sys.executable, "-c", str(words[1])]

    monkeypatch.setattr(commands, "build_child_arguments", arguments)
