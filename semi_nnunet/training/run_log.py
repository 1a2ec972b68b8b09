"""The files that a training writes for people: settings, history, picture and cost; trackers."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import semi_nnunet
from semi_nnunet.raw.layout import HISTORY_CSV, SETTINGS_JSON, find_fold_folders
from semi_nnunet.settings.schema import Resolved
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.training.cost import TrainingCost, describe_machine, read_cost
from semi_nnunet.training.history import DICE, LOG_SCALE, History, group_into_panels
from semi_nnunet.training.step_records import StepRecords
from semi_nnunet.training.trackers import MlflowTracker, TensorBoardTracker, Tracker
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import could_not_write, read_json, write_atomically, write_json
from semi_nnunet.util.progress import Progress, TimeLeft, readable_time

PROGRESS = "progress.png"
SHARE = 0.01  # of the training's time, for each picture


class RateLimited:
    """A function of a folder that runs only if it takes a small share of the time.

    After a call that took one second, calls are skipped for a hundred seconds (share 0.01).
    :meth:`flush` makes up for the last skipped call.

    >>> one_second_later = iter(range(9)).__next__
    >>> draw = RateLimited(lambda folder: print(f"draws into {folder}"), clock=one_second_later)
    >>> draw("fold_0")
    draws into fold_0
    >>> draw("fold_0")  # skipped
    >>> draw.flush()
    draws into fold_0

    Args:
        work: function to call.
        share: largest share of the time that the calls may take.
        clock: returns seconds since any point in time.
    """

    def __init__(
        self,
        work: Callable[[str], object],
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.work, self.share, self.clock = work, share, clock
        self._not_before = float("-inf")
        self._skipped: str | None = None  # folder of the last skipped call

    def __call__(self, folder: str) -> None:
        """Do the work, unless the last call was too recent."""
        start = self.clock()
        if start < self._not_before:
            self._skipped = folder
            return
        self._skipped = None
        self.work(folder)
        seconds = self.clock() - start
        self._not_before = self.clock() + seconds / self.share

    def flush(self) -> None:
        """Do the work of the last call if that was skipped."""
        if self._skipped is not None:
            self.work(self._skipped)
            self._skipped = None


Say = Callable[..., None]  # writes its arguments as one line of the training's log


class EpochLogger(Protocol):
    """nnU-Net's own loggers and our trackers."""

    def log(self, key: str, value: Any, step: int) -> None:
        """Record a value of an epoch."""


