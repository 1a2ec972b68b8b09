"""The trainers that there are, ours, nnU-Net's and the user's, by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.discovery.listing import (
    all_trainers,
    classes_in,
    other_trainers,
    our_trainers,
    stock_trainers,
    unknown_trainers,
)


def test_nnunets_trainers_are_known_and_ours_are_none_of_them() -> None:
    stock = stock_trainers()
    assert {"nnUNetTrainer", "nnUNetTrainer_250epochs"} <= stock
    assert stock.isdisjoint(our_trainers())
    assert {*our_trainers(), *stock} <= set(all_trainers())


def test_a_trainer_of_the_user_is_known_without_running_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("class MyTrainer: pass\nraise SystemExit('it ran')\n")
    (tmp_path / "notes.py").write_text("this is no Python")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert "MyTrainer" in other_trainers() - stock_trainers()
    assert not list(unknown_trainers(["MyTrainer"]))
    assert classes_in(tmp_path / "notes.py") == set()


def test_a_misspelled_trainer_is_told_the_nearest_name() -> None:
    (problem,) = unknown_trainers(["SemiMeanTeachrTrainer"])
    assert "SemiMeanTeacherTrainer" in str(problem)


def test_listing_imports_neither_torch_nor_nnunets_trainer() -> None:
    code = (
        "import sys; from semi_nnunet.discovery.listing import all_trainers; all_trainers(); "
        "sys.exit(sum(m in sys.modules for m in ('torch', 'nnunetv2.training', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
