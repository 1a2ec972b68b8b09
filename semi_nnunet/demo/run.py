"""The demo: data, preprocessing, two trainings, predictions, a table and pictures."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from semi_nnunet.datasets.phantom import FILE_ENDING, Shape, write_phantom_dataset
from semi_nnunet.demo.pictures import PictureRow, draw_curves, draw_overlays, format_gain
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.layout import DATASET_JSON, HISTORY_CSV, PLANS_JSON, SUMMARY_JSON
from semi_nnunet.runs.commands import interrupt_on_signals, run_command
from semi_nnunet.runs.display import ShownProgress
from semi_nnunet.training.history import History
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json, write_text
from semi_nnunet.util.markdown import table
from semi_nnunet.util.verb_commands import build_command

logger = logging.getLogger(__name__)

METHODS = {"baseline": BASELINE, "Mean Teacher": "SemiMeanTeacherTrainer"}
ORGANS = {1: "large", 2: "pair", 3: "small"}
NO_DIFFERENCE = 0.005  # of Dice; the sentence calls less no difference
MARKER = ".semi_nnunet_demo"
DATASET = "Dataset900_Phantom"
PLANS = "nnUNetPlans_cpu"
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NOT_KEPT = (*(f"{folder}/{DATASET}" for folder in NNUNET_FOLDERS), "predictions")
KEPT = ("logs", "results.json", "results.md", "curves.png", "overlays.png")
STAGES = 8
MINUTES = 6


@dataclass(frozen=True)
class DemoSize:
    """Size of data and training, chosen for about six minutes on two CPU cores."""

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
        out: folder for everything that is written.
        device: cpu, cuda or mps.
        size: of data and training.
    """

    out: Path
    device: str = "cpu"
    size: DemoSize = field(default_factory=DemoSize)
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
        """Return the variables that a user would export."""
        return {name: str(self.out / name) for name in NNUNET_FOLDERS}

    def environment(self) -> dict[str, str]:
        """Return the variables of child processes; more workers would cost more than they gain."""
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
        """Announce a stage and time it."""
        logger.info(f"\n[{len(self.seconds) + 1}/{STAGES}] {name}")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        logger.info(f"      done in {format_seconds(self.seconds[name])}")

    def run(self, log: str, *words: str | Path) -> None:
        """Show a command as the user would type it, and run it."""
        logger.info(f"      $ {typed(words)}")
        logs = self.out / "logs"
        run_command(words, self.environment(), logs / f"{log}.log", ShownProgress())


def run_demo(
    out: Path, device: str = "cpu", keep: bool = False, size: DemoSize | None = None
) -> None:
    """Run all stages; ``keep`` keeps data, models and predictions.

    Raises:
        UserError: ``out`` holds other files, the device does not exist, or a command failed.
    """
    require_device(device)
    demo = Demo(out.resolve(), device, size or DemoSize())
    prepare_demo_folder(demo.out)
    started = time.monotonic()
    logger.info(f"This takes about {MINUTES} minutes on two CPU cores without other work.")
    with interrupt_on_signals():
        draw_phantoms(demo)
        preprocess_and_plan(demo)
        for method in METHODS:
            train_method(demo, method)
        predict_demo_cases(demo)
        evaluate_methods(demo)
        results = write_results(demo, started)
    logger.info(f"\n{format_table(results)}\n\n{write_conclusion(results)}\n")
    show_closing_lines(demo, keep)
    if not keep:
        remove_entries(demo.out, NOT_KEPT)


# ---- the folder ----


def require_device(device: str) -> None:
    """Raise if the computer lacks the device."""
    mps = getattr(torch.backends, "mps", None)
    exists = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": bool(mps and mps.is_available()),
    }
    if not exists.get(device, False):
        names = ", ".join(name for name, present in exists.items() if present)
        raise UserError(f"--device {device} does not exist here", fix=f"choose from {names}")


def prepare_demo_folder(out: Path) -> None:
    """Make an empty folder for the demo, and remove the results of an earlier demo in it.

    Raises:
        UserError: it is not a folder, is not writable, or holds files that no demo wrote.
    """
    fix = "choose another folder with -o"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} must be a folder, but it is a file", fix=fix)
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
            raise UserError(f"{out} holds files that no demo wrote", fix=fix)
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text("written by semi_nnunet demo; running it again replaces it\n")
        remove_entries(out, (*NOT_KEPT, *KEPT))
        (out / "logs").mkdir()
    except OSError as error:
        raise UserError(f"cannot write into {out} ({error})", fix=fix) from error


def remove_entries(out: Path, names: Sequence[str]) -> None:
    """Delete these files and folders of the demo, nothing else, and folders that are empty then.

    A user may have worked on in nnU-Net's three folders of the demo.
    """
    for name in names:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent != out:
            with suppress(OSError):  # it does not exist, or is not empty
                path.parent.rmdir()


