"""Time a training step against its network passes; compare its memory with the baseline's.

    python scripts/benchmark_step.py [--device cpu] [--configuration 2d] [--steps 20] [--methods]

Makes a phantom data set in a temporary folder, plans it with --budget cpu (or at full size with
--full), and times on the
same tensors: the labelled forward and backward pass, the student's on the unlabelled patches, the
teacher's forward pass, and the whole training step. Loading is measured apart. --methods: instead,
the whole step of every trainer, in turn in one process, beside the time its network passes would
take at the speed of the baseline's: floating-point operations (counted by torch) of the method's
step / of the baseline's x the time of the labelled forward and backward pass. Prints medians and
ratios; it judges nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BASELINE = "SemiBaselineTrainer"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument(
        "--steps", type=int, default=20, help="counted repetitions (default: %(default)s)"
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(24, 64, 64), help="of the phantom's volumes"
    )
    parser.add_argument(
        "--full", action="store_true", help="nnU-Net's full plan instead of --budget cpu"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--methods", action="store_true", help="every trainer instead of Mean Teacher's parts"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory() as root:
        prepare(Path(root), args)
        if args.methods:
            print_methods(args, root)
            return
        times = in_new_process(args, root, "time")
        base = in_new_process(args, root, f"memory:{BASELINE}")
        mean_teacher = in_new_process(args, root, "memory:SemiMeanTeacherTrainer")
    parts = sum(
        times[name]
        for name in ("labelled forward + backward", "student forward + backward", "teacher forward")
    )
    for name, seconds in times.items():
        print(f"{name:<32}{1000 * seconds:9.1f} ms")
    print(f"{'whole step / sum of parts':<32}{times['whole step'] / parts:9.3f}")
    print(f"{'peak of the baseline step':<32}{base['peak_mib']:9.1f} MiB above the level before")
    print(f"{'peak of the Mean Teacher step':<32}{mean_teacher['peak_mib']:9.1f} MiB")
    print(f"{'Mean Teacher / baseline':<32}{mean_teacher['peak_mib'] / base['peak_mib']:9.3f}")


def print_methods(args: argparse.Namespace, root: str) -> None:
    """A Markdown table of every trainer's step."""
    costs = in_new_process(args, root, "methods")
    peaks = {name: in_new_process(args, root, f"memory:{name}")["peak_mib"] for name in costs}
    base, peak = costs[BASELINE], peaks[BASELINE]
    print(
        "| trainer | step, ms | / baseline's | operations / baseline's | step / its passes "
        "| peak memory / baseline's |\n" + "|---" * 6 + "|"
    )
    for name, cost in costs.items():
        operations = cost["operations"] / base["operations"]
        passes = operations * base["passes"]
        print(
            f"| {name} | {1000 * cost['step']:.0f} | {cost['step'] / base['step']:.2f} "
            f"| {operations:.2f} | {cost['step'] / passes:.2f} | {peaks[name] / peak:.2f} |"
        )


def prepare(root: Path, args: argparse.Namespace) -> None:
    """Phantom data, preprocessed and planned, under ``root``."""
    set_paths(root)
    from semi_nnunet.cli.main import main as semi_nnunet
    from semi_nnunet.datasets.phantom import write_phantom_dataset

    write_phantom_dataset(
        root / "raw" / "Dataset901_Phantom",
        labelled=4,
        unlabelled=12,
        test=0,
        shape=tuple(args.shape),
    )
    quiet = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    stdout, sys.stdout = sys.stdout, quiet
    try:
        codes = [semi_nnunet(["preprocess", "-d", "901", "-c", args.configuration, "-np", "1"])]
        if not args.full:
            codes.append(semi_nnunet(["plan", "-d", "901", "--budget", "cpu"]))
    finally:
        sys.stdout = stdout
    if any(codes):
        sys.exit("the phantom could not be prepared")


def set_paths(root: Path) -> None:
    """nnU-Net's folders under ``root``; loading in this process, no compilation."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ.update(nnUNet_compile="f", nnUNet_n_proc_DA="0")


def in_new_process(args: argparse.Namespace, root: str, measure_what: str) -> dict[str, Any]:
    """Run this script's ``measure`` in a fresh process, so that memory peaks are its own."""
    command = [
        sys.executable,
        __file__,
        "--root",
        root,
        "--measure",
        measure_what,
        "--device",
        args.device,
    ]
    command += [
        "--configuration",
        args.configuration,
        "--steps",
        str(args.steps),
        "--threads",
        str(args.threads),
    ]
    command += ["--full"] if args.full else []
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """What a fresh process is asked to measure."""
    import torch

    set_paths(args.root)
    torch.set_num_threads(args.threads)
    kind, _, trainer_name = args.measure.partition(":")
    if kind == "methods":
        return time_methods(args)
    trainer = start_trainer(args, trainer_name or "SemiMeanTeacherTrainer")
    return time_parts(trainer, args.steps) if kind == "time" else peak_memory(trainer, args.steps)


