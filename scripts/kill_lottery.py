"""Kill trainings and other long commands at random moments, continue, and compare.

    python scripts/kill_lottery.py [--kills 40] [--seed 0] [--only NAME ...]

Works on a phantom in a temporary folder, on the CPU. Each scenario runs once without a kill. Then
it runs until its share of the kills is spent: SIGKILL to the whole process group at a seeded moment
of the run, then the same command again. When a run ends before its kill, it is compared and starts
from the beginning. Of trainings, every tensor of the final checkpoint (student, companions,
deployed network) and the history must be bit-identical; of pools, every file must have the same
bytes, and each case must be listed once; of auto, distil, pseudo-dataset, package and report,
weights, plans, labels, predictions and pages must be equal. Prints a line for each scenario; exits
with 1 if anything was lost.
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
from typing import IO, Any

import psutil
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
AUTO = """
import sys
from semi_nnunet.automatic import run
from semi_nnunet.automatic.schedule import TrainingRate
from semi_nnunet.cli.main import main
# neither the length nor that of the baseline, which trains for the same time, depends on the speed
run.MOST_STEPS = 50  # an epoch
rate = TrainingRate(1, 1, 1)
run.measure_rates_locally = lambda _, trainers, *others: dict.fromkeys(trainers, rate)
sys.exit(main(sys.argv[1:]))
"""
PACKAGE = """
import sys
from semi_nnunet.challenge import packaging
from semi_nnunet.cli.main import main
packaging.find_needed_packages = lambda *_: {"numpy": "2.0", "torch": "2.1+cpu"}
sys.exit(main(sys.argv[1:]))
"""
PATIENCE_S = 120  # of children that save before they end
IS_DONE = "exists already"  # a kill after the last step: the command does not overwrite its result


@dataclass(frozen=True)
class Scenario:
    """What is killed.

    Args:
        name: for people.
        command: folder of the outcome -> the words of the command, which continues by itself.
        lost: (folder of the run without a kill, folder of the other) -> what differs.
        own: of nnU-Net's folders, those that lie in the folder of the outcome; by default it is
            the folder of results.
    """

    name: str
    command: Callable[[Path], Command]
    lost: Callable[[Path, Path], list[str]]
    own: tuple[str, ...] = ()

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the environment variables of a run."""
        if not self.own:
            return {"nnUNet_results": str(folder)}
        return {f"nnUNet_{name}": str(folder / name) for name in self.own}


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
        scenarios = [
            scenario
            for scenario in made_scenarios(Path(root), args.only)
            if not args.only or scenario.name in args.only
        ]
        shares = [len(range(n, args.kills, len(scenarios))) for n in range(len(scenarios))]
        results = [
            play(scenario, share, moments_of(args.seed, scenario), Path(root))
            for scenario, share in zip(scenarios, shares, strict=True)
        ]
    lost = sum(len(one) for one in results)
    print(f"{sum(shares)} kills, {lost} losses, seed {args.seed}")
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
    write_phantom_dataset(raw, labelled=4, unlabelled=6, test=3, shape=(12, 32, 32))
    preprocess = ("semi_nnunet", "preprocess", "-d", DATASET, "-c", "2d", "-np", "1")
    plan = ("semi_nnunet", "plan", "-d", DATASET, "-c", "2d", "--budget", "cpu", "--new-plans")
    run_to_end(preprocess)
    run_to_end((*plan, PLANS, "--set", *SETTINGS))


