"""Two DDP processes (gloo, on the CPU; nnU-Net would need two GPUs)."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist

from tests.forking import forked
from tests.ranks import free_port, told_by_launcher
from tests.trainers import (
    SHORT,
    TRAINERS,
    UNLABELLED_TRAINERS,
    WITHOUT_RAMP,
    partially_annotated,
    run_epochs,
    same_weights,
    weights_of,
)

RANKS = 2
CPU = torch.device("cpu")
SETTINGS = {**SHORT, **WITHOUT_RAMP, "epochs": 2, "momentum": 0.0}


@pytest.mark.parametrize("name", sorted(set(UNLABELLED_TRAINERS) - {"SemiDistillationTrainer"}))
def test_two_processes_train_the_same_networks(name, prepared_dataset: Any, tmp_path: Path):
    dataset = prepared_dataset("labels", 1)
    first, second = train_on_two(dataset, tmp_path, name, unlabelled_batch_size=4)
    assert same_weights(first["student"], second["student"])
    assert same_weights(first["companions"], second["companions"])
    assert first["history"] == second["history"]  # means over the processes
    assert first["saved"] is not None and second["saved"] is None  # one writes
    assert same_weights(first["saved"]["network_weights"], first["deployed"])


def test_processes_share_the_batches_and_see_different_patches(
    prepared_dataset: Any, tmp_path: Path
):
    settings = {"labelled_batch_size": 4, "unlabelled_batch_size": 5}
    first, second = train_on_two(
        prepared_dataset("labels", 1), tmp_path, "SemiMeanTeacherTrainer", **settings
    )
    for stream, together in (("labelled", 4), ("unlabelled", 5)):
        sizes = [len(result["batches"][0][0][stream]["data"]) for result in (first, second)]
        assert sum(sizes) == together
        patches = [result["batches"][0][0][stream]["data"][:2] for result in (first, second)]
        assert not torch.equal(*patches)


@pytest.mark.parametrize("settings", [{}, {"class_weights": [1.0, 1.0, 1.0, 1.0]}], ids=str)
def test_two_processes_step_as_one_does_on_both_batches(
    prepared_dataset: Any, tmp_path: Path, make_trainer: Any, settings: dict[str, Any]
):
    """With nnU-Net's loss and with ours, whose batch Dice is computed over all processes."""
    dataset = prepared_dataset("labels", 1)
    short = {"epochs": 1, "steps_per_epoch": 1, "deep_supervision": False, **settings}
    results = train_on_two(dataset, tmp_path, "SemiBaselineTrainer", **short)
    alone = make_trainer("SemiBaselineTrainer", **{**SETTINGS, **short})
    alone.train_step(joined([result["batches"][0] for result in results]))
    for name, value in weights_of(alone.bare_network).items():
        torch.testing.assert_close(results[0]["student"][name], value, rtol=1e-4, atol=1e-6)