def start_trainer(args: argparse.Namespace, name: str) -> Any:
    """A trainer ready for its first step."""
    import torch

    from semi_nnunet.discovery.listing import trainer_classes
    from semi_nnunet.util.files import read_json

    folder = args.root / "preprocessed" / "Dataset901_Phantom"
    plans = read_json(folder / ("nnUNetPlans.json" if args.full else "nnUNetPlans_cpu.json"))
    plans["semi"] = {"ramp_up": "constant", "unlabelled_start_steps": 0}  # every term from step 0
    fold: Any = "all"  # nnU-Net says int
    trainer = trainer_classes()[name](
        plans,
        args.configuration,
        fold,
        read_json(folder / "dataset.json"),
        torch.device(args.device),
    )
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def time_methods(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Trainer -> median seconds of its step and its operations; the baseline's passes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    from semi_nnunet.discovery.listing import trainer_classes

    names = [BASELINE, *(name for name in trainer_classes() if name != BASELINE)]
    trainers = {name: start_trainer(args, name) for name in names}
    batches = {name: next(trainer.dataloader_train) for name, trainer in trainers.items()}
    costs = {}
    for name, trainer in trainers.items():
        trainer.train_step(batches[name])  # the first step of an epoch does more
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(batches[name])
        costs[name] = {"operations": float(counter.get_total_flops())}
    parts = {
        name: functools.partial(trainer.train_step, batches[name])
        for name, trainer in trainers.items()
    }
    base = trainers[BASELINE]
    labelled, _ = base.on_device(batches[BASELINE][0])
    parts["passes"] = functools.partial(labelled_pass, base, labelled)
    times = medians_in_turn(parts, args.steps, base.device)
    costs[BASELINE]["passes"] = times.pop("passes")
    for name, seconds in times.items():
        costs[name]["step"] = seconds
    return costs


def labelled_pass(trainer: Any, labelled: Any) -> None:
    """Forward and backward on the labelled patches."""
    import torch

    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(trainer.device.type, enabled=trainer.device.type == "cuda"):
        loss = trainer.loss(trainer.network(labelled.x), labelled.target)
    (loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)).backward()


def medians_in_turn(
    parts: Mapping[str, Callable[[], Any]], repetitions: int, device: Any
) -> dict[str, float]:
    """Median seconds of each part, one after the other, so that drift hits all alike."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in parts}
    for repetition in range(repetitions + 3):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repetition >= 3:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def time_parts(trainer: Any, steps: int) -> dict[str, float]:
    """Median seconds of each part and of the whole step."""
    import torch

    batches = next(trainer.dataloader_train)
    labelled, unlabelled = trainer.on_device(batches[0])
    teacher = trainer.companion("teacher")

    def autocast() -> Any:
        return torch.autocast(trainer.device.type, enabled=trainer.device.type == "cuda")

    def student() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = trainer.probs(trainer.predict(unlabelled.x_strong)).square().mean()
        (loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)).backward()

    def teach() -> None:
        with autocast():
            trainer.predict_with(teacher, unlabelled.x_weak)

    parts: dict[str, Callable[[], Any]] = {
        "labelled forward + backward": functools.partial(labelled_pass, trainer, labelled),
        "student forward + backward": student,
        "teacher forward": teach,
        "whole step": functools.partial(trainer.train_step, batches),
        "loading (beside the step)": functools.partial(next, trainer.dataloader_train),
    }
    return medians_in_turn(parts, steps, trainer.device)


def peak_memory(trainer: Any, steps: int) -> dict[str, float]:
    """Peak memory of training steps: of the GPU, else the process's above its level before."""
    import torch

    batches = next(trainer.dataloader_train)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = 0.0
    else:
        before = current_rss_mib()
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="utf-8"
        )  # forget the peak of the set-up
    for _ in range(min(steps, 5)):
        trainer.train_step(batches)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if trainer.device.type == "cuda"
        else peak_rss_mib()
    )
    return {"peak_mib": peak - before}


def current_rss_mib() -> float:
    """Resident memory of this process now."""
    return (
        int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        * resource.getpagesize()
        / 2**20
    )


def peak_rss_mib() -> float:
    """The largest resident memory of this process since its peak was last forgotten."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