class RunLog:
    """Collects the values of a training and writes them.

    Args:
        resolved: settings with their reasons.
        processes: number of processes that share the training.

    Attributes:
        records: values of the steps of the current epoch.
        epoch_values: values of the current epoch, by column of the history.
        history: values of the finished epochs.
        cost: cost of the training until now.
    """

    def __init__(self, resolved: Resolved, say: Say, device: torch.device, processes: int):
        self.resolved, self.say, self.cost = resolved, say, TrainingCost(device, processes)
        self.records, self.history = StepRecords(), History()
        self.epoch_values: dict[str, float] = {}
        self.trackers: list[Tracker] = []
        self._time_left = TimeLeft()
        self._history_picture = RateLimited(self._draw_history)
        self._pictures = [self._history_picture]

    def open_trackers(self, folder: Path, experiment: str, resume: bool) -> list[Tracker]:
        """Open the trackers of the settings.

        Args:
            experiment: name of the data set, for MLflow.
            resume: whether the training is continued.
        """
        settings = self.resolved.settings
        if settings.tensorboard:
            self.trackers.append(TensorBoardTracker(folder, resume))
        if settings.mlflow:
            run, root = f"{folder.parent.name} {folder.name}", folder.parents[2]
            self.trackers.append(MlflowTracker(folder, experiment, run, resume, root))
        for tracker in self.trackers:
            tracker.update_config(self.resolved.as_dict())
        return self.trackers

    def close(self) -> None:
        """Draw the pictures of the last epoch, and close the trackers."""
        for picture in self._pictures:
            picture.flush()
        for tracker in self.trackers:
            tracker.close()

    def write_settings(
        self,
        folder: Path,
        trainer: str,
        cases: Mapping[str, list[str]],
        sources: Mapping[str, Mapping[str, str]],
        initial_weights: Mapping[str, str],
    ) -> None:
        """Write semi_settings.json: settings with reasons, cases and their sources, versions."""
        values, reasons = self.resolved.as_dict(), self.resolved.reasons
        record = {
            "trainer": trainer,
            "semi_nnunet": semi_nnunet.__version__,
            "nnunetv2": version("nnunetv2"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cases": cases,
            "sources": sources,
            "initial_weights": initial_weights,
            "settings": {
                key: {"value": value, "reason": reasons[key]} for key, value in values.items()
            },
        }
        write_json(folder / SETTINGS_JSON, to_plain_values(record))

    def introduce(
        self,
        folder: Path,
        trainer: str,
        method: str,
        cases: Mapping[str, int],
        batch: Mapping[str, int],
        patch: Sequence[int],
    ) -> None:
        """Log the method, its images, the length of the training, and where the settings are.

        Args:
            folder: of the fold.
            trainer: class name.
            method: the method in a sentence.
            cases: number of images of each kind.
            batch: number of patches of each kind in a batch, on all GPUs together.
            patch: size in voxels.
        """
        settings, done = self.resolved.settings, len(self.history.rows)
        batches, steps = settings.accumulate_batches, settings.epochs * settings.steps_per_epoch
        often = "" if batches == 1 else f", {batches} times"
        again = f"; continues after epoch {done}" if done else ""
        unused = "" if "unlabelled" in cases else " (imagesUn is not read)"
        patches = _list_counts(batch, between=" and ")
        seconds = self._estimate_epoch_seconds(folder)
        length = "unknown until the first epochs"
        if seconds is not None:
            length = f"about {readable_time(seconds * (settings.epochs - done))}"
        self.say(
            f"\n{trainer}: {method}\n"
            f"images:    {_list_counts(cases)}{unused}\n"
            f"each step: {patches} patches of {' x '.join(map(str, patch))}{often}\n"
            f"length:    {settings.epochs:,} epochs of {settings.steps_per_epoch:,} steps, "
            f"{steps:,} steps in all{again}\n"
            f"time:      {length}\n"
            f"settings:  each with its reason in {folder / SETTINGS_JSON}\n"
        )

    def _estimate_epoch_seconds(self, folder: Path) -> float | None:
        """Estimate from earlier epochs of this fold, else of another fold on this machine."""
        machine = describe_machine(self.cost.device, self.cost.processes)
        per_epoch = self.resolved.settings.steps_per_epoch
        for fold in (folder, *sorted(find_fold_folders(folder.parent).values())):
            with suppress(UserError):
                shares = read_cost(fold).training
                rows = [
                    row for row in History.read_csv(fold / HISTORY_CSV).rows if "seconds" in row
                ]
                if rows and [share.machine for share in shares] == [machine]:
                    settings = read_json(fold / SETTINGS_JSON)["settings"]
                    steps = len(rows) * settings["steps_per_epoch"]["value"]
                    return float(shares[0].seconds / steps * per_epoch)
        return None

    def begin_epoch(self) -> None:
        """Start the clock of an epoch."""
        self.cost.start()

    def end_epoch(self, epoch: int, epochs: int, loggers: Sequence[EpochLogger]) -> None:
        """Add the epoch's values to the history and the loggers, and log the remaining time."""
        seconds = self.cost.stop()
        self.history.add(epoch, {**self.epoch_values, "seconds": round(seconds, 2)})
        for logger in loggers:
            for key, value in self.epoch_values.items():
                logger.log(f"semi/{key}", value, epoch)
        remaining = self._time_left.after(seconds, epochs - epoch - 1)
        self.say(str(Progress(epoch + 1, epochs, "epoch", remaining)))

    def guard_picture(self, draw: Callable[[str], object]) -> Callable[[str], None]:
        """Return nnU-Net's ``draw(folder)``, rate-limited, atomic, and harmless on a full disk."""

        def draw_atomically(folder: str) -> None:
            target = Path(folder) / PROGRESS
            temporary = target.with_name(f".{PROGRESS}.tmp")
            try:
                temporary.mkdir(exist_ok=True)
                draw(str(temporary))
                (temporary / PROGRESS).replace(target)
            except OSError as error:
                self.say(f"WARNING: {could_not_write(target, error, folder)}")
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

        self._pictures.append(limited := RateLimited(draw_atomically))
        return limited

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, also within an epoch."""
        return {"history": self.history.rows, "cost": self.cost.state()}

    def restore(self, semi: Mapping[str, Any]) -> None:
        """Restore the :meth:`state` in a checkpoint's key "semi"."""
        self.history.rows = list(semi["history"])
        self.cost.restore(semi.get("cost"))

    @contextmanager
    def time_validation(self, folder: Path, cases: int, writes: bool) -> Iterator[None]:
        """Write the duration of nnU-Net's validation, which runs inside the block."""
        start = time.monotonic()
        yield
        if writes:
            with self.warn_if_disk_is_full():
                self.cost.write_validation(folder, time.monotonic() - start, cases)

    @contextmanager
    def warn_if_disk_is_full(self) -> Iterator[None]:
        """Turn errors of the block into warnings: files for people must not end the training."""
        try:
            yield
        except UserError as error:
            self.say(f"WARNING: {error}")

    def write_history(self, folder: Path) -> None:
        """Write the table and the cost, and draw the picture unless it was drawn recently."""
        with self.warn_if_disk_is_full():
            self.cost.write(folder)
            self.history.write_csv(folder / HISTORY_CSV)
        self._history_picture(str(folder))

    def _draw_history(self, folder: str) -> None:
        with self.warn_if_disk_is_full():
            write_history_picture(self.history, Path(folder) / "semi_history.png")


def _list_counts(counts: Mapping[str, int], between: str = ", ") -> str:
    return between.join(f"{count} {kind}" for kind, count in counts.items())


# ---- the picture of the history

COLUMNS = 3
WIDE, HIGH = 4.2, 3.2  # inches of a panel, including its margins
LEFT, RIGHT, BELOW, ABOVE = 0.7, 0.1, 0.5, 0.35  # margins in inches


def write_history_picture(history: History, path: str | Path) -> None:
    """Draw losses, weights, Dice and other curves of a training into a PNG."""
    figure = draw_history(history)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=90))
    plt.close(figure)