SAME_FOR_ALL = {  # what each process would draw for itself, but for the batches
    "appearance_strength": 0.0, "labelled_appearance": 0.0, "cutmix_probability": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "own", "partial"),
    [
        ("SemiMeanTeacherTrainer", {}, False),
        ("SemiCPSTrainer", {}, False),
        ("SemiFixMatchTrainer", {"threshold": 0.5}, False),  # each trusts its number of voxels
        ("SemiMeanTeacherTrainer", {"class_weights_from": "labelled"}, True),
    ],
)
def test_the_curves_of_two_processes_are_those_of_one_with_the_whole_batch(
    name: str,
    own: dict[str, Any],
    partial: bool,
    prepared_dataset: Any,
    tmp_path: Path,
    make_trainer: Any,
):
    """Compare losses, Dice and reliability of each step, and the final networks."""
    settings = {
        **SETTINGS, **SAME_FOR_ALL, "epochs": 6, "steps_per_epoch": 1, "momentum": 0.9,
        "validation_steps_per_epoch": 2, "unlabelled_start_steps": 2, "initial_lr": 0.05,
        "labelled_batch_size": 4, "unlabelled_batch_size": 4, "deep_supervision": False,
        **own,
    }  # fmt: skip
    dataset = prepared_dataset("labels", 1)
    dataset = partially_annotated(dataset) if partial else dataset
    two = train_on_two(dataset, tmp_path, name, **settings)
    alone = make_trainer(name, start=False, dataset=dataset, **settings)
    batches = [[result[kind] for result in two] for kind in ("batches", "validation_batches")]
    together = [[joined(parts) for parts in zip(*of_ranks, strict=True)] for of_ranks in batches]
    alone.get_dataloaders = lambda: tuple(map(iter, together))
    run_epochs(alone, 6)
    rows = [{key: row[key] for key in row if key != "seconds"} for row in alone.history.rows]
    assert len(rows) == 6 and sum(row["trust"] > 0 for row in rows) > 2
    assert two[0]["history"] == two[1]["history"]
    for step, (row, of_two) in enumerate(zip(rows, two[0]["history"], strict=True)):
        assert row.keys() == of_two.keys()
        assert of_two == pytest.approx(row, rel=1e-4, abs=1e-6, nan_ok=True), step
    for part, network in (("student", alone.bare_network), ("companions", alone._companions)):
        for key, value in weights_of(network).items():
            torch.testing.assert_close(two[0][part][key], value, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("name", "score"), [("SemiCPSTrainer", "disagreement"), ("SemiMeanTeacherTrainer", "change")]
)
def test_filtering_locating_and_reliability_are_the_same_on_all_processes(
    name: str, score: str, prepared_dataset: Any, tmp_path: Path
):
    """Each process predicts half of the images; all continue with the same selection."""
    settings = {
        "epochs": 4, "filter_epochs": (1, 2), "filter_keep": 2, "filter_score": score,
        "locate_epochs": (3,), "unlabelled_foreground_oversampling": 0.5,
        "unlabelled_start_steps": 2, "initial_lr": 0.05, "unlabelled_batch_size": 4,
    }  # fmt: skip
    first, second = train_on_two(prepared_dataset("labels", 1), tmp_path, name, "all", **settings)
    assert len(first["kept"]) == 2 and first["kept"] == second["kept"]
    assert first["cases"] == second["cases"] and first["cases"]["unlabelled"] == first["kept"]
    assert len(first["located"]) == 4 and first["located"].keys() == second["located"].keys()
    for case, positions in first["located"].items():
        assert positions.keys() == second["located"][case].keys()
        for key, found in positions.items():
            assert np.array_equal(found, second["located"][case][key])
    assert first["history"] == second["history"]
    assert first["reliability"] == second["reliability"] > 0
    for result in (first, second):
        last = [key for batch in result["batches"][-2:] for key in batch[0]["unlabelled"]["keys"]]
        assert {*last} <= {*first["kept"]}


def joined(batches: Any) -> list[dict[str, dict[str, Any]]]:
    """Join the patches of several processes to one batch."""
    return [
        {
            stream: {
                "data": torch.cat([batch[0][stream]["data"] for batch in batches]),
                "target": torch.cat([batch[0][stream]["target"] for batch in batches]),
                "keys": tuple(key for batch in batches for key in batch[0][stream]["keys"]),
            }
            for stream in batches[0][0]
        }
    ]


def train_on_two(
    dataset: Any, folder: Path, trainer: str, fold: int | str = 0, **settings: Any
) -> list[dict[str, Any]]:
    """Train to the end in two processes; return their states."""
    plans, port = dataset.plans, free_port()
    plans["semi"] = {trainer: {**SETTINGS, **settings}}
    (folder / "job.json").write_text(json.dumps([plans, dataset.dataset_json, trainer, fold]))
    told = [told_by_launcher(rank, RANKS, port, folder / "results") for rank in range(RANKS)]
    processes = [forked(train_on_one, folder, each) for each in told]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def train_on_one(folder: Path, told: dict[str, str]) -> None:
    """Train in one process."""
    torch.set_num_threads(1)
    os.environ.update(told)
    plans, dataset_json, name, fold = json.loads((folder / "job.json").read_text())
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    trainer = TRAINERS[name](plans, "2d", fold, dataset_json, CPU)
    trainer.logger.plot_progress_png = lambda folder: None
    trainer.plot_network_architecture = lambda: None
    batches, validation_batches = [], []
    step, check = trainer.train_step, trainer.validation_step
    trainer.train_step = lambda batch: (batches.append(batch), step(batch))[1]
    trainer.validation_step = lambda batch: (
        validation_batches.append(copy.deepcopy(batch)), check(batch),
    )[1]  # fmt: skip
    run_epochs(trainer, trainer.num_epochs)
    trainer.on_train_end()
    rows = [{key: row[key] for key in row if key != "seconds"} for row in trainer.history.rows]
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    result = {
        "student": weights_of(trainer.bare_network),
        "companions": weights_of(trainer._companions),
        "deployed": weights_of(trainer.prediction_network()),
        "history": rows,
        "batches": batches,
        "validation_batches": validation_batches,
        "saved": torch.load(file, weights_only=False) if rank == 0 else None,
        "cases": trainer.current_cases(),
        "reliability": trainer.unlabelled_weight.reliability,
    }
    if trainer.uses_unlabelled:
        kept = trainer.pool.kept
        result |= {"kept": kept and sorted(kept), "located": trainer.pool.located}
    torch.save(result, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