def made_scenarios(root: Path, only: list[str] | None) -> Iterator[Scenario]:
    """Yield trainings with a teacher, two students, branches, and models; then other commands.

    Distillations, pools, packages and reports need the model of the first training.
    """
    names = ("SemiMeanTeacherTrainer", "SemiCPSTrainer", "SemiDiffusionTrainer",
             "SemiDistillationTrainer")  # fmt: skip
    models, wheels = root / "models", root / "wheels"
    if not only or {*only} - {*names[:3], "auto"}:
        run_to_end(training(names[0])(models), nnUNet_results=str(models))
    for name in names:
        yield Scenario(name, training(name, models), partial(unlike_trainings, name))
    model = models / f"Dataset{DATASET}_Phantom" / f"{names[0]}__{PLANS}__2d" / "fold_0"
    images = root / "raw" / f"Dataset{DATASET}_Phantom" / "imagesUn"
    yield Scenario("pseudo-label", labelling(images, model), unlike_pools)
    own = ("raw", "preprocessed", "results")
    yield Scenario("pseudo-dataset", distilling(root, model), unlike_distilled, own)
    yield Scenario("distil", shrinking(root, models, names[0]), unlike_shrunk, own[1:])
    yield Scenario("auto", choosing(), unlike_exported, own[1:])
    if not only or "report" in only:
        words = ("-d", DATASET, "-p", PLANS, "-c", "2d", "-f", "0", "--device", "cpu")
        trainers = ("-tr", "SemiBaselineTrainer", names[0])
        run_to_end(("semi_nnunet", "crossval", *words, *trainers), nnUNet_results=str(models))
    yield Scenario("report", reporting(models), partial(unlike_files, "*.html"))
    if not only or "package" in only:
        sys.path.append(str(Path(__file__).parents[1]))
        from tests.challenge.conftest import write_pip, write_wheels

        write_wheels({"numpy": "2.0", "torch": "2.1+cpu"}, wheels, {})
        write_pip(wheels)
    yield Scenario("package", packaging(model, wheels), unlike_packages)


def distilling(root: Path, model: Path) -> Callable[[Path], Command]:
    """Return the command that makes a data set of pseudo labels, and trains on it."""

    def command(folder: Path) -> Command:
        for name in ("raw", "preprocessed"):
            if not (folder / name).exists():
                shutil.copytree(root / name, folder / name)
        where = ("-d", DATASET, "--new-id", "902", "-m", model, "--device", "cpu", "-np", "1")
        target = ("--target", "SemiBaselineTrainer", "--target-folds", "0")
        return ("semi_nnunet", "pseudo-dataset", *where, *target)

    return command


def shrinking(root: Path, models: Path, trainer: str) -> Callable[[Path], Command]:
    """Return the command that distils a model into a small network, and compares both."""

    def command(folder: Path) -> Command:
        for name, source in (("preprocessed", root / "preprocessed"), ("results", models)):
            if not (folder / name).exists():
                shutil.copytree(source, folder / name)
        model = f"{DATASET}/{trainer}__{PLANS}__2d"
        where = ("-m", model, "-f", "0", "--device", "cpu")
        return ("semi_nnunet", "distil", *where, "--share", "0.5")

    return command


def choosing() -> Callable[[Path], Command]:
    """Return the command that chooses a method, and exports its model."""

    def command(folder: Path) -> Command:
        words = ("auto", "-d", DATASET, "--hours", "9", "--device", "cpu", "-o", folder / "result")
        return (sys.executable, "-c", AUTO, *words, "-tr", "SemiMeanTeacherTrainer")

    return command


def reporting(results: Path) -> Callable[[Path], Command]:
    """Return the command that writes a report on trained models."""

    def command(folder: Path) -> Command:
        if not folder.exists():
            shutil.copytree(results, folder)
        page = folder / "report.html"
        return ("semi_nnunet", "report", "-d", DATASET, "-p", PLANS, "-o", page)

    return command


def packaging(model: Path, wheels: Path) -> Callable[[Path], Command]:
    """Return the command that packages a model with empty wheels."""

    def command(folder: Path) -> Command:
        folder.mkdir(exist_ok=True)
        words = ("package", "-m", model, "-o", folder / "packed", "--device", "cpu")
        return (sys.executable, "-c", PACKAGE, *words, "--wheels", wheels)

    return command


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
    whole, killed = (root / scenario.name / name for name in ("whole", "killed"))
    whole.parent.mkdir()
    started = time.monotonic()
    run_to_end(scenario.command(whole), **scenario.variables(whole))
    seconds = time.monotonic() - started
    lost, met, ended, under_way = [], 0, 0, False
    while met < kills or under_way:
        last, under_way = met >= kills, False
        log = killed.with_name("log")
        with log.open("w", encoding="utf-8") as output:
            process = start(scenario.command(killed), output, **scenario.variables(killed))
            with suppress(subprocess.TimeoutExpired):
                process.wait(None if last else moments.uniform(0, seconds))
        said = log.read_text(encoding="utf-8", errors="replace")
        if process.returncode is None:
            met, under_way = met + 1, True
            end(process)
        elif process.returncode and IS_DONE not in said:
            lost.append(f"exit code {process.returncode} after {met} kills: {last_lines(said)}")
            shutil.rmtree(killed, ignore_errors=True)
        else:
            ended += 1
            lost += [f"after {met} kills: {what}" for what in scenario.lost(whole, killed)]
            shutil.rmtree(killed)  # the next run begins anew
    outcome = "; ".join(lost) or "nothing lost"
    print(f"{scenario.name}: {met} kills, {ended} runs ended, {outcome}", flush=True)
    return lost


