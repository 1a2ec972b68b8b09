"""Trainers are ready to be measured, and nothing of that stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semi_nnunet.benchmarking.work import STOCK, Work, aside, ready, said
from tests.trainers import TRAINERS, each_of


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@each_of([STOCK, *TRAINERS])
def test_every_trainer_is_ready_with_all_its_terms(name, prepared_dataset, monkeypatch, capfd):
    dataset = prepared_dataset()
    monkeypatch.setenv("nnUNet_results", "the user's")
    before = files_of(dataset.preprocessed)
    work = Work(dataset.name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)
    capfd.readouterr()
    with aside():
        trainer = ready(work, name)
        trainer.train_step(next(trainer.dataloader_train))
        if name != STOCK:
            means = trainer.records.means()
            terms = [key for key in means if key.startswith("weight/")]
            assert len(terms) == (1 if name == "SemiBaselineTrainer" else len(terms)) and terms
            ramped = [means[key] for key in terms if not key.startswith("weight/supervised")]
            assert all(weight > 0 for weight in ramped)
            assert len(ramped) >= (name != "SemiBaselineTrainer")
    assert os.environ["nnUNet_results"] == "the user's"
    assert files_of(dataset.preprocessed) == before and not Path("the user's").exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("fails", [True, False])
def test_the_results_folder_is_the_users_again_also_after_a_fault(fails, monkeypatch):
    monkeypatch.setenv("nnUNet_results", "the user's")
    try:
        with aside():
            folder = Path(os.environ["nnUNet_results"])
            assert folder.is_dir() and folder.name != "the user's"
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert os.environ["nnUNet_results"] == "the user's" and not folder.exists()


def test_too_little_memory_is_told_and_a_fault_of_ours_is_not_hidden() -> None:
    assert "alone" in said(MemoryError())
    assert "alone" in said(RuntimeError("CUDA out of memory. Tried to allocate"))
    with pytest.raises(RuntimeError, match="shape"):
        said(RuntimeError("shape mismatch"))
