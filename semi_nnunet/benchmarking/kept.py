"""Measured rates of trainers, stored with the results of a data set."""

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

LENGTHS = ("epochs", "steps_per_epoch", "validation_steps_per_epoch")  # change no step


@dataclass(frozen=True)
class StepRate:
    """The measured rate of a trainer.

    Args:
        date: of the measurement, such as "2025-01-31".
        step: seconds per step, without loading.
        loading: seconds per batch, while nothing else runs.
        workers: loading processes; 0: the training process loads.
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
class RatesFile:
    """The content of the file of a :class:`Kept`, with the same fields."""

    conditions: dict[str, Any]
    rates: dict[str, StepRate]


@dataclass(frozen=True)
class Kept:
    """Stored rates of trainers under the same conditions.

    Args:
        path: of the file.
        conditions: see :func:`collect_conditions`.
        rates: trainer -> its rate.
    """

    path: Path
    conditions: dict[str, Any]
    rates: dict[str, StepRate] = field(default_factory=dict)

    @classmethod
    def of(cls, folders: Folders, work: Work) -> Kept:
        """Load the rates of this work on this machine.

        Raises:
            UserError: the file has another content.
        """
        conditions = collect_conditions(folders, work)
        digest = sha256_of_json(conditions)[:12]
        path = folders.benchmarks / f"{work.configuration}_{digest}.json"
        if not path.is_file():
            return cls(path, conditions)
        stored = read_as(RatesFile, path, "semi_nnunet benchmark", "remove it, to measure again")
        return cls(path, conditions, stored.rates if stored.conditions == conditions else {})

    def keep(self, rates: Mapping[str, StepRate]) -> None:
        """Add rates to the file, instead of earlier ones of the same trainers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        merged = dict(sorted({**self.rates, **rates}.items()))
        write_json(self.path, asdict(RatesFile(self.conditions, merged)))

    def dates(self, names: Iterable[str]) -> str:
        """Return the dates on which trainers were measured."""
        return ", ".join(sorted({self.rates[name].date for name in names}))


def collect_conditions(folders: Folders, work: Work) -> dict[str, Any]:
    """Return everything that seconds depend on: data, plans, machine, versions and threads."""
    plans = read_plans(folders.preprocessed, work.plans)
    return {
        "dataset": folders.preprocessed.name,
        "configuration": work.configuration,
        "plans": sha256_of_json(strip_plans(plans)),
        "device": work.device,
        "threads": work.threads,
        "cores": usable_cores(),
        "compiled": os.environ.get("nnUNet_compile", ""),
        **describe_benchmark_machine(work.device),
    }


def strip_plans(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return plans without their name, their origin and the length of trainings.

    >>> strip_plans({"plans_name": "A", "patch": 3, "semi": {"epochs": 2, "seed": 1}})
    {'patch': 3, 'semi': {'seed': 1}}
    """

    def strip(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: strip(value) if isinstance(value, Mapping) else value
            for key, value in settings.items()
            if key not in LENGTHS
        }

    content = {k: v for k, v in plans.items() if k not in ("plans_name", "semi_planned")}
    return {**content, "semi": strip(plans.get("semi", {}))}


def describe_benchmark_machine(device: str) -> dict[str, str]:
    """Return the processor, the GPU and the versions."""
    gpu = {"GPU": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    versions = {name: version(name) for name in ("torch", "nnunetv2", "semi_nnunet")}
    return {**gpu, "processor": processor_name(), **versions, "python": platform.python_version()}


def format_today() -> str:
    """Return today's date in ISO 8601."""
    return datetime.now().astimezone().date().isoformat()
