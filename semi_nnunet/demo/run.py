"""The stages of the demo: data, preprocessing, two trainings, predictions, a table and pictures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from semi_nnunet.datasets.phantom import Shape, write_phantom_dataset
from semi_nnunet.demo.pictures import Comparison, draw_curves, draw_overlays
from semi_nnunet.demo.results import (
    METHODS,
    ORGANS,
    chosen_cases,
    collect,
    conclusion,
    markdown_table,
    readable_seconds,
)
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.runs.commands import ProgressDisplay, ended_like_ctrl_c, run_command
from semi_nnunet.training.history import History
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json, write_text

MARKER = ".semi_nnunet_demo"
DATASET = "Dataset900_Phantom"
PLANS = "nnUNetPlans_cpu"
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NOT_KEPT = (*NNUNET_FOLDERS, "predictions")
KEPT = ("logs", "results.json", "results.md", "curves.png", "overlays.png")
STAGES = 8
MINUTES = 6


@dataclass(frozen=True)
class Size:
    """How much the demo draws and trains; chosen for about six minutes on two CPU cores."""

    labelled: int = 4
    unlabelled: int = 28
    test: int = 10
    shape: Shape = (16, 48, 48)
    epochs: int = 22
    steps_per_epoch: int = 40
    batch_size: int = 8  # patches of each stream
    seed: int = 0  # of the phantoms


@dataclass
class Demo:
    """One run of the demo.

    Args:
        out: everything is written below it.
        device: cpu, cuda or mps.
        size: of data and training.
    """

    out: Path
    device: str = "cpu"
    size: Size = field(default_factory=Size)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def raw(self) -> Path:
        return self.out / "nnUNet_raw" / DATASET

    def prediction(self, method: str) -> Path:
        return self.out / "predictions" / METHODS[method]

    def model(self, method: str) -> Path:
        folder = self.out / "nnUNet_results" / DATASET
        return folder / f"{METHODS[method]}__{PLANS}__2d" / "fold_all"

    def shown_environment(self) -> dict[str, str]:
        """What a user would export."""
        return {name: str(self.out / name) for name in NNUNET_FOLDERS}

    def environment(self) -> dict[str, str]:
        """Variables of the children; more worker processes would cost more than they bring."""
        return {
            **self.shown_environment(),
            "nnUNet_extTrainer": str(TRAINERS_FOLDER),
            "nnUNet_compile": "f",
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "1",
            "OMP_WAIT_POLICY": "passive",  # on a busy computer, threads that spin block each other
        }

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, time it, say how long it took."""
        print(f"\n[{len(self.seconds) + 1}/{STAGES}] {name}", flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"      done in {readable_seconds(self.seconds[name])}", flush=True)

    def run(self, log: str, *words: str | Path) -> None:
        """Print a command as the user would type it, and run it."""
        print(f"      $ {typed(words)}", flush=True)
        logs = self.out / "logs"
        run_command(words, self.environment(), logs / f"{log}.log", ProgressDisplay())


def run_demo(out: Path, device: str = "cpu", keep: bool = False, size: Size | None = None) -> None:
    """Run all stages.

    Raises:
        UserError: ``out`` holds something else, the device is not there, or a command failed.
    """
    check_device(device)
    demo = Demo(out.resolve(), device, size or Size())
    prepare_folder(demo.out)
    started = time.monotonic()
    print(f"This takes about {MINUTES} minutes on two CPU cores that have nothing else to do.")
    with ended_like_ctrl_c():
        write_data(demo)
        prepare_data(demo)
        for method in METHODS:
            train(demo, method)
        predict(demo)
        evaluate(demo)
        results = report(demo, started)
    print(f"\n{markdown_table(results)}\n\n{conclusion(results)}\n")
    print_closing_lines(demo, keep)
    if not keep:
        remove(demo.out, NOT_KEPT)


# ---- the folder ----


def check_device(device: str) -> None:
    """Refuse a device that is not there before anything is written."""
    mps = getattr(torch.backends, "mps", None)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": bool(mps and mps.is_available()),
    }
    if not there.get(device, False):
        names = ", ".join(name for name, present in there.items() if present)
        raise UserError(f"--device must be one this computer has ({names}), got {device}")


def prepare_folder(out: Path) -> None:
    """Make an empty folder for the demo; what an earlier demo wrote into it is removed.

    Raises:
        UserError: it is not a folder, cannot be written, or holds something that no demo wrote.
    """
    fix = "Fix: choose another folder with --out"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} must be a folder, it is a file. {fix}")
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
            raise UserError(
                f"{out} must be new, empty or an earlier demo's, it holds other files. {fix}"
            )
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text("written by semi_nnunet demo; running it again replaces it\n")
        remove(out, (*NOT_KEPT, *KEPT))
        (out / "logs").mkdir()
    except OSError as error:
        raise UserError(f"cannot write into {out} ({error}). {fix}") from error


def remove(out: Path, names: Sequence[str]) -> None:
    """Delete these files and folders of the demo's, nothing else."""
    for name in names:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


# ---- the stages ----


def write_data(demo: Demo) -> None:
    size = demo.size
    counts = f"{size.labelled} labelled, {size.unlabelled} unlabelled, {size.test} test cases"
    with demo.stage(f"drawing phantom images: {counts}"):
        write_phantom_dataset(
            demo.raw, size.labelled, size.unlabelled, size.test, size.shape, seed=size.seed
        )
        print(f"      in {typed([demo.raw])}: imagesTr, labelsTr, imagesUn, imagesTs, labelsTs")