# ---- the stages ----


def draw_phantoms(demo: Demo) -> None:
    size = demo.size
    counts = f"{size.labelled} labelled, {size.unlabelled} unlabelled, {size.test} test cases"
    with demo.stage(f"drawing phantom images: {counts}"):
        write_phantom_dataset(
            demo.raw, size.labelled, size.unlabelled, size.test, size.shape, seed=size.seed
        )
        folders = "imagesTr, labelsTr, imagesUn, imagesTs, labelsTs"
        logger.info(f"      in {typed([demo.raw])}: {folders}")


def preprocess_and_plan(demo: Demo) -> None:
    with demo.stage("verifying and preprocessing labelled and unlabelled images"):
        for name in demo.shown_environment():
            logger.info(f"      $ export {name}={typed([demo.out / name])}")
        words = build_command("preprocess", dataset="900", configurations=["2d"], processes=2)
        demo.run("preprocess", *words)
    with demo.stage("planning a network and a training that fit the demo"):
        settings = format_demo_settings(demo.size)
        plan = {"configurations": ["2d"], "budget": "cpu", "settings": settings}
        demo.run("plan", *build_command("plan", dataset="900", **plan))


def format_demo_settings(size: DemoSize) -> list[str]:
    """Return the settings of the demo for ``semi_nnunet plan --set``."""
    return [
        f"epochs={size.epochs}",
        f"steps_per_epoch={size.steps_per_epoch}",
        f"labelled_batch_size={size.batch_size}",
        f"unlabelled_batch_size={size.batch_size}",
    ]


def train_method(demo: Demo, method: str) -> None:
    images = {
        "baseline": f"only the {demo.size.labelled} labelled cases",
        "Mean Teacher": f"the same and the {demo.size.unlabelled} unlabelled cases",
    }
    article = "the " if method == "baseline" else ""
    with demo.stage(f"training {article}{method} on {images[method]}"):
        words = f"nnUNetv2_train 900 2d all -tr {METHODS[method]} -p {PLANS} -device {demo.device}"
        demo.run(f"train_{METHODS[method]}", *words.split())


def predict_demo_cases(demo: Demo) -> None:
    with demo.stage(f"predicting the {demo.size.test} test cases with both"):
        for method, trainer in METHODS.items():
            words = build_predict_command(demo, method, demo.prediction(method))
            demo.run(f"predict_{trainer}", *words)


def build_predict_command(demo: Demo, method: str, to: str | Path) -> tuple[str | Path, ...]:
    """Return the command that predicts the test cases; one process reads, one writes."""
    model = f"-d 900 -c 2d -f all -tr {METHODS[method]} -p {PLANS} -device {demo.device}"
    processes = ("-npp", "1", "-nps", "1")
    files = ("-i", demo.raw / "imagesTs", "-o", to)
    return ("nnUNetv2_predict", *model.split(), *processes, *files)


def evaluate_methods(demo: Demo) -> None:
    with demo.stage("comparing the predictions with the reference"):
        for method, trainer in METHODS.items():
            folder = demo.prediction(method)
            words = ("nnUNetv2_evaluate_folder", demo.raw / "labelsTs", folder, "-djfile")
            files = (folder / DATASET_JSON, "-pfile", folder / PLANS_JSON, "-np", "1")
            demo.run(f"evaluate_{trainer}", *words, *files)


def write_results(demo: Demo, started: float) -> dict[str, Any]:
    """Write the table and the pictures, and return the content of results.json."""
    with demo.stage("drawing the pictures and writing the table"):
        summaries = {m: read_json(demo.prediction(m) / SUMMARY_JSON) for m in METHODS}
        results = collect_results(summaries)
        save_pictures(demo, results)
    settings = (entry.split("=") for entry in format_demo_settings(demo.size))
    results["training"] = {name: int(value) for name, value in settings}
    results["cases"] = {k: getattr(demo.size, k) for k in ("labelled", "unlabelled", "test")}
    results["device"] = demo.device
    results["seconds"] = {**demo.seconds, "total": round(time.monotonic() - started, 1)}
    write_json(demo.out / "results.json", results)
    text = f"# semi_nnunet demo\n\n{format_table(results)}\n\n{write_conclusion(results)}\n"
    write_text(demo.out / "results.md", text)
    return results


# ---- pictures ----


def save_pictures(demo: Demo, results: Mapping[str, Any]) -> None:
    histories = {m: History.read_csv(demo.model(m) / HISTORY_CSV) for m in METHODS}
    rows = [read_picture_row(demo, results, *case) for case in choose_cases(results)]
    figures = {"curves.png": draw_curves(histories), "overlays.png": draw_overlays(rows, ORGANS)}
    for name, figure in figures.items():
        figure.savefig(demo.out / name, dpi=120)


