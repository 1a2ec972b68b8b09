"""What was measured on a machine, kept beside the results of a data set for whoever asks again."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.benchmarking.work import Work
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import Folders
from semi_nnunet.util.files import sha256_of_json, write_json
from semi_nnunet.util.machine import processor_name, usable_cores
from semi_nnunet.util.validation import read_as

FOLDER = "semi_benchmark"  # of a data set's results
# no step takes longer by them
LENGTHS = ("epochs", "steps_per_epoch", "validation_steps_per_epoch")


@dataclass(frozen=True)
class StepRate:
    """What was measured of a trainer.

    Args:
        date: of that, such as "2025-01-31".
        step: seconds of a step whose batch is loaded.
        loading: seconds a batch, while nothing else runs.
        workers: processes that loaded; 0: the one that trains.
        start: seconds from the imports to the end of the first step.
        case: seconds to predict a case.
    """

    date: str
    step: float
    loading: float
    workers: int
    start: float
    case: float


@dataclass(frozen=True)
class Content:
    """What is in the file of a :class:`Kept`; the fields are told there."""

    conditions: dict[str, Any]
    rates: dict[str, StepRate]


@dataclass(frozen=True)
class Kept:
    """The rates that hold under the same conditions.

    Args:
        path: of the file.
        conditions: see :func:`conditions_of`.
        rates: trainer -> what was measured.
    """

    path: Path
    conditions: dict[str, Any]
    rates: dict[str, StepRate] = field(default_factory=dict)

    @classmethod
    def of(cls, folders: Folders, work: Work) -> Kept:
        """Those that were kept of this work on this machine; those of any other are not read.

        Raises:
            UserError: the file holds something else.
        """
        conditions = conditions_of(folders, work)
        digest = sha256_of_json(conditions)[:12]
        path = folders.results / FOLDER / f"{work.configuration}_{digest}.json"
        if not path.is_file():
            return cls(path, conditions)
        kept = read_as(Content, path, "semi_nnunet benchmark", "remove it, to measure again")
        return cls(path, conditions, kept.rates if kept.conditions == conditions else {})

    def keep(self, rates: Mapping[str, StepRate]) -> None:
        """Add rates to the file, in place of earlier ones of the same trainers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        both = {**self.rates, **rates}
        write_json(self.path, asdict(Content(self.conditions, dict(sorted(both.items())))))

    def dates(self, names: Iterable[str]) -> str:
        """When these trainers were measured."""
        return ", ".join(sorted({self.rates[name].date for name in names}))


def conditions_of(folders: Folders, work: Work) -> dict[str, Any]:
    """All that seconds depend on: data set, plans, machine, versions and threads."""
    plans = read_plans(folders.preprocessed, work.plans)
    return {
        "dataset": folders.preprocessed.name,
        "configuration": work.configuration,
        "plans": sha256_of_json(content_of(plans)),
        "device": work.device,
        "threads": work.threads,
        "cores": usable_cores(),
        "compiled": os.environ.get("nnUNet_compile", ""),
        **machine(work.device),
    }


def content_of(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Plans without their name, where they come from, and how long trainings are."""

    def shortened(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: shortened(value) if isinstance(value, Mapping) else value
            for key, value in settings.items()
            if key not in LENGTHS
        }

    left_out = ("plans_name", "semi_planned")
    content = {key: value for key, value in plans.items() if key not in left_out}
    return {**content, "semi": shortened(plans.get("semi", {}))}


def machine(device: str) -> dict[str, str]:
    """What the seconds are of."""
    gpu = {"GPU": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    versions = {name: version(name) for name in ("torch", "nnunetv2", "semi_nnunet")}
    return {**gpu, "processor": processor_name(), **versions, "python": platform.python_version()}


def today() -> str:
    """The date, as ISO 8601 writes it."""
    return datetime.now().astimezone().date().isoformat()