def last_lines(said: str) -> str:
    """Return the end of what a command printed, without the rest of rewritten lines."""
    lines = [" ".join(line.split()) for line in said.replace("\r", "\n").splitlines()]
    return " | ".join([line for line in lines if line][-8:])


def run_to_end(words: Command, **variables: str) -> None:
    """Run a command that must succeed."""
    process = start(words, subprocess.PIPE, **variables)
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{typed(words)} failed:\n{said[-3000:]}")


def start(words: Command, output: IO[str] | int, **variables: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own.

    Args:
        words: as they are typed.
        output: where it prints to.
        variables: of its environment.
    """
    is_python = words[0] == sys.executable
    return subprocess.Popen(
        [*map(str, words)] if is_python else build_child_arguments(words),
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables},
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the process group; trainings in groups of their own save, and end then."""
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=PATIENCE_S)


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


def unlike_files(pattern: str, whole: Path, other: Path) -> list[str]:
    """Return the files of a pattern that are missing, new or of other bytes."""
    one, two = (
        {
            path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob(pattern)
            if path.is_file()
        }
        for folder in (whole, other)
    )
    names = sorted(one.keys() | two.keys())
    return [f"{name}" for name in names if one.get(name) != two.get(name)]


def unlike_distilled(whole: Path, other: Path) -> list[str]:
    """Return what differs in the data set of pseudo labels, and in the training on it."""
    differ = unlike_files("raw/Dataset902*/*/*", whole, other)
    trainings = unlike_trainings("SemiBaselineTrainer", whole / "results", other / "results")
    return differ + trainings


def unlike_shrunk(whole: Path, other: Path) -> list[str]:
    """Return what differs in the plans of the small network, its training and its predictions."""
    differ = unlike_files("preprocessed/*/*_slim.json", whole, other)
    differ += unlike_files(
        "results/*/SemiDistillationTrainer__*/fold_0/validation/*.nii.gz", whole, other
    )
    trainings = unlike_trainings("SemiDistillationTrainer", whole / "results", other / "results")
    return differ + trainings


def unlike_exported(whole: Path, other: Path) -> list[str]:
    """Return what differs in the exported model, its predictions, and the answer."""
    answers = [(folder / "result" / "README.md").read_text("utf-8") for folder in (whole, other)]
    differ = [] if len({text.splitlines()[2] for text in answers}) == 1 else ["the answer"]
    differ += unlike_files("result/predictions/*", whole, other)
    one, two = (
        {path.relative_to(folder): path for path in folder.glob("result/exported/**/*.pth")}
        for folder in (whole, other)
    )
    if one.keys() != two.keys():
        return [*differ, f"the models {sorted(map(str, one.keys() ^ two.keys()))}"]
    for name in one:
        first, second = (
            torch.load(paths[name], weights_only=True)["network_weights"] for paths in (one, two)
        )
        differ += unlike(first, second, where=str(name))
    return differ


def unlike_packages(whole: Path, other: Path) -> list[str]:
    """Return the files that differ, but for wheels, which hold the time."""
    differ = unlike_files("*", whole, other)
    sums = ("wheels/semi_nnunet-", "requirements.txt")
    return [name for name in differ if not any(word in name for word in sums)]


def labels_in(folder: Path) -> list[Path]:
    """Return the written labels."""
    return sorted((folder / "labels").glob("*.nii.gz"))


if __name__ == "__main__":
    main()
