"""Kill trainings and the labelling of pools at random moments, continue, and compare.

    python scripts/kill_lottery.py [--kills 40] [--seed 0] [--only NAME ...]

Works on a phantom in a temporary folder, on the CPU. Each scenario runs once without a kill. Then
it runs until its share of the kills is spent: SIGKILL to the whole process group at a seeded moment
of the run, then the same command again. When a run ends before its kill, it is compared and starts
from the beginning. Of trainings, every tensor of the final checkpoint (student, companions,
deployed network) and the history must be bit-identical; of pools, every file must have the same
bytes, and each case must be listed once. Prints a line for each scenario; exits with 1 if anything
was lost.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.runs.commands import build_child_arguments
from semi_nnunet.util.command import Command, typed

PLANS, DATASET = "nnUNetPlans_lottery", "901"
SETTINGS = (
    "epochs=4", "steps_per_epoch=3", "validation_steps_per_epoch=1", "save_every_epochs=1",
    "2d.labelled_batch_size=2", "2d.unlabelled_batch_size=2", "unlabelled_start_steps=0",
    "unlabelled_foreground_oversampling=0.33", "SemiCPSTrainer.filter_epochs=[2]",
    "SemiCPSTrainer.filter_keep=3", "SemiCPSTrainer.locate_epochs=[1]",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """What is killed.

    Args:
        name: for people.
        command: folder of the outcome -> the words of the command, which continues by itself.
        lost: (folder of the run without a kill, folder of the other) -> what differs.
    """

    name: str
    command: Callable[[Path], Command]
    lost: Callable[[Path, Path], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the scenarios")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        prepare(Path(root))
        scenarios = list(made_scenarios(Path(root), args.only))
        shares = [len(range(n, args.kills, len(scenarios))) for n in range(len(scenarios))]
        results = [
            play(scenario, share, moments_of(args.seed, scenario), Path(root))
            for scenario, share in zip(scenarios, shares, strict=True)
        ]
    lost = sum(len(one) for one in results)
    print(f"{sum(shares)} kills, {lost} losses")
    sys.exit(1 if lost else 0)


def moments_of(seed: int, scenario: Scenario) -> random.Random:
    """Return the random numbers of a scenario."""
    return random.Random(f"{seed} {scenario.name}")  # noqa: S311 - no secret


def prepare(root: Path) -> None:
    """A phantom data set, preprocessed and planned; nnU-Net's folders are set to it."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ.update(
        nnUNet_compile="f", nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1", OMP_NUM_THREADS="1",
        nnUNet_extTrainer=str(TRAINERS_FOLDER),
    )  # fmt: skip
    from semi_nnunet.datasets.phantom import write_phantom_dataset

    raw = root / "raw" / f"Dataset{DATASET}_Phantom"
    write_phantom_dataset(raw, labelled=4, unlabelled=6, test=0, shape=(12, 32, 32))
    preprocess = ("semi_nnunet", "preprocess", "-d", DATASET, "-c", "2d", "-np", "1")
    plan = (
        "semi_nnunet",
        "plan",
        "-d",
        DATASET,
        "-c",
        "2d",
        "--budget",
        "cpu",
        "--new-plans",
        PLANS,
    )
    run_to_end(preprocess, root / "results")
    run_to_end((*plan, "--set", *SETTINGS), root / "results")


def made_scenarios(root: Path, only: list[str] | None) -> Iterator[Scenario]:
    """Yield trainings with a teacher, two students, branches, and models; then pools.

    The pools need the model of the first training.
    """
    names = ("SemiMeanTeacherTrainer", "SemiCPSTrainer", "SemiDiffusionTrainer",
             "SemiDistillationTrainer")  # fmt: skip
    models = root / "models"
    if not only or {"SemiDistillationTrainer", "pseudo-label"} & set(only):
        run_to_end(training(names[0])(models), models)
    for name in names:
        if not only or name in only:
            yield Scenario(name, training(name, models), partial(unlike_trainings, name))
    if not only or "pseudo-label" in only:
        model = next(models.glob("*/*")) / "fold_0"
        images = root / "raw" / f"Dataset{DATASET}_Phantom" / "imagesUn"
        yield Scenario("pseudo-label", labelling(images, model), unlike_pools)


