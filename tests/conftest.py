"""Tiny phantom data sets, planned and preprocessed once a session, and fixtures of all tests.

* ``phantom``: one data set prepared by ``semi_nnunet preprocess`` as a user would.
* ``prepared_dataset(label_kind, channels)``: any kind of labels, with tiny networks.
* ``prepared_cascade(label_kind)``: with 3d_lowres and 3d_cascade_fullres.
* ``shared_data``: real data, if they exist.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings

from semi_nnunet.datasets.phantom import LABEL_KINDS, write_phantom_dataset
from semi_nnunet.util.messages import show_messages
from tests.warm import warm_commands

pytest_plugins = ["tests.trainers"]


def pin_to_core() -> None:
    """Give each of several test processes, and all that it starts, a core of its own.

    Threads that wait for each other on busy cores make a test ten times as slow.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


pin_to_core()
torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no error
settings.load_profile("untimed")
show_messages()  # as the command line does, so that capsys sees what a user sees

SHAPE = (12, 32, 32)
PLANS_NAME = "nnUNetPlans"
CASCADE_NUMBER = 990
KEPT_BETWEEN_TESTS = {
    "nnUNet_compile": "f",
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "1",
}


@dataclass(frozen=True)
class PreparedDataset:
    """A planned and preprocessed data set; tests share it and must not write into it."""

    name: str
    raw: Path
    preprocessed: Path
    results: Path

    @property
    def number(self) -> int:
        return int(self.name[7:10])

    @property
    def plans(self) -> dict[str, Any]:
        """A fresh copy."""
        return self.load_plans()

    @property
    def dataset_json(self) -> dict[str, Any]:
        """A fresh copy."""
        return dict(json.loads((self.preprocessed / "dataset.json").read_text()))

    def load_plans(self, name: str = PLANS_NAME) -> dict[str, Any]:
        return dict(json.loads((self.preprocessed / f"{name}.json").read_text()))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Take back the threads that commands of nnU-Net leave in the process that runs them."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def nnunet_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """nnU-Net's three folders for the session, independent of the user's shell."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        for name, value in KEPT_BETWEEN_TESTS.items():
            patch.setenv(name, value)
        patch.delenv("nnUNet_extTrainer", raising=False)
        yield root


@pytest.fixture(scope="session", autouse=True)
def started_warm() -> Iterator[None]:
    """Start child processes of verbs with PyTorch already imported; see tests/warm.py."""
    with pytest.MonkeyPatch.context() as patch:
        warm_commands(patch.setattr)
        yield


@pytest.fixture(scope="session")
def phantom(nnunet_folders: Path) -> PreparedDataset:
    """Data set 901: 5 labelled, 6 unlabelled, 2 test cases; made by ``semi_nnunet preprocess``."""
    from semi_nnunet.cli.main import main

    dataset = located(nnunet_folders, 901, "Phantom")
    write_phantom_dataset(dataset.raw, labelled=5, unlabelled=6, test=2, shape=SHAPE)
    with no_processes():
        assert main(["preprocess", "-d", "901", "-np", "1", "-c", "2d", "3d_fullres"]) == 0
    return dataset


@pytest.fixture(scope="session")
def prepared_dataset(nnunet_folders: Path) -> Callable[[str, int], PreparedDataset]:
    """``prepared_dataset(label_kind, channels)``: 5 labelled, 4 unlabelled and 1 test case.

    The networks of its plans (2d, 3d_fullres) are tiny, the patches smaller than the images.
    """
    made: dict[tuple[str, int], PreparedDataset] = {}

    def prepared(label_kind: str = "labels", channels: int = 1) -> PreparedDataset:
        key = (label_kind, channels)
        if key not in made:
            number = 910 + 10 * LABEL_KINDS.index(label_kind) + channels
            made[key] = located(nnunet_folders, number, f"Tiny_{label_kind}_{channels}")
            plan_tiny(made[key], label_kind, channels)
            preprocess(made[key])
        return made[key]

    return prepared


@pytest.fixture(scope="session")
def prepared_cascade(nnunet_folders: Path) -> Callable[[str], PreparedDataset]:
    """``prepared_cascade()``: as ``prepared_dataset()``, with 3d_lowres and 3d_cascade_fullres."""
    made: dict[str, PreparedDataset] = {}

    def prepared(label_kind: str = "labels") -> PreparedDataset:
        if label_kind not in made:
            number = CASCADE_NUMBER + LABEL_KINDS.index(label_kind)
            made[label_kind] = located(nnunet_folders, number, "Cascade")
            plan_tiny(made[label_kind], label_kind, 1)
            add_cascade(made[label_kind])
            preprocess(made[label_kind])
        return made[label_kind]

    return prepared


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets next to the repository; see its README."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "unpack.py").is_file():
        pytest.skip(f"no real data: {folder} is not there")
    return folder


