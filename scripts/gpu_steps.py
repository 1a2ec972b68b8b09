"""Time the steps of all trainers on a GPU in one process, to save minutes.

    python scripts/gpu_steps.py ROOT CONFIGURATION --operations FILE      # counted, on the CPU
    python scripts/gpu_steps.py ROOT CONFIGURATION -o times.json [--counted FILE] [--compiled]

ROOT is a folder in which ``benchmark_step.prepare`` has made a phantom. The steps are timed as by
``semi_nnunet benchmark``. That measures memory in a process for each trainer; here memory is
PyTorch's peak on the GPU in a step, above the level before the trainer was made. Every line is
printed when it is known; the table and the file follow at the end.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from benchmark_step import FOLDERS, NUMBER

from semi_nnunet.benchmarking.steps import FLOOR, count_operations, count_patches, run_labelled_pass
from semi_nnunet.benchmarking.work import STOCK, Work, silent_scratch_results, start_trainer
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.markdown import table
from semi_nnunet.util.timing import Seconds, one_round

MIB = 2**20
WARM_UP, MOST_ROUNDS, FEWEST_ROUNDS = 3, 9, 2
HEADER: tuple[str, ...] = (
    "trainer", "step, ms", "half of them", "/ baseline's", "/ stock's", "/ its passes", "MiB",
    "/ baseline's", "patches/s",
)  # fmt: skip
Step = Callable[[], Any]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", type=Path)
    add("configuration")
    add("-tr", dest="trainers", nargs="+", default=[STOCK, *our_trainers()])
    add("--device", default="cuda")
    add("--seconds", type=float, default=60, help="after which no round begins")
    add("--compiled", action="store_true", help="by torch.compile")
    add("--operations", type=Path, help="only count operations, for this file")
    add("--counted", type=Path, help="the file of --operations")
    add("-o", dest="out", type=Path, help="JSON of what was measured")
    args = parser.parse_args(words)
    work = work_in(args.root, args.configuration, args.device)
    if args.operations:
        with silent_scratch_results():
            write_json(args.operations, count_operations(work, args.trainers))
        return
    os.environ["nnUNet_compile"] = "t" if args.compiled else "f"
    names = sorted(args.trainers, key=lambda name: name != BASELINE)  # it comes first
    found = measured(work, names, args.seconds)
    operations = optional_json(args.counted) if args.counted else {}
    print("\n".join(lines(found, operations)))
    if args.out:
        write_json(args.out, {"work": vars(work), "operations": operations, **found})


def work_in(root: Path, configuration: str, device: str) -> Work:
    """Return the work in a folder that ``benchmark_step.prepare`` has filled."""
    os.environ.update({f"nnUNet_{name}": str(root / name) for name in FOLDERS})
    os.environ["nnUNet_n_proc_DA"] = "0"
    planned = [path.stem for path in (root / "preprocessed").glob("*/nnUNetPlans*.json")]
    return Work(NUMBER, configuration, max(planned, key=len), device, threads=1, rounds=2)


def measured(work: Work, names: Sequence[str], seconds: float) -> dict[str, Any]:
    """Measure steps in turn and memory; return also why some trainers are missing."""
    began, device = time.perf_counter(), torch.device(work.device)
    torch.set_num_threads(work.threads)
    steps, found, batches = dict[str, Step](), dict[str, Any](), dict[Any, Any]()
    with silent_scratch_results():
        for name in names:
            if steps and time.perf_counter() - began > 0.7 * seconds:
                found[name] = {"refused": "no time was left"}
                continue
            torch._dynamo.utils.counters.clear()
            try:
                steps[name], found[name], trainer = first_steps(work, name, device, batches)
            except Exception as error:  # whatever it is, the others are measured
                found[name] = {"refused": f"{type(error).__name__}: {error}"[:300]}
                continue
            tell(name, found[name])
            if name == BASELINE:
                batch = batch_of(trainer, batches)
                steps[FLOOR] = partial(run_labelled_pass, trainer, batch)
                found[FLOOR] = {}
        rounds = list[dict[str, float]]()
        one_round(steps, device)
        while len(rounds) < MOST_ROUNDS and (
            len(rounds) < FEWEST_ROUNDS or time.perf_counter() - began < seconds
        ):
            rounds.append(one_round(steps, device))
    for name in steps:
        found[name] |= vars(Seconds.of([one[name] for one in rounds]))
    return {"rounds": len(rounds), "measured": found, "gpu": name_of(device)}


def first_steps(
    work: Work, name: str, device: torch.device, batches: dict[Any, Any]
) -> tuple[Step, dict[str, Any], Any]:
    """Return a trainer's step, its memory and the seconds of the first steps."""
    before = allocated(device)
    began = time.perf_counter()
    trainer = start_trainer(work, name)
    torch._dynamo.config.suppress_errors = False  # one that is not compiled is no measurement
    batch = batch_of(trainer, batches)
    made = time.perf_counter()
    step = partial(trainer.train_step, batch)
    for number in range(WARM_UP):
        if number == WARM_UP - 1 and device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    facts: dict[str, Any] = {
        "ready": made - began,
        "first_steps": time.perf_counter() - made,
        "patches": count_patches(batch),
    }
    if device.type == "cuda":
        facts["mib"] = (torch.cuda.max_memory_allocated() - before) / MIB
    if name != STOCK:
        losses = {key: one for key, one in trainer.records.means().items() if key[:5] == "loss/"}
        facts["not_finite"] = [key for key, one in losses.items() if not math.isfinite(one)]
    if os.environ["nnUNet_compile"] == "t":
        counters = torch._dynamo.utils.counters
        facts["graphs"] = counters["stats"]["unique_graphs"]
        facts["graph_breaks"] = sum(counters["graph_break"].values())
    return step, facts, trainer


