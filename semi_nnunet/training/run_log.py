"""What a training writes for people beside its weights: settings, history, cost, trackers."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

import semi_nnunet
from semi_nnunet.settings.schema import Resolved
from semi_nnunet.training.checkpoints import plain
from semi_nnunet.training.cost import Cost
from semi_nnunet.training.history import History
from semi_nnunet.training.history_picture import write_history_picture
from semi_nnunet.training.pictures import Paced
from semi_nnunet.training.step_records import StepRecords
from semi_nnunet.training.trackers import MlflowTracker, TensorBoardTracker, Tracker
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import could_not_write, write_json
from semi_nnunet.util.progress import Progress, TimeLeft

PROGRESS = "progress.png"
Say = Callable[..., None]  # writes its arguments as one line of the training's log


class Logger(Protocol):
    """What values go to: nnU-Net's own loggers and our trackers."""

    def log(self, key: str, value: Any, step: int) -> None:
        """Note a value of an epoch."""


class RunLog:
    """Collects the values of a training and writes them down.

    Attributes:
        records: values of the steps of the present epoch.
        epoch_values: of the present epoch, by column of the history.
        history: of the epochs that are done.
        cost: of the training until now.

    Args:
        resolved: the settings with their reasons.
        say: prints a line into the training's log.
        device: that the training runs on.
        processes: that share it.
    """

    def __init__(self, resolved: Resolved, say: Say, device: torch.device, processes: int):
        self.resolved, self.say, self.cost = resolved, say, Cost(device, processes)
        self.records, self.history = StepRecords(), History()
        self.epoch_values: dict[str, float] = {}
        self.trackers: list[Tracker] = []
        self._time_left = TimeLeft()
        self._history_picture = Paced(self._draw_history)
        self._pictures = [self._history_picture]

    def open_trackers(self, folder: Path, experiment: str, resume: bool) -> list[Tracker]:
        """The trackers that the settings ask for.

        Args:
            folder: of the fold's results.
            experiment: name of the data set, for MLflow.
            resume: whether the training goes on.
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
            picture.finish()
        for tracker in self.trackers:
            tracker.close()

    def write_settings(
        self,
        folder: Path,
        trainer: str,
        cases: Mapping[str, list[str]],
        initial_weights: Mapping[str, str],
    ) -> None:
        """Say what this training is: settings with reasons, cases, versions."""
        values, reasons = self.resolved.as_dict(), self.resolved.reasons
        record = {
            "trainer": trainer,
            "semi_nnunet": semi_nnunet.__version__,
            "nnunetv2": version("nnunetv2"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cases": cases,
            "initial_weights": initial_weights,
            "settings": {
                key: {"value": value, "reason": reasons[key]} for key, value in values.items()
            },
        }
        write_json(folder / "semi_settings.json", plain(record))
        self.say("semi_nnunet:", *(f"{key}={value}" for key, value in values.items()))

    def begin_epoch(self) -> None:
        """Start the clock of an epoch."""
        self.cost.start()

    def end_epoch(self, epoch: int, epochs: int, loggers: Sequence[Logger]) -> None:
        """Add the epoch's values to the history and the loggers, and say how long is left."""
        seconds = self.cost.stop()
        self.history.add(epoch, {**self.epoch_values, "seconds": round(seconds, 2)})
        for logger in loggers:
            for key, value in self.epoch_values.items():
                logger.log(f"semi/{key}", value, epoch)
        left = self._time_left.after(seconds, epochs - epoch - 1)
        self.say(str(Progress(epoch + 1, epochs, "epoch", left)))

    def guarded(self, draw: Callable[[str], object]) -> Callable[[str], None]:
        """nnU-Net's picture ``draw(folder)``, whole; a full disk must not cost the training.

        It is drawn when it is time, and at the end of the training.
        """

        def draw_whole(folder: str) -> None:
            target = Path(folder) / PROGRESS
            aside = target.with_name(f".{PROGRESS}.tmp")
            try:
                aside.mkdir(exist_ok=True)
                draw(str(aside))
                (aside / PROGRESS).replace(target)
            except OSError as error:
                self.say(f"WARNING: {could_not_write(target, error, folder)}")
            finally:
                shutil.rmtree(aside, ignore_errors=True)

        self._pictures.append(paced := Paced(draw_whole))
        return paced

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, also of an epoch that is not done."""
        return {"history": self.history.rows, "cost": self.cost.state()}

    def restore(self, semi: Mapping[str, Any]) -> None:
        """Take over :meth:`state` of what a checkpoint has under "semi"."""
        self.history.rows = list(semi["history"])
        self.cost.restore(semi.get("cost"))

    @contextmanager
    def validation(self, folder: Path, cases: int, writes: bool) -> Iterator[None]:
        """Note how long nnU-Net's validation takes, which is what the block does.

        Args:
            folder: of the fold's results.
            cases: that it predicts.
            writes: whether this process writes for all.
        """
        began = time.monotonic()
        yield
        if writes:
            with self.unless_full():
                self.cost.write_validation(folder, time.monotonic() - began, cases)

    @contextmanager
    def unless_full(self) -> Iterator[None]:
        """Write in the block what is for people: a full disk must not cost the training."""
        try:
            yield
        except UserError as error:
            self.say(f"WARNING: {error}")

    def write_history(self, folder: Path) -> None:
        """Write table and cost for people to look at, and the picture when it is time."""
        with self.unless_full():
            self.cost.write(folder)
            self.history.write_csv(folder / "semi_history.csv")
        self._history_picture(str(folder))

    def _draw_history(self, folder: str) -> None:
        with self.unless_full():
            write_history_picture(self.history, Path(folder) / "semi_history.png")
