"""The progress of commands, parsed from their output, and its live lines on the screen."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from semi_nnunet.util.progress import Progress, readable_time

LOG_STEP = 0.1  # in a log file, a line for every tenth of the training

PSEUDO_DICE = re.compile(r"\bPseudo dice \[(.*)\]")
EPOCH = re.compile(r"\bEpoch (?:(\d+)\s*$|time: (\d+(?:\.\d+)?) s)")  # nnU-Net's lines
NUMBER = re.compile(r"(?<![\w.])(?:nan|\d+\.?\d*(?:e-?\d+)?)(?![\w.])")  # not the 64 of np.float64


def parse_dice(line: str) -> float | None:
    """Return the mean Dice of nnU-Net's line of an epoch, None for any other line.

    >>> parse_dice("Pseudo dice [np.float32(0.75), np.float32(nan), 0.25]")
    0.5
    """
    match = PSEUDO_DICE.search(line)
    values = [float(number) for number in NUMBER.findall(match[1])] if match else []
    defined = [value for value in values if value == value]
    return sum(defined) / len(defined) if defined else None


class EpochTimes:
    """Seconds of each epoch, as nnU-Net prints them; a repeated epoch counts once.

    >>> times = EpochTimes()
    >>> for line in ("Epoch 0", "Epoch time: 30.0 s", "Epoch 1", "Epoch time: 50.0 s"):
    ...     times.feed(line)
    >>> print(times)
    2 epochs done, 40 s each
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._epoch = 0

    def feed(self, line: str) -> None:
        """Parse one line of a training's output."""
        if match := EPOCH.search(line):
            number, seconds = match.groups()
            if seconds:
                self.seconds[self._epoch] = float(seconds)
            else:  # epochs from this one on belong to an earlier training
                self._epoch = int(number)
                self.seconds = {n: s for n, s in self.seconds.items() if n < self._epoch}

    def __str__(self) -> str:
        if not self.seconds:
            return ""
        recent = list(self.seconds.values())[-10:]
        mean = readable_time(sum(recent) / len(recent))
        return f"{max(self.seconds) + 1} epochs done, {mean} each"


class CommandProgress:
    """The progress of one command.

    A training has epoch, Dice and time left; a training of nnU-Net's own trainers, which do not
    print the number of epochs, the time of each epoch; labelling has cases and time left; other
    commands have the elapsed time.

    >>> progress = CommandProgress()
    >>> progress.feed("3 of 10 epochs done, about 5 min left")
    False
    >>> progress.state
    'epoch 3 of 10, about 5 min left'
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.latest: Progress | None = None
        self._dice: float | None = None  # mean over the organs
        self._epochs = EpochTimes()

    def feed(self, line: str) -> bool:
        """Parse one line of the command's output; return whether it ends an epoch or a case."""
        progress, dice = Progress.parse(line), parse_dice(line)
        self.latest = progress or self.latest
        self._epochs.feed(line)
        if dice is not None and self.latest is not None:  # nnU-Net prints it after our line
            self._dice = dice
            return True
        return progress is not None and progress.unit == "case"

    @property
    def state(self) -> str:
        """Epochs or cases and the time left if they are known, else the elapsed time."""
        if self.latest is not None:
            dice = "" if self._dice is None else f", Dice of patches {self._dice:.2f}"
            ended = self.latest.done == self.latest.total
            remaining = "" if ended else f", about {self.latest.left} left"
            return f"{self.latest.unit} {self.latest.done} of {self.latest.total}{dice}{remaining}"
        elapsed = f"for {readable_time(time.monotonic() - self.started)}"
        return f"{self._epochs}, {elapsed}" if self._epochs.seconds else elapsed

    def tick(self) -> None:
        """Update the screen, if there is one; called a few times a second."""

    def finish(self) -> None:
        """Leave the screen as it is without this command."""


class ShownProgress(CommandProgress):
    """Progress that is shown: a live line on a terminal, a line for every tenth elsewhere."""

    def __init__(self, screen: TextIO | None = None):
        super().__init__()
        self._live = LiveLines(lambda: [f"      {self.state}"], screen)
        self._shown = 0.0

    def feed(self, line: str) -> bool:
        has_ended = super().feed(line)
        if has_ended and self.latest is not None and not self._live.is_live:
            share = self.latest.done / self.latest.total
            if share >= self._shown + LOG_STEP - 1e-9 or share == 1:
                self._shown = share
                self._live.print_line(f"      {self.state}")
        return has_ended

    def tick(self) -> None:
        self._live.refresh()

    def finish(self) -> None:
        self._live.stop()


class PipeConsole(Console):
    """A console that leaves it to the command line to end quietly if its reader is gone."""

    def on_broken_pipe(self) -> None:
        raise


class LiveLines:
    """Lines at the bottom of a terminal that change; elsewhere there are none.

    Args:
        lines: returns their text.
        screen: None: stdout.
    """

    def __init__(self, lines: Callable[[], Iterable[str]], screen: TextIO | None = None):
        screen = screen or sys.stdout
        self._lines = lines
        self._console = PipeConsole(file=screen, force_terminal=screen.isatty(), highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # errors sent to a file stay there
        )

    @property
    def is_live(self) -> bool:
        """Whether the screen is a terminal that can change its lines."""
        return self._console.is_interactive

    def print_line(self, text: str) -> None:
        """Print a line above the live ones."""
        self._console.print(Text(text), soft_wrap=True)

    def refresh(self) -> None:
        """Draw the lines again."""
        if self.is_live:
            self._live.start()
            self._live.refresh()

    def stop(self) -> None:
        """Remove the lines."""
        self._live.stop()

    def _render(self) -> Group:
        return Group(*(Text(line, no_wrap=True, overflow="crop") for line in self._lines()))
