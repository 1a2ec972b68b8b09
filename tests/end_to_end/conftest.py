"""A bench on a disk of one test, and read-only folders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.bench import Bench
from tests.end_to_end.small_disk import Disk


@pytest.fixture
def make_bench(
    tmp_path: Path,
    prepared_dataset: Callable[..., Any],
    make_trainer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[bool], Bench]]:
    benches: list[Bench] = []

    def make(is_small: bool) -> Bench:
        disk = Disk(tmp_path / "disk", is_small)
        (elsewhere := tmp_path / "elsewhere").mkdir()
        what = prepared_dataset("labels", 1), make_trainer, monkeypatch
        benches.append(Bench(disk, elsewhere, *what))
        return benches[0]

    yield make
    for bench in benches:
        bench.disk.remove()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only, also for root, until the end of the test."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        bind = subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True)
        if bind.returncode != 0:
            pytest.skip("this user may not mount")
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