def read_picture_row(demo: Demo, results: Mapping[str, Any], title: str, case: str) -> PictureRow:
    return PictureRow(
        title=f"{title}\n{case}",
        image=read_array(Path(find_cases(demo.raw / "imagesTs", FILE_ENDING)[case][0])),
        reference=read_array(demo.raw / "labelsTs" / f"{case}{FILE_ENDING}"),
        predictions={m: read_array(demo.prediction(m) / f"{case}{FILE_ENDING}") for m in METHODS},
        dice={method: results["dice_per_case"][method][case] for method in METHODS},
    )


def read_array(file: Path) -> np.ndarray:
    """Read the voxels of an image, (z, y, x)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


# ---- numbers and words ----


def collect_results(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return Dice by organ, mean and case of each method, and the gain of the second method.

    Args:
        summaries: {method: content of nnU-Net's summary.json}; the baseline first.
    """
    dice: dict[str, dict[str, float]] = {}
    per_case: dict[str, dict[str, float]] = {}
    for method, summary in summaries.items():
        dice[method] = {name: summary["mean"][str(label)]["Dice"] for label, name in ORGANS.items()}
        dice[method]["mean"] = float(np.mean(list(dice[method].values())))
        per_case[method] = {
            Path(case["reference_file"]).name.removesuffix(FILE_ENDING): float(
                np.nanmean([organ["Dice"] for organ in case["metrics"].values()])
            )
            for case in summary["metric_per_case"]
        }
    first, second = dice.values()
    gain = {name: second[name] - first[name] for name in first}
    return {"dice": dice, "gain": gain, "dice_per_case": per_case}


def format_table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table with the Dice of each organ and method."""
    methods = list(results["dice"])
    rows = [("Dice on the test cases", *methods, "gain")]
    for name in results["gain"]:
        gain = format_gain(compute_shown_gain(results["dice"], name))
        organ = name if name == "mean" else f"organ: {name}"
        rows.append((organ, *(f"{results['dice'][m][name]:.3f}" for m in methods), gain))
    return table(rows, numbers=True)


def compute_shown_gain(dice: Mapping[str, Mapping[str, float]], name: str) -> float:
    """Return the gain between the rounded numbers of the table."""
    first, second = (round(values[name], 3) for values in dice.values())
    return second - first


def write_conclusion(results: Mapping[str, Any]) -> str:
    """Return the sentences below the table, for a gain, a loss or neither."""
    baseline, teacher = (results["dice"][method]["mean"] for method in METHODS)
    gain, count = compute_shown_gain(results["dice"], "mean"), results["cases"]
    cases = results["dice_per_case"]
    better = sum(cases["Mean Teacher"][c] > d for c, d in cases["baseline"].items())
    change = f"from {baseline:.3f} to {teacher:.3f} ({format_gain(gain)})"
    images = f"{count['unlabelled']} unlabelled images"
    if abs(gain) < NO_DIFFERENCE:
        outcome = f"{images} made next to no difference: the mean Dice went {change}"
    elif gain > 0:
        outcome = f"{images} raised the mean Dice {change}"
    else:
        outcome = (
            f"{images} did not help this time: the mean Dice fell {change}. Trainings this short "
            "depend on chance; the gain differs from computer to computer"
        )
    seconds = format_seconds(results["seconds"]["total"])
    return (
        f"{outcome}.\nMean Teacher is better on {better} of {count['test']} test cases. "
        f"The demo took {seconds}.\nBoth trainings saw the same {count['labelled']} labelled "
        "cases equally often, with the same network. It is one short training of each method, not "
        "a benchmark."
    )


def format_seconds(seconds: float) -> str:
    """Return a duration such as "5 min 31 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def choose_cases(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (title, case) of the worst, the median and the best gain, each case once."""
    baseline, teacher = (results["dice_per_case"][method] for method in METHODS)
    by_gain = sorted(baseline, key=lambda case: teacher[case] - baseline[case])
    ranks = {"worst gain": 0, "median gain": len(by_gain) // 2, "best gain": len(by_gain) - 1}
    return list({by_gain[rank]: (title, by_gain[rank]) for title, rank in ranks.items()}.values())


def show_closing_lines(demo: Demo, keep: bool) -> None:
    """Show where the results are and how to continue."""
    logger.info(f"Written to {typed([demo.out])}{os.sep}: {', '.join(KEPT)}")
    if not keep:
        logger.info("Data and models are removed; semi_nnunet demo --keep-all keeps them.")
        return
    logger.info("To continue with its data and models:")
    for name, folder in demo.shown_environment().items():
        logger.info(f"  export {name}={typed([folder])}")
    logger.info(f"  {typed(build_predict_command(demo, 'Mean Teacher', 'my_predictions'))}")