@pytest.fixture
def compiler_settings() -> Iterator[Any]:
    """The settings of torch.compile, which are restored after the test.

    pytest's ``monkeypatch`` deletes settings of such a module, which hides them.
    """
    from torch._dynamo import config

    with config.patch(suppress_errors=config.suppress_errors):
        yield config


# ---- how the data sets are made ----


def located(root: Path, number: int, name: str) -> PreparedDataset:
    full = f"Dataset{number:03d}_{name}"
    return PreparedDataset(full, *(root / k / full for k in ("raw", "preprocessed", "results")))


def plan_tiny(dataset: PreparedDataset, label_kind: str, channels: int) -> None:
    """Write the raw data set, its fingerprint, and plans with small networks."""
    from semi_nnunet.planning.budget import NetworkSize, shrink_configuration
    from semi_nnunet.preprocessing.planning import plan_if_needed

    counts = {"labelled": 5, "unlabelled": 4, "test": 1}
    write_phantom_dataset(
        dataset.raw, **counts, shape=SHAPE, channels=channels, label_kind=label_kind
    )
    with no_processes():
        plan_if_needed(dataset.raw, dataset.preprocessed, PLANS_NAME, "ExperimentPlanner", 1)
    plans = dataset.plans
    for configuration, size in (
        ("2d", NetworkSize(4, 24 * 24, 2)),
        ("3d_fullres", NetworkSize(4, 8 * 24 * 24, 2)),
    ):
        shrunken = shrink_configuration(plans["configurations"][configuration], size)
        plans["configurations"][configuration] = shrunken
    write_plans(dataset, plans)


def add_cascade(dataset: PreparedDataset) -> None:
    """Add 3d_lowres with twice the in-plane spacing and half the patch, and the second stage."""
    from semi_nnunet.planning.budget import NetworkSize, shrink_configuration

    plans = dataset.plans
    configurations = plans["configurations"]
    lowres = json.loads(json.dumps(configurations["3d_fullres"]))
    halved = [1, 0.5, 0.5]
    lowres |= {
        "data_identifier": f"{PLANS_NAME}_3d_lowres",
        "spacing": scaled(lowres["spacing"], [1, 2, 2]),
        "median_image_size_in_voxels": scaled(lowres["median_image_size_in_voxels"], halved),
        "patch_size": [int(edge) for edge in scaled(lowres["patch_size"], halved)],
    }
    lowres = shrink_configuration(lowres, NetworkSize(4, 12 * 16 * 16, 2))
    configurations["3d_lowres"] = {**lowres, "next_stage": "3d_cascade_fullres"}
    configurations["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
    write_plans(dataset, plans)


def scaled(values: list[float], factors: list[float]) -> list[float]:
    return [value * factor for value, factor in zip(values, factors, strict=True)]


def write_plans(dataset: PreparedDataset, plans: dict[str, Any]) -> None:
    (dataset.preprocessed / f"{PLANS_NAME}.json").write_text(json.dumps(plans, indent=4))


def preprocess(dataset: PreparedDataset) -> None:
    from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training

    with no_processes():
        prepare_for_training(str(dataset.number), PrepareOptions())


class _InProcess:
    """Replaces ``multiprocessing`` and its pools, and works in this process."""

    _pool: tuple[()] = ()

    def get_context(self, method: str) -> _InProcess:
        return self

    def Pool(self, processes: int = 1) -> _InProcess:
        return self

    def __enter__(self) -> _InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def starmap(self, function: Callable[..., Any], jobs: Any) -> list[Any]:
        return [function(*job) for job in jobs]

    def starmap_async(self, function: Callable[..., Any], jobs: Any) -> Any:
        """Compute the fingerprint with fewer samples than the 10e7 of nnU-Net (last argument)."""
        results = self.starmap(function, [(*job[:-1], 2000) for job in jobs])
        return SimpleNamespace(ready=lambda: True, get=lambda: results)


@contextmanager
def no_processes() -> Iterator[None]:
    """Let nnU-Net's planning inside the block start no processes and draw few samples."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.utilities import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint_extractor, "multiprocessing", _InProcess())
        patch.setattr(utils, "Pool", _InProcess().Pool)
        yield


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, {torch.get_num_threads()} thread, pid {os.getpid()}"
