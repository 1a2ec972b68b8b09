"""Data sets of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.copied import Copy
from tests.data.raw_datasets import make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture
def copy(prepared_dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    dataset = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return Copy(dataset, tmp_path)