def draw_history(history: History) -> Figure:
    """Draw a panel for each kind of curve.

    The losses and the learning rate have a logarithmic axis if all their values are positive.

    >>> figure = draw_history(History([{"epoch": 0, "learning_rate": 0.01}]))
    >>> [axis.get_title() for axis in figure.axes]
    ['learning rate']
    >>> plt.close(figure)
    """
    panels = group_into_panels(history)
    rows = max(1, -(-len(panels) // COLUMNS))
    with matplotlib.rc_context(rc=matplotlib.rcParamsDefault):  # nnU-Net's plot leaves huge fonts
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(WIDE * COLUMNS, HIGH * rows), squeeze=False
        )
        for axis, (title, columns) in zip(axes.flat, panels, strict=False):
            draw_history_panel(axis, title, {column: history.series(column) for column in columns})
        for axis in list(axes.flat)[max(1, len(panels)) :]:
            axis.remove()
        figure.subplots_adjust(  # tight_layout would draw everything twice more to measure it
            left=LEFT / (WIDE * COLUMNS),
            right=1 - RIGHT / (WIDE * COLUMNS),
            bottom=BELOW / (HIGH * rows),
            top=1 - ABOVE / (HIGH * rows),
            wspace=(LEFT + RIGHT) / (WIDE - LEFT - RIGHT),
            hspace=(BELOW + ABOVE) / (HIGH - BELOW - ABOVE),
        )
    return figure


def draw_history_panel(
    axis: Axes, title: str, curves: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    """Draw the curves of a panel, labelled by the last part of their column's name."""
    for column, (epochs, values) in curves.items():
        marker = "o" if len(values) < 3 else None
        axis.plot(epochs, values, label=column.split("/", 1)[-1], marker=marker)
    if title in LOG_SCALE and all(value > 0 for _, values in curves.values() for value in values):
        axis.set_yscale("log")
    if title == DICE:
        axis.set_ylim(0, 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