def training(name: str, models: Path | None = None) -> Callable[[Path], Command]:
    """Return the command that starts or continues a training with results in the folder."""

    def command(folder: Path) -> Command:
        if models is not None and name == "SemiDistillationTrainer" and not folder.exists():
            shutil.copytree(models, folder)  # what it learns from lies beside it
        begun = any(folder.glob(f"*/{name}__*/fold_0/checkpoint_*.pth"))
        words = ("nnUNetv2_train", DATASET, "2d", "0", "-tr", name, "-p", PLANS, "-device", "cpu")
        return (*words, "--c") if begun else words

    return command


def labelling(images: Path, model: Path) -> Callable[[Path], Command]:
    """Return the command that labels a pool in the folder."""

    def command(folder: Path) -> Command:
        where = ("-i", images, "-o", folder, "-m", model)
        return ("semi_nnunet", "pseudo-label", *where, "--device", "cpu", "--threads", "1")

    return command


# ---- running and killing ----


def play(scenario: Scenario, kills: int, moments: random.Random, root: Path) -> list[str]:
    """Spend the kills of a scenario; print and return the losses."""
    whole, killed = root / f"{scenario.name}_whole", root / f"{scenario.name}_killed"
    started = time.monotonic()
    run_to_end(scenario.command(whole), whole)
    seconds = time.monotonic() - started
    lost, met, ended, under_way = [], 0, 0, False
    while met < kills or under_way:
        last, under_way = met >= kills, False
        process = start(scenario.command(killed), killed)
        with suppress(subprocess.TimeoutExpired):
            process.wait(None if last else moments.uniform(0, seconds))
        if process.returncode is None:
            met, under_way = met + 1, True
            end(process)
        elif process.returncode:
            lost.append(f"exit code {process.returncode} after {met} kills")
            shutil.rmtree(killed, ignore_errors=True)
        else:
            ended += 1
            lost += [f"after {met} kills: {what}" for what in scenario.lost(whole, killed)]
            shutil.rmtree(killed)  # the next run begins anew
    outcome = "; ".join(lost) or "nothing lost"
    print(f"{scenario.name}: {met} kills, {ended} runs ended, {outcome}", flush=True)
    return lost


def run_to_end(words: Command, results: Path) -> None:
    """Run a command that must succeed."""
    process = start(words, results, keep=True)
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{typed(words)} failed:\n{said[-3000:]}")


def start(words: Command, results: Path, keep: bool = False) -> subprocess.Popen[str]:
    """A command in a process group of its own.

    Args:
        words: as they are typed.
        results: where trainings go.
        keep: what it says can be read.
    """
    return subprocess.Popen(
        build_child_arguments(words),
        stdout=subprocess.PIPE if keep else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        env={**os.environ, "nnUNet_results": str(results)},
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the process and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---- comparing ----


def unlike_trainings(trainer: str, whole: Path, other: Path) -> list[str]:
    """Return the tensors of the final checkpoints that differ, and whether the histories differ."""
    one, two = (final_checkpoint(folder, trainer) for folder in (whole, other))
    differ = sorted(unlike(one, two, ""))
    rows = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in history]
        for history in (one["semi"]["history"], two["semi"]["history"])
    ]
    return [*differ[:3], *(["history"] if rows[0] != rows[1] else [])]


def final_checkpoint(folder: Path, trainer: str) -> dict[str, Any]:
    """Return the final checkpoint of a trainer's only fold."""
    path = next(folder.glob(f"*/{trainer}__*/fold_0/checkpoint_final.pth"))
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def unlike(one: Any, two: Any, where: str) -> Iterator[str]:
    """Return the keys of tensors that differ in two checkpoints."""
    if isinstance(one, torch.Tensor):
        if not (isinstance(two, torch.Tensor) and torch.equal(one, two)):
            yield where
    elif isinstance(one, dict):
        for key, value in one.items():
            yield from unlike(value, two.get(key), f"{where}/{key}")


def unlike_pools(whole: Path, other: Path) -> list[str]:
    """Return labels that differ, and cases that are not listed once."""
    one, two = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in labels_in(folder)}
        for folder in (whole, other)
    )
    differ = [f"label {name}" for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    with open(other / "uncertainty.csv", encoding="utf-8") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    expected = {name.split(".")[0] for name in one}
    if sorted(cases) != sorted(expected):
        differ.append(f"cases {cases} instead of {sorted(expected)}")
    return differ


def labels_in(folder: Path) -> list[Path]:
    """Return the written labels."""
    return sorted((folder / "labels").glob("*.nii.gz"))


if __name__ == "__main__":
    main()
