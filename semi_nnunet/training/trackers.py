"""Forward nnU-Net's and our values to TensorBoard and MLflow, as nnU-Net's logger does to W&B.

Each has the interface of nnU-Net's W&B logger, and ``close``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock

from semi_nnunet.util.errors import UserError

MLFLOW_FILE = "mlflow.db"
LONGEST_PARAMETER = 6000  # of MLflow's stores


class Tracker(Protocol):
    """What nnU-Net's logger calls."""

    def update_config(self, config: Mapping[str, Any]) -> None: ...
    def log(self, key: str, value: Any, step: int) -> None: ...
    def log_summary(self, key: str, value: Any) -> None: ...
    def close(self) -> None: ...


Method = TypeVar("Method", bound=Callable[..., None])


def _never_fatal(method: Method) -> Method:
    """A tracker that is full, locked or gone must not cost the training: say so once, go on."""

    @wraps(method)
    def guarded(self: TensorBoardTracker | MlflowTracker, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # of a disk, a database, a network, a server
            if not self.complained:
                print(f"WARNING: {self.place} does not take the values: {error}")
            self.complained = True

    return guarded  # type: ignore[return-value]


class TensorBoardTracker:
    """Event files in a folder of the training's output.

    Args:
        output_folder: of the training.
        resumed: it is continued; of the epochs that come again, those before are hidden.

    Raises:
        UserError: the extra ``semi_nnunet[tensorboard]`` is not installed.
    """

    def __init__(self, output_folder: Path, resumed: bool = False):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self.place, self.complained = f"TensorBoard in {output_folder}", False
        self.writer, self.resumed = SummaryWriter(str(output_folder / "tensorboard")), resumed

    @_never_fatal
    def update_config(self, config: Mapping[str, Any]) -> None:
        self.writer.add_text("config", str(dict(config)))

    @_never_fatal
    def log(self, key: str, value: Any, step: int) -> None:
        if self.resumed:  # only now is known from which epoch on
            self.writer.close()
            self.writer = type(self.writer)(self.writer.log_dir, purge_step=step)
            self.resumed = False
        self.writer.add_scalar(key, value, step)
        self.writer.flush()

    @_never_fatal
    def log_summary(self, key: str, value: Any) -> None:
        self.writer.add_text(key, str(value))

    @_never_fatal
    def close(self) -> None:
        self.writer.close()


class MlflowTracker:
    """A run of MLflow for each training.

    Args:
        output_folder: of the training; a continued one goes on with its run, and epochs that come
            again keep the values they had: the resumed ones are the same.
        experiment: name of the data set.
        run: name of the training.
        resumed: the training is continued.
        results: nnU-Net's folder of results; it holds the SQLite file that is written, unless
            MLFLOW_TRACKING_URI names another place, such as a server.

    Raises:
        UserError: the extra ``semi_nnunet[mlflow]`` is not installed, or the place cannot be used.
    """

    def __init__(
        self, output_folder: Path, experiment: str, run: str, resumed: bool, results: Path
    ):
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise _missing("mlflow") from error
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results / MLFLOW_FILE}"
        self.place, self.complained = f"MLflow at {self.uri}", False
        folder = str(output_folder)
        try:
            with FileLock(results / f".{MLFLOW_FILE}.lock"):  # of several trainings that begin
                self.client = MlflowClient(self.uri)
                found = self.client.get_experiment_by_name(experiment)
                number = found.experiment_id if found else self.client.create_experiment(experiment)
            runs = self.client.search_runs([number], f"tags.folder = '{folder}'") if resumed else []
            if runs:
                self.run_id = runs[0].info.run_id
                self.client.update_run(self.run_id, "RUNNING")
            else:
                tags = {"folder": folder}
                self.run_id = self.client.create_run(number, tags=tags, run_name=run).info.run_id
            self.goes_on, self.steps_before = bool(runs), dict[str, set[int]]()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"the setting mlflow: {self.uri} cannot be used ({error})",
                fix="correct MLFLOW_TRACKING_URI, or turn the setting off",
            ) from error

    @_never_fatal
    def update_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in config.items()]
        known = self.client.get_run(self.run_id).data.params  # MLflow's parameters never change
        self.client.log_batch(self.run_id, params=[p for p in parameters if p.key not in known])

    @_never_fatal
    def log(self, key: str, value: Any, step: int) -> None:
        if self.goes_on and key not in self.steps_before:  # MLflow's values cannot be taken back
            history = self.client.get_metric_history(self.run_id, key)
            self.steps_before[key] = {metric.step for metric in history}
        if step not in self.steps_before.get(key, ()):
            self._write(key, value, step)

    @_never_fatal
    def log_summary(self, key: str, value: Any) -> None:
        self._write(key, value, step=0)

    def _write(self, key: str, value: Any, step: int) -> None:
        if math.isfinite(value):
            self.client.log_metric(self.run_id, key, float(value), step=step)

    @_never_fatal
    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def _missing(extra: str) -> UserError:
    return UserError(
        f"the setting {extra} needs a package that is not installed",
        fix=f"pip install 'semi_nnunet[{extra}]', or turn the setting off",
    )
