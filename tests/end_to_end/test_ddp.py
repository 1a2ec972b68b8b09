"""Two DDP processes (gloo, on the CPU, where nnU-Net itself would want two GPUs)."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.trainers import (
    SHORT,
    TRAINERS,
    UNLABELLED_TRAINERS,
    WITHOUT_RAMP,
    run_epochs,
    same_weights,
    weights_of,
)

RANKS = 2
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
    """With nnU-Net's loss and with ours, whose batch Dice is that of all processes."""
    dataset = prepared_dataset("labels", 1)
    short = {"epochs": 1, "steps_per_epoch": 1, "deep_supervision": False, **settings}
    results = train_on_two(dataset, tmp_path, "SemiBaselineTrainer", **short)
    alone = make_trainer("SemiBaselineTrainer", **{**SETTINGS, **short})
    alone.train_step(joined([result["batches"][0] for result in results]))
    for name, value in weights_of(alone.bare_network).items():
        torch.testing.assert_close(results[0]["student"][name], value, rtol=1e-4, atol=1e-6)


def joined(batches: list[Any]) -> list[dict[str, dict[str, Any]]]:
    """The labelled patches of several processes as one batch."""
    parts = [batch[0]["labelled"] for batch in batches]
    return [
        {
            "labelled": {
                "data": torch.cat([part["data"] for part in parts]),
                "target": torch.cat([part["target"] for part in parts]),
                "keys": tuple(key for part in parts for key in part["keys"]),
            }
        }
    ]


def train_on_two(dataset: Any, folder: Path, trainer: str, **settings: Any) -> list[dict]:
    """Train to the end in two processes; what each of them has then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plans = dataset.plans
    plans["semi"] = {trainer: {**SETTINGS, **settings}}
    (folder / "job.json").write_text(json.dumps([plans, dataset.dataset_json, trainer, port]))
    environment = {"nnUNet_results": str(folder / "results"), "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        torch.multiprocessing.spawn(train_on_one, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def train_on_one(rank: int, folder: str) -> None:
    """What one process does; nnU-Net's GPU is replaced by the CPU, nothing else."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    torch.set_num_threads(1)
    plans, dataset_json, name, port = json.loads((Path(folder) / "job.json").read_text())
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = TRAINERS[name](plans, "2d", 0, dataset_json)
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    trainer.logger.plot_progress_png = lambda folder: None
    trainer.plot_network_architecture = lambda: None
    batches = []
    step = trainer.train_step
    trainer.train_step = lambda batch: (batches.append(batch), step(batch))[1]
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
        "saved": torch.load(file, weights_only=False) if rank == 0 else None,
    }
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
