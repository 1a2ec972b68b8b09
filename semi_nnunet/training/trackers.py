"""Trackers: forward nnU-Net's and our values to TensorBoard and MLflow.

They have the interface of nnU-Net's W&B logger, and ``close``.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock

from semi_nnunet.util.errors import UserError

MLFLOW_FILE = "mlflow.db"
LONGEST_PARAMETER = 6000  # characters, in MLflow's stores

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """The interface that nnU-Net's logger calls."""

    def update_config(self, config: Mapping[str, Any]) -> None: ...
    def log(self, key: str, value: Any, step: int) -> None: ...
    def log_summary(self, key: str, value: Any) -> None: ...
    def close(self) -> None: ...


Method = TypeVar("Method", bound=Callable[..., None])


def _warn_once_on_failure(method: Method) -> Method:
    """Turn all errors of a tracker into one warning: they must not end the training."""

    @wraps(method)
    def guarded(self: TensorBoardTracker | MlflowTracker, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # of a disk, a database, a network, a server
            if not self.has_failed:
                logger.warning(f"WARNING: {self.destination} does not take the values: {error}")
            self.has_failed = True

    return guarded  # type: ignore[return-value]


class TensorBoardTracker:
    """A tracker that writes event files into the folder of a training.

    Args:
        resumed: the training is continued; earlier values of repeated epochs are hidden.

    Raises:
        UserError: the extra ``semi_nnunet[tensorboard]`` is not installed.
    """

    def __init__(self, output_folder: Path, resumed: bool = False):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing_extra("tensorboard") from error
        self.destination, self.has_failed = f"TensorBoard in {output_folder}", False
        self.writer, self.resumed = SummaryWriter(str(output_folder / "tensorboard")), resumed

    @_warn_once_on_failure
    def update_config(self, config: Mapping[str, Any]) -> None:
        self.writer.add_text("config", str(dict(config)))

    @_warn_once_on_failure
    def log(self, key: str, value: Any, step: int) -> None:
        if self.resumed:  # the first value tells from which epoch on
            self.writer.close()
            self.writer = type(self.writer)(self.writer.log_dir, purge_step=step)
            self.resumed = False
        self.writer.add_scalar(key, value, step)
        self.writer.flush()

    @_warn_once_on_failure
    def log_summary(self, key: str, value: Any) -> None:
        self.writer.add_text(key, str(value))

    @_warn_once_on_failure
    def close(self) -> None:
        self.writer.close()


class MlflowTracker:
    """A tracker that makes each training a run of MLflow.

    Args:
        output_folder: folder of the training. A continued training continues its run; repeated
            epochs keep their earlier values, which are the same.
        resumed: the training is continued.
        results: nnU-Net's folder of results, in which an SQLite file is written, unless
            MLFLOW_TRACKING_URI names another destination, such as a server.

    Raises:
        UserError: the extra ``semi_nnunet[mlflow]`` is not installed, or the destination cannot be
            used.
    """

    def __init__(
        self, output_folder: Path, experiment: str, run: str, resumed: bool, results: Path
    ):
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise _missing_extra("mlflow") from error
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results / MLFLOW_FILE}"
        self.destination, self.has_failed = f"MLflow at {self.uri}", False
        folder = str(output_folder)
        try:
            with FileLock(results / f".{MLFLOW_FILE}.lock"):  # several trainings may start at once
                self.client = MlflowClient(self.uri)
                entry = self.client.get_experiment_by_name(experiment)
                number = entry.experiment_id if entry else self.client.create_experiment(experiment)
            runs = self.client.search_runs([number], f"tags.folder = '{folder}'") if resumed else []
            if runs:
                self.run_id = runs[0].info.run_id
                self.client.update_run(self.run_id, "RUNNING")
            else:
                tags = {"folder": folder}
                self.run_id = self.client.create_run(number, tags=tags, run_name=run).info.run_id
            self.continues_run, self.earlier_steps = bool(runs), dict[str, set[int]]()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"the setting mlflow: {self.uri} cannot be used ({error})",
                fix="correct MLFLOW_TRACKING_URI, or turn the setting off",
            ) from error

    @_warn_once_on_failure
    def update_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in config.items()]
        stored = self.client.get_run(self.run_id).data.params  # MLflow's parameters never change
        self.client.log_batch(self.run_id, params=[p for p in parameters if p.key not in stored])

    @_warn_once_on_failure
    def log(self, key: str, value: Any, step: int) -> None:
        if self.continues_run and key not in self.earlier_steps:  # MLflow cannot replace values
            history = self.client.get_metric_history(self.run_id, key)
            self.earlier_steps[key] = {metric.step for metric in history}
        if step not in self.earlier_steps.get(key, ()):
            self._write(key, value, step)

    @_warn_once_on_failure
    def log_summary(self, key: str, value: Any) -> None:
        self._write(key, value, step=0)

    def _write(self, key: str, value: Any, step: int) -> None:
        if math.isfinite(value):
            self.client.log_metric(self.run_id, key, float(value), step=step)

    @_warn_once_on_failure
    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def _missing_extra(extra: str) -> UserError:
    return UserError(
        f"the setting {extra} needs a package that is not installed",
        fix=f"pip install 'semi_nnunet[{extra}]', or turn the setting off",
    )
