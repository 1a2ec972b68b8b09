"""Train trainers, predict the test cases with stock nnU-Net, and tabulate the Dice.

    python scripts/compare.py -d 604 -c 2d --seeds 0 1 2 \\
        --trainers SemiBaselineTrainer SemiMeanTeacherTrainer \\
        --budget cpu --set epochs=24 mirror=false --out results/hippocampus_2d

For every trainer and seed: `semi_nnunet plan` (plans of their own, `<plans>_<label>_seed<N>`),
`nnUNetv2_train ... all`, `nnUNetv2_predict` of imagesTs, `nnUNetv2_evaluate_folder` against
labelsTs. What is finished is kept, so that the command can be interrupted and run again. Needs
nnUNet_raw, nnUNet_preprocessed and nnUNet_results, the data set preprocessed, and the trainers
registered or nnUNet_extTrainer set. --jobs N runs N trainings at once, each on --threads CPU
threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TRAIN = """
import multiprocessing
multiprocessing.cpu_count = lambda: {threads}  # nnU-Net takes every core for one CPU training
from nnunetv2.run.run_training import run_training_entry
run_training_entry()
"""
PREDICT = """
import multiprocessing
multiprocessing.cpu_count = lambda: {threads}
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
predict_entry_point()
"""
EVALUATE = (
    "from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point as run; run()"
)


@dataclass(frozen=True)
class Run:
    """One training."""

    trainer: str
    seed: int
    plans: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-c", dest="configuration", required=True)
    parser.add_argument("-p", dest="plans", default="nnUNetPlans")
    parser.add_argument(
        "--trainers", nargs="+", default=["SemiBaselineTrainer", "SemiMeanTeacherTrainer"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget")
    parser.add_argument("--set", dest="assignments", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--label",
        default="compare",
        help="part of the plans' names, to tell settings apart (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    refuse_other_settings(args)
    runs = [
        Run(trainer, seed, f"{args.plans}_{args.label}_seed{seed}")
        for seed in args.seeds
        for trainer in args.trainers
    ]
    for seed in args.seeds:
        plan(args, seed)
    started = time.time()
    with ThreadPoolExecutor(args.jobs) as pool:
        scores = dict(zip(runs, pool.map(lambda run: finished_score(args, run), runs), strict=True))
    report(args, scores, time.time() - started)


def refuse_other_settings(args: argparse.Namespace) -> None:
    """What was trained under other settings must not be reported under these."""
    now = [args.dataset, args.configuration, args.plans, args.budget, sorted(args.assignments)]
    path = args.out / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != now:
        sys.exit(
            f"{args.out} holds results of other settings ({path}). Choose another --out and --label"
        )
    path.write_text(json.dumps(now))


def plan(args: argparse.Namespace, seed: int) -> None:
    """Write the plans of a seed."""
    command = [
        sys.executable,
        "-m",
        "semi_nnunet.cli.main",
        "plan",
        "-d",
        args.dataset,
        "-p",
        args.plans,
    ]
    command += [
        "--name",
        f"{args.plans}_{args.label}_seed{seed}",
        "--set",
        *args.assignments,
        f"seed={seed}",
    ]
    command += ["--budget", args.budget] if args.budget else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def finished_score(args: argparse.Namespace, run: Run) -> dict[str, float]:
    """Train, predict and evaluate what is not done yet; mean Dice of each class and of all."""
    raw = next(
        path
        for path in Path(os.environ["nnUNet_raw"]).iterdir()
        if path.name.startswith(f"Dataset{int(args.dataset):03d}_")
    )
    folder = (
        Path(os.environ["nnUNet_results"])
        / raw.name
        / f"{run.trainer}__{run.plans}__{args.configuration}"
        / "fold_all"
    )
    out = args.out / f"{run.trainer}_seed{run.seed}"
    log = args.out / f"{run.trainer}_seed{run.seed}.log"
    where = ["-d", args.dataset, "-c", args.configuration, "-tr", run.trainer, "-p", run.plans]
    if (
        not (folder / "checkpoint_final.pth").is_file()
        or not (folder / "validation" / "summary.json").is_file()
    ):
        again = ["--c"] if any(folder.glob("checkpoint_*.pth")) else []
        train = [
            args.dataset,
            args.configuration,
            "all",
            "-tr",
            run.trainer,
            "-p",
            run.plans,
            "-device",
            args.device,
            *again,
        ]
        call(TRAIN, train, args.threads, log)
    if not (out / "summary.json").is_file():
        options = [
            "-f",
            "all",
            "-i",
            str(raw / "imagesTs"),
            "-o",
            str(out),
            "-device",
            args.device,
            "-npp",
            "1",
            "-nps",
            "1",
        ]
        call(PREDICT, [*where, *options], args.threads, log)
        evaluate = [
            str(raw / "labelsTs"),
            str(out),
            "-djfile",
            str(out / "dataset.json"),
            "-pfile",
            str(out / "plans.json"),
            "-np",
            "1",
        ]
        call(EVALUATE, evaluate, args.threads, log)
    summary = json.loads((out / "summary.json").read_text())
    score = {label: values["Dice"] for label, values in summary["mean"].items()} | {
        "mean": summary["foreground_mean"]["Dice"]
    }
    print(f"{run.trainer} seed {run.seed}: {score['mean']:.4f}", flush=True)
    return score


def call(code: str, arguments: list[str], threads: int, log: Path) -> None:
    """Run one of nnU-Net's entry points in a process of its own, its output appended to ``log``."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "1",
    }
    environment.setdefault("nnUNet_n_proc_DA", "0")
    with open(log, "a") as file:
        command = [sys.executable, "-W", "ignore", "-c", code.format(threads=threads), *arguments]
        subprocess.run(command, check=True, env=environment, stdout=file, stderr=subprocess.STDOUT)


def report(args: argparse.Namespace, scores: dict[Run, dict[str, float]], seconds: float) -> None:
    """Print and write the table."""
    lines = [
        f"data set {args.dataset}, {args.configuration}, budget {args.budget}, "
        f"settings {' '.join(args.assignments) or 'default'}",
        "",
    ]
    classes = list(next(iter(scores.values())))
    lines += ["| trainer | seed | " + " | ".join(classes) + " |", "|---" * (2 + len(classes)) + "|"]
    for run, score in scores.items():
        lines.append(
            f"| {run.trainer} | {run.seed} | "
            + " | ".join(f"{score[name]:.4f}" for name in classes)
            + " |"
        )
    means = {}
    for trainer in args.trainers:
        values = [score["mean"] for run, score in scores.items() if run.trainer == trainer]
        means[trainer] = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(
            f"| **{trainer}** | mean +- sd of {len(values)} | {' | ' * (len(classes) - 1)}"
            f"{means[trainer]:.4f} +- {spread:.4f} |"
        )
    for trainer in args.trainers[1:]:
        lines.append(
            f"\n{trainer} - {args.trainers[0]}: "
            f"{100 * (means[trainer] - means[args.trainers[0]]):+.2f} Dice points"
        )
    lines.append(
        f"\ncommand: python scripts/compare.py {' '.join(sys.argv[1:])}\n"
        f"time: {seconds / 60:.0f} min"
    )
    (args.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