def batch_of(trainer: Any, batches: dict[Any, Any]) -> Any:
    """Return a batch; loading is slow here, so trainers of equal batch sizes share one."""
    settings = getattr(trainer, "settings", None)
    sizes = settings and (settings.labelled_batch_size, settings.unlabelled_batch_size)
    kind = sizes, getattr(trainer, "uses_unlabelled", None)
    if kind not in batches:
        batches[kind] = next(trainer.dataloader_train)
    return batches[kind]


def allocated(device: torch.device) -> int:
    """Return the bytes of tensors on the GPU."""
    return int(torch.cuda.memory_allocated()) if device.type == "cuda" else 0


def tell(name: str, facts: dict[str, Any]) -> None:
    """Print the results of a trainer to stderr, in case no table follows."""
    with open(2, "w", closefd=False, encoding="utf-8") as stream:
        rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in facts.items()}
        print(name, rounded, file=stream)


def name_of(device: torch.device) -> str:
    """Return the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def lines(found: dict[str, Any], operations: dict[str, float]) -> list[str]:
    """Yield a heading, a Markdown table, and why some trainers are missing in it."""
    rows = found["measured"]
    base, floor = rows.get(BASELINE, {}), rows.get(FLOOR, {})
    cells_of_all, refused = [HEADER], list[str]()
    for name, row in rows.items():
        if "median" not in row:
            refused.append(f"{name}: {row['refused']}")
            continue
        median, stock = row["median"], rows.get(STOCK, {}).get("median")
        passes = None
        if operations.get(name) and operations.get(FLOOR) and "median" in floor:
            passes = operations[name] / operations[FLOOR] * floor["median"]
        memory = row.get("mib")
        shown = [
            name.removeprefix("Semi").removesuffix("Trainer"),
            f"{1000 * median:.1f}",
            f"{1000 * row['low']:.1f} to {1000 * row['high']:.1f}",
            over(median, base.get("median")),
            over(median, stock),
            over(median, passes),
            "-" if memory is None else f"{memory:.0f}",
            over(memory, base.get("mib")),
            f"{row['patches'] / median:.0f}" if "patches" in row else "-",
        ]
        if "graphs" in row:
            shown[0] += f" ({row['graphs']} graphs, {row['graph_breaks']} breaks)"
        if row.get("not_finite"):
            shown[0] += f" FAILED: {', '.join(row['not_finite'])} not finite"
        cells_of_all.append(tuple(shown))
    written = table(cells_of_all, numbers=True).splitlines()
    return [f"{found['gpu']}, {found['rounds']} rounds", *written, *refused]


def over(value: float | None, other: float | None) -> str:
    """Format the ratio of two numbers, or a dash."""
    return f"{value / other:.2f}" if value and other else "-"


if __name__ == "__main__":
    main()
