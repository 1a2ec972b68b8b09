"""The fixture of the tests of the converters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.converting import Converter


@pytest.fixture
def convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Converter:
    raw = tmp_path / "raw"
    raw.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    return Converter(raw, capsys)
