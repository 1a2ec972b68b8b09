"""Trainers are ready to be measured, and leave no files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semi_nnunet.benchmarking.work import (
    STOCK,
    TOO_LARGE,
    Work,
    describe_failure,
    silent_scratch_results,
    start_trainer,
)
from tests.trainers import TRAINERS, each_of


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@each_of([STOCK, *TRAINERS])
def test_every_trainer_is_ready_with_all_its_terms(name, prepared_dataset, monkeypatch, capfd):
    dataset = prepared_dataset()
    monkeypatch.setenv("nnUNet_results", "the user's")
    initial = list_files(dataset.preprocessed)
    work = Work(dataset.name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)
    capfd.readouterr()
    with silent_scratch_results():
        trainer = start_trainer(work, name)
        trainer.train_step(next(trainer.dataloader_train))
        if name != STOCK:
            means = trainer.records.means()
            terms = [key for key in means if key.startswith("weight/")]
            assert len(terms) == (1 if name == "SemiBaselineTrainer" else len(terms)) and terms
            ramped = [means[key] for key in terms if not key.startswith("weight/supervised")]
            assert all(weight > 0 for weight in ramped)
            assert len(ramped) >= (name != "SemiBaselineTrainer")
    assert os.environ["nnUNet_results"] == "the user's"
    assert list_files(dataset.preprocessed) == initial and not Path("the user's").exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("fails", [True, False])
def test_the_results_folder_is_restored_also_after_an_error(fails, monkeypatch):
    monkeypatch.setenv("nnUNet_results", "the user's")
    try:
        with silent_scratch_results():
            folder = Path(os.environ["nnUNet_results"])
            assert folder.is_dir() and folder.name != "the user's"
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert os.environ["nnUNet_results"] == "the user's" and not folder.exists()


def test_too_little_memory_is_reported_and_other_errors_pass() -> None:
    assert describe_failure(MemoryError()) == TOO_LARGE
    assert describe_failure(RuntimeError("CUDA out of memory. Tried to allocate")) == TOO_LARGE
    with pytest.raises(RuntimeError, match="shape"):
        describe_failure(RuntimeError("shape mismatch"))
