"""Formatting of command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.util.command import typed


def test_paths_in_the_working_folder_are_shown_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("nnUNetv2_predict", "-i", tmp_path / "some images", "-o", Path("/elsewhere"))
    assert typed(command) == "nnUNetv2_predict -i 'some images' -o /elsewhere"