def prepare_data(demo: Demo) -> None:
    with demo.stage("verifying and preprocessing labelled and unlabelled images"):
        for name in demo.shown_environment():
            print(f"      $ export {name}={typed([demo.out / name])}")
        print('      $ export nnUNet_extTrainer="$(semi_nnunet register --print)"')
        words = "semi_nnunet preprocess -d 900 -c 2d -np 2"
        demo.run("preprocess", *words.split())
    with demo.stage("planning a network and a training that fit the demo"):
        words = (
            f"semi_nnunet plan -d 900 -c 2d --budget cpu --set {' '.join(assignments(demo.size))}"
        )
        demo.run("plan", *words.split())


def assignments(size: Size) -> list[str]:
    """The settings that the demo gives."""
    return [
        f"epochs={size.epochs}",
        f"steps_per_epoch={size.steps_per_epoch}",
        f"labelled_batch_size={size.batch_size}",
        f"unlabelled_batch_size={size.batch_size}",
    ]


def train(demo: Demo, method: str) -> None:
    images = {
        "baseline": f"the {demo.size.labelled} labelled cases alone",
        "Mean Teacher": f"the same and the {demo.size.unlabelled} unlabelled cases",
    }
    article = "the " if method == "baseline" else ""
    with demo.stage(f"training {article}{method} on {images[method]}"):
        words = f"nnUNetv2_train 900 2d all -tr {METHODS[method]} -p {PLANS} -device {demo.device}"
        demo.run(f"train_{METHODS[method]}", *words.split())


def predict(demo: Demo) -> None:
    with demo.stage(f"predicting the {demo.size.test} test cases with both"):
        for method, trainer in METHODS.items():
            words = predict_words(demo, method, demo.prediction(method))
            demo.run(f"predict_{trainer}", *words)


def predict_words(demo: Demo, method: str, to: str | Path) -> tuple[str | Path, ...]:
    """The command that predicts the test cases; one process each reads and writes."""
    model = f"-d 900 -c 2d -f all -tr {METHODS[method]} -p {PLANS} -device {demo.device}"
    processes = ("-npp", "1", "-nps", "1")
    files = ("-i", demo.raw / "imagesTs", "-o", to)
    return ("nnUNetv2_predict", *model.split(), *processes, *files)


def evaluate(demo: Demo) -> None:
    with demo.stage("comparing the predictions with the reference"):
        for method, trainer in METHODS.items():
            folder = demo.prediction(method)
            words = ("nnUNetv2_evaluate_folder", demo.raw / "labelsTs", folder, "-djfile")
            files = (folder / "dataset.json", "-pfile", folder / "plans.json", "-np", "1")
            demo.run(f"evaluate_{trainer}", *words, *files)


def report(demo: Demo, started: float) -> dict[str, Any]:
    """Write table and pictures; returns what is in results.json."""
    with demo.stage("drawing the pictures and writing the table"):
        summaries = {m: read_json(demo.prediction(m) / "summary.json") for m in METHODS}
        results = collect(summaries)
        write_pictures(demo, results)
    settings = (entry.split("=") for entry in assignments(demo.size))
    results["training"] = {name: int(value) for name, value in settings}
    results["cases"] = {k: getattr(demo.size, k) for k in ("labelled", "unlabelled", "test")}
    results["device"] = demo.device
    results["seconds"] = {**demo.seconds, "total": round(time.monotonic() - started, 1)}
    write_json(demo.out / "results.json", results)
    text = f"# semi_nnunet demo\n\n{markdown_table(results)}\n\n{conclusion(results)}\n"
    write_text(demo.out / "results.md", text)
    return results


# ---- pictures ----


def write_pictures(demo: Demo, results: Mapping[str, Any]) -> None:
    histories = {m: History.read_csv(demo.model(m) / "semi_history.csv") for m in METHODS}
    figures = {"curves.png": draw_curves(histories)}
    comparisons = [read_comparison(demo, results, *row) for row in chosen_cases(results)]
    figures["overlays.png"] = draw_overlays(comparisons, ORGANS)
    for name, figure in figures.items():
        figure.savefig(demo.out / name, dpi=120)


def read_comparison(demo: Demo, results: Mapping[str, Any], title: str, case: str) -> Comparison:
    return Comparison(
        title=f"{title}\n{case}",
        image=read_array(demo.raw / "imagesTs" / f"{case}_0000.nii.gz"),
        reference=read_array(demo.raw / "labelsTs" / f"{case}.nii.gz"),
        predictions={m: read_array(demo.prediction(m) / f"{case}.nii.gz") for m in METHODS},
        dice={method: results["dice_per_case"][method][case] for method in METHODS},
    )


def read_array(file: Path) -> np.ndarray:
    """The voxels of an image, (z, y, x)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


# ---- how to go on ----


def print_closing_lines(demo: Demo, keep: bool) -> None:
    """Where the results are and what to do next."""
    names = ", ".join(KEPT)
    print(f"Written to {typed([demo.out])}{os.sep}: {names}")
    if not keep:
        print("Data and models are removed; semi_nnunet demo --keep leaves them to play with.")
        return
    print("To go on with its data and models:")
    for name, folder in demo.shown_environment().items():
        print(f"  export {name}={typed([folder])}")
    print('  export nnUNet_extTrainer="$(semi_nnunet register --print)"')
    print(f"  {typed(predict_words(demo, 'Mean Teacher', 'my_predictions'))}")
