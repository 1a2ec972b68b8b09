"""Check that no trainer waits for the device within an epoch, and that half precision trains.

    python scripts/check_steps.py --device cuda [-tr TRAINER ...]

Every trainer runs a few steps on a tiny phantom. On CUDA, PyTorch stops at the first operator that
waits for the GPU (``torch.cuda.set_sync_debug_mode``), in bfloat16, and in float16, where only
PyTorch's gradient scaler may wait; on other devices this check is skipped with a message. Then ten
steps in float16 and in bfloat16 must leave every term of the loss finite, and networks compiled by
torch.compile must train as others do. Prints a line for each check; exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch._inductor.config
from benchmark_step import prepare
from gpu_steps import work_in

from semi_nnunet.benchmarking.work import Work, silent_scratch_results, start_trainer
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.util.environment import variable

PRECISIONS = {"nnunet": "nnU-Net's precision (float16 on CUDA)", "bfloat16": "bfloat16"}
WARM_UP, STEPS = 3, 10
SMALL = {"labelled_batch_size": 2, "unlabelled_batch_size": 2}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda")
    add("-tr", dest="trainers", nargs="+", default=[*our_trainers()])
    add("-c", dest="configuration", default="2d")
    add("--checks", nargs="+", choices=CHECKS, default=[*CHECKS])
    add("--root", type=Path, help="where benchmark_step.prepare has made a phantom")
    args = parser.parse_args(words)
    os.environ["nnUNet_compile"] = "f"
    with nullcontext(args.root) if args.root else tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if args.root is None:
            prepare(root, args.configuration, (16, 48, 48), ["--budget", "cpu"])
        work = work_in(root, args.configuration, args.device)
        torch.set_num_threads(work.threads)
        failed = 0
        for trainer in args.trainers:
            for what, check in (one for kind in args.checks for one in CHECKS[kind]):
                with silent_scratch_results():
                    outcome = outcome_of(partial(check, work, trainer))
                print(f"{trainer} {args.configuration} {what}: {outcome}", flush=True)
                failed += outcome.startswith("FAILED")
    return 1 if failed else 0


def outcome_of(check: Callable[[], str]) -> str:
    """Return the outcome of a check, or the place in our code and the message of an error."""
    try:
        return check()
    except Exception as error:
        ours = [one for one in traceback.extract_tb(error.__traceback__) if "semi_nnunet" in one[0]]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        return f"FAILED at {where}: {type(error).__name__}: {error}".replace("\n", " ")


def steps_without_waiting(work: Work, name: str, precision: str) -> str:
    """Run steps in the middle of an epoch; PyTorch raises an error if one waits."""
    if not work.device.startswith("cuda"):
        return "not looked at, as the device is no GPU"
    trainer = start_trainer(work, name, mixed_precision=precision, **SMALL)
    batches = [next(trainer.dataloader_train) for _ in range(WARM_UP + 2)]
    for batch in batches[:WARM_UP]:
        trainer.train_step(batch)
    pinned = [
        {part: {key: pin(value) for key, value in raw.items()} for part, raw in one.items()}
        for batch in batches[WARM_UP:]
        for one in batch
    ]
    if trainer.grad_scaler is not None:
        trainer.grad_scaler.step = may_wait(trainer.grad_scaler.step)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in pinned:
            trainer.train_step([one])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "ok"


def may_wait(work: Callable[..., Any]) -> Callable[..., Any]:
    """Run the same work where waiting is allowed."""

    def done(*given: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return work(*given)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    return done


def pin(value: Any) -> Any:
    """Make a batch as the loader's thread for GPUs does, with copies that do not block."""
    if isinstance(value, list):
        return [pin(one) for one in value]
    return value.pin_memory() if isinstance(value, torch.Tensor) else value


def finite_steps(work: Work, name: str, precision: str) -> str:
    """Run steps in half precision."""
    trainer = start_trainer(work, name, mixed_precision=precision, **SMALL)
    for _ in range(STEPS):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.non_finite.look(now=True)
    means = trainer.records.means()
    wrong = [key for key, value in means.items() if not math.isfinite(value)]
    scale = "" if trainer.grad_scaler is None else f", scale {trainer.grad_scaler.get_scale():g}"
    return f"FAILED: not finite: {', '.join(wrong)}" if wrong else f"ok{scale}"


def compiled_steps(work: Work, name: str) -> str:
    """Steps with and without torch.compile, which nnU-Net uses on GPUs alone.

    Its float32 kernels add in another order: what is left of that after a few steps is told.
    """
    if not work.device.startswith("cuda"):
        return "not looked at, as nnU-Net compiles nothing on this device"
    torch._dynamo.utils.counters.clear()
    found = []
    for compiles in ("f", "t"):
        with variable("nnUNet_compile", compiles):
            trainer = start_trainer(work, name, mixed_precision="none", **SMALL)
        torch._dynamo.config.suppress_errors = False
        torch._inductor.config.fallback_random = True  # dropout draws the same numbers
        for _ in range(WARM_UP):
            trainer.train_step(next(trainer.dataloader_train))
        found.append(trainer.records.means())
    plain, compiled = found
    losses = [key for key in plain if key.startswith("loss/")]
    far = max(abs(compiled[key] - plain[key]) / (abs(plain[key]) + 1e-2) for key in losses)
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    verdict = "ok" if far < 0.05 and not breaks and graphs else "FAILED"
    return f"{verdict}: {graphs} graphs, {breaks} breaks, losses differ by {far:.2%} at most"


CHECKS: dict[str, list[tuple[str, Callable[[Work, str], str]]]] = {
    "waits": [
        ("does not wait for the device", partial(steps_without_waiting, precision="bfloat16")),
        ("waits in the scaler alone", partial(steps_without_waiting, precision="nnunet")),
    ],
    "finite": [
        (f"is finite in {meaning}", partial(finite_steps, precision=precision))
        for precision, meaning in PRECISIONS.items()
    ],
    "compiled": [("compiled, trains as uncompiled", compiled_steps)],
}

if __name__ == "__main__":
    sys.exit(main())
