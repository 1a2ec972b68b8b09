"""Check that several processes train on a GPU as one does.

    python scripts/check_ranks.py ROOT [--device cuda]

ROOT is a folder in which ``benchmark_step.prepare`` has made a phantom in 2d. A process group of
one process trains with NCCL, and asks whether to stop without waiting for the GPU. Two processes
train with gloo and a gradient tensor on the same GPU (NCCL refuses two processes on one): after
each of three steps in float32 their networks must equal those of one process with the whole batch,
except for the order of sums. Prints a line for each check; exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_steps import work_in
from torch import distributed as dist

from semi_nnunet.benchmarking.work import Work, silent_scratch_results, start_trainer
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.interruptions import Preemption

TRAINERS = ("SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiCPSTrainer")
RANKS, STEPS = 2, 3
TOLERANCE, LEAST = 0.05, 0.1  # of the largest change: of a tensor, of all networks
SAME_FOR_ALL = {  # what each process would draw for itself, but for the batches
    "appearance_strength": 0.0, "labelled_appearance": 0.0, "labelled_batch_size": 4,
    "unlabelled_batch_size": 4, "deep_supervision": False, "mixed_precision": "none",
    "initial_lr": 0.01,
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args(words)
    os.environ["nnUNet_compile"] = "f"
    work, on_gpu = work_in(args.root, "2d", args.device), args.device == "cuda"
    backend, failed = "nccl" if on_gpu else "gloo", 0
    group = f"one process by {backend} trains", partial(one_of_a_group, work, backend)
    pairs = [
        (f"{name}: two processes by gloo on {args.device} step as one",
         partial(two_as_one, work, name))
        for name in TRAINERS
    ]  # fmt: skip
    for what, check in [group, *pairs]:
        try:
            said = check()
        except Exception as error:
            traceback.print_exc()
            said = f"FAILED: {type(error).__name__}: {error}"[:400].replace("\n", " ")
        print(f"{what}: {said}", flush=True)
        failed += said.startswith("FAILED")
    return 1 if failed else 0


def one_of_a_group(work: Work, backend: str) -> str:
    """Train some steps in a process group of one."""
    [found] = in_processes(1, work, TRAINERS[1], backend, None)
    if found["waited"]:
        return f"FAILED: asking whether to leave waits for the GPU: {found['waited']}"
    return "ok" if found["finite"] else "FAILED: a weight is not finite"


def two_as_one(work: Work, name: str) -> str:
    """Compare steps of two processes with steps of one with both batches."""
    both = in_processes(RANKS, work, name, "gloo", None)
    batches = [joined([one["batches"][step] for one in both]) for step in range(STEPS)]
    [alone] = in_processes(1, work, name, "", batches)
    worst = 0.0
    for step in range(STEPS):
        now = alone["weights"][step]
        changes = {key: largest(value - alone["before"][key]) for key, value in now.items()}
        least = LEAST * max(changes.values())  # a bias before a normalisation changes by noise
        for key, value in now.items():
            away = max(largest(one["weights"][step][key] - value) for one in both)
            worst = max(worst, away / max(changes[key], least))
    verdict = "ok" if worst < TOLERANCE else "FAILED"
    return f"{verdict}: weights differ by {worst:.1e} of their change at most"


def largest(values: torch.Tensor) -> float:
    """Return the largest absolute value."""
    return float(values.abs().max())


def in_processes(
    count: int, work: Work, name: str, backend: str, batches: list[Any] | None
) -> list[dict[str, Any]]:
    """Return the results of forked processes; this process must not have used the GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    forking = multiprocessing.get_context("fork")
    ends, processes = [], []
    for number in range(count):
        here, there = forking.Pipe(duplex=False)
        told = {"RANK": str(number), "LOCAL_RANK": "0", "WORLD_SIZE": str(count)}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        what = (there, told, work, name, backend, batches)
        processes.append(forking.Process(target=one_process, args=what))
        processes[-1].start()
        ends.append(here)
        there.close()
    try:
        return [torch.load(io.BytesIO(end.recv_bytes()), weights_only=True) for end in ends]
    except EOFError:
        raise RuntimeError("a process has ended; see what it printed") from None
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def one_process(
    out: Any, told: dict[str, str], work: Work, name: str, backend: str, batches: Any
) -> None:
    """Train some steps and send the result."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    os.environ.update(told)
    if backend:
        dist.init_process_group(backend)
    extra = {} if name == TRAINERS[0] else {"cutmix_probability": 0.0}
    errors = os.dup(2)  # the output is silenced, but errors of a process must be seen
    try:
        with silent_scratch_results():
            trainer = start_trainer(work, name, **SAME_FOR_ALL, **extra)
            steps = range(STEPS)
            batches = batches or [next(trainer.dataloader_train) for _ in steps]
            before, after = weights_of(trainer), list[dict[str, torch.Tensor]]()
            for step in steps:
                trainer.train_step(batches[step])
                after.append(weights_of(trainer))
    except BaseException:
        os.write(errors, traceback.format_exc().encode())
        os._exit(1)
    finite = all(bool(torch.isfinite(one).all()) for one in after[-1].values())
    found = {"before": before, "weights": after, "batches": batches, "finite": finite}
    alone_in_group = backend and told["WORLD_SIZE"] == "1"
    found["waited"] = waited_when_asking(trainer.device) if alone_in_group else ""
    torch.save(found, buffer := io.BytesIO())  # torch's pipes share memory, which ends with this
    out.send_bytes(buffer.getvalue())
    out.close()
    if backend:
        dist.destroy_process_group()
    os._exit(0)


def waited_when_asking(device: torch.device) -> str:
    """Return PyTorch's message if a process of two waits for the GPU when it asks whether to stop.

    In a group of one it answers itself.
    """
    preemption, on_gpu = Preemption(Ranks(0, RANKS)), device.type == "cuda"
    if on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            preemption.is_asked(device)
    except RuntimeError as error:
        return str(error)
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    return ""


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    """Return the weights of all trained networks, on the CPU."""
    return {
        f"{number} {key}": value.detach().cpu().clone()
        for number, network in enumerate(trainer.trained_networks())
        for key, value in network.state_dict().items()
    }


def joined(batches: Sequence[Any]) -> list[dict[str, dict[str, Any]]]:
    """Join the patches of several processes to one batch."""
    parts = [batch[0] for batch in batches]
    return [
        {
            stream: {
                key: torch.cat([part[stream][key] for part in parts]) for key in ("data", "target")
            }
            | {"keys": tuple(key for part in parts for key in part[stream]["keys"])}
            for stream in parts[0]
        }
    ]


if __name__ == "__main__":
    sys.exit(main())
