"""A phantom with every kind of file that the commands write, and a table of these kinds."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import psutil
import pytest

from semi_nnunet.automatic.state import AutoState
from semi_nnunet.challenge import packaging
from semi_nnunet.challenge.entry import load_submission_model, read_submission
from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.reporting.choice import MethodChoice
from semi_nnunet.training.checkpoints import read_newest_valid
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.files import sha256_of_file
from semi_nnunet.workflows import crossval as workflow
from tests.challenge.conftest import write_pip, write_wheels
from tests.conftest import no_processes

NAME, PLANS, TRAINERS = "Dataset901_Phantom", "nnUNetPlans_tiny", ("SemiBaseline", "SemiCPS")
SETTINGS = (
    "epochs=3", "steps_per_epoch=1", "validation_steps_per_epoch=1", "save_every_epochs=1",
    "2d.labelled_batch_size=2", "2d.unlabelled_batch_size=2", "unlabelled_start_steps=0",
    "unlabelled_foreground_oversampling=0.33", "SemiCPSTrainer.filter_epochs=[2]",
    "SemiCPSTrainer.filter_keep=3", "SemiCPSTrainer.locate_epochs=[1]",
)  # fmt: skip
WHICH = ("-d", "901", "-p", PLANS)
CPU = ("--device", "cpu")
COPY = "import pathlib, shutil, sys; i, o = map(pathlib.Path, sys.argv[1:]); [shutil.copy(f, o / f.name.replace('_0000', '')) for f in i.iterdir()]"  # noqa: E501
WAS_DONE = "it would be done again, and is left out until then"
STALE = "before a change of"  # what a page says about measures that it leaves out


@dataclass
class Workplace:
    """nnU-Net's folders with a phantom data set, and the outputs of all commands next to them.

    Args:
        root: of everything.
        capture: pytest's capture of what commands print.
        patch: of the environment.
    """

    root: Path
    capture: Any
    patch: pytest.MonkeyPatch
    said: str = field(default="", init=False)

    def set_paths(self) -> None:
        """Point nnU-Net's variables to this place, and work in it."""
        for name in ("raw", "preprocessed", "results"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            self.patch.setenv(f"nnUNet_{name}", str(self.root / name))
        self.patch.setenv("nnUNet_extTrainer", trainer_folders())
        self.patch.chdir(self.root)

    def run(self, *words: Any) -> int:
        """Run a verb as typed; return its exit code."""
        with no_processes():
            code = main([*map(str, words)])
        captured = self.capture.readouterr()
        self.said = captured.out + captured.err
        return code

    def require(self, *words: Any) -> None:
        """Run a verb that must succeed.

        Raises:
            RefusedError: it refuses.
        """
        if self.run(*words) != 0:
            raise RefusedError(self.said)

    def model(self, trainer: str = TRAINERS[1]) -> Path:
        """Return the folder of a trained model."""
        return self.root / "results" / NAME / f"{trainer}Trainer__{PLANS}__2d"

    def digest(self, folder: str, *patterns: str) -> dict[str, str]:
        """Return path -> checksum of the files of a folder."""
        files = (path for pattern in patterns for path in (self.root / folder).rglob(pattern))
        return {
            str(path.relative_to(self.root)): sha256_of_file(path)
            for path in sorted(files)
            if path.is_file()
        }


class RefusedError(Exception):
    """A verb ended with a message."""


# ---- readers: each does what a user would, and returns the result ----


def preprocess(place: Workplace) -> Any:
    place.require("preprocess", *WHICH, "-c", "2d", "-np", 1)
    return place.digest(f"preprocessed/{NAME}/{PLANS.removesuffix('_tiny')}_2d", "*"), place.digest(
        f"preprocessed/{NAME}/nnUNetPlans_2d_unlabeled", "*"
    )


def train(place: Workplace) -> Any:
    """Start a training up to its first batch."""
    found: list[Any] = []

    def first_batch(trainer: Any) -> None:
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        batch, _ = next(trainer.dataloader_train), trainer.on_train_end
        sums = [float(part["data"].double().sum()) for part in batch[0].values()]
        found.append((trainer.current_cases(), sums))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(place.root / "scratch"))
        patch.setattr(SemiTrainer, "run_training", first_batch)
        patch.setattr(SemiTrainer, "perform_actual_validation", lambda self, keep=False: None)
        patch.setattr(SemiTrainer, "plot_network_architecture", lambda self: None)
        try:
            words = ("901", "2d", "0", "-tr", "SemiMeanTeacherTrainer", "-p", PLANS)
            place.require("train", *words, "-device", "cpu")
        finally:
            shutil.rmtree(place.root / "scratch", ignore_errors=True)
    return found


def compare(place: Workplace) -> Any:
    written = place.root / "again.csv"
    place.require("compare", *WHICH, "-o", "again.md", "--write-values", written)
    if STALE in place.said:
        return WAS_DONE
    return written.read_bytes(), (place.root / "again.md").read_bytes()


def compare_values(place: Workplace) -> Any:
    place.require("compare", "--values", "values.csv", "-o", "again.md")
    return (place.root / "again.md").read_bytes()


def report(place: Workplace) -> Any:
    options = ("--choice", "choice.json", "--efficiency", "measured")
    place.require("report", *WHICH, *options, "-o", "again.html")
    page = (place.root / "again.html").read_text(encoding="utf-8")
    is_named = STALE in page or "splits_final.json" in page  # a note next to the tables
    return WAS_DONE if is_named else page


def status(place: Workplace) -> Any:
    place.require("status", *WHICH)
    return place.said


def crossval(place: Workplace) -> Any:
    """Return whether every job is done, without doing what is not."""
    trainers = [f"{name}Trainer" for name in TRAINERS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "run_work", lambda launcher, work: True)
        place.require("crossval", *WHICH, "-c", "2d", "-f", 0, "-tr", *trainers, *CPU, "--npz")
    return "2 done before" in place.said or WAS_DONE


def export(place: Workplace) -> Any:
    shutil.rmtree(place.root / "again", ignore_errors=True)
    place.require("export", *WHICH, "-c", "2d", "-tr", f"{TRAINERS[1]}Trainer", "-o", "again")
    return place.digest("again", "*.pth", "*.json", "*.csv")


def predict(place: Workplace) -> Any:
    shutil.rmtree(place.root / "again", ignore_errors=True)
    images = place.root / "raw" / NAME / "imagesTs"
    place.require("predict", "-m", place.model(), "-i", images, "-o", "again", *CPU)
    return place.digest("again", "*.nii.gz")


def predict_again(place: Workplace) -> Any:
    images = place.root / "raw" / NAME / "imagesTs"
    place.require("predict", "-m", place.model(), "-i", images, "-o", "predicted", *CPU)
    return place.digest("predicted", "*.nii.gz")


def evaluate(place: Workplace) -> Any:
    labels = place.root / "raw" / NAME / "labelsTs"
    place.require("evaluate", "-i", "predicted", "-r", labels, "-np", 1)
    return place.digest("predicted", "metrics.*", "summary.json")


def label(place: Workplace) -> Any:
    images = place.root / "raw" / NAME / "imagesUn"
    place.require("pseudo-label", "-i", images, "-o", "labelled", "-m", place.model(), *CPU)
    return place.digest("labelled", "*.nii.gz", "uncertainty.csv")


def select(place: Workplace) -> Any:
    place.require("select", "-d", 901, "-m", place.model(), "--keep", 3, *CPU)
    return place.digest(f"preprocessed/{NAME}", "semi_selected.json", "*.nii.gz", "uncertainty.csv")


def distil(place: Workplace) -> Any:
    place.require("pseudo-dataset", "-d", 901, "--new-id", 902, "-m", place.model(), *CPU, "-np", 1)
    return place.digest("raw/Dataset902_PhantomDistilled", "*")


def preprocess_distilled(place: Workplace) -> Any:
    place.require("preprocess", "-d", 902, "-c", "2d", "-np", 1)
    return place.digest("preprocessed/Dataset902_PhantomDistilled", "splits_final.json", "*.b2nd")


def split(place: Workplace) -> Any:
    place.require("split", "-d", 901, "--new-id", 903, "--labelled", 2)
    return place.digest("raw/Dataset903_Phantom2labelled", "*")


def benchmark(place: Workplace) -> Any:
    place.require("benchmark", *WHICH, "-c", "2d", "-tr", "SemiBaselineTrainer", *CPU, "--quick")
    lines = [line for line in place.said.splitlines() if line.startswith("| Semi")]
    return [line.split("|")[1] for line in lines]  # seconds differ if it measures again


def auto(place: Workplace) -> Any:
    place.require("auto", "-d", 901, "--hours", 3, "-tr", "SemiCPSTrainer", *CPU, "--dry-run")
    return place.said


def ensemble(place: Workplace) -> Any:
    place.require("ensemble", *WHICH, "-c", "2d", "-f", 0, "-o", "averaged", "-np", 1)
    return place.digest("averaged", "*.nii.gz", "members.json")


def efficiency(place: Workplace) -> Any:
    command = f'{sys.executable} -c "{COPY}" {{inputs}} {{outputs}}'
    data = place.root / "raw" / NAME
    words = ("-i", data / "imagesTs", "-o", "measured", "--command", command)
    with pytest.MonkeyPatch.context() as patch:  # this machine may be busy
        patch.setattr(psutil, "cpu_percent", lambda interval: 0.0)
        place.require("efficiency", *words)
    return place.digest("measured/outputs", "*.nii.gz")


def install(place: Workplace) -> Any:
    (archive,) = (place.root / "exported").glob("*.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(place.root / "scratch"))
        try:
            place.require("install", archive)
            return place.digest("scratch", "*.pth", "*.json")
        finally:
            shutil.rmtree(place.root / "scratch", ignore_errors=True)


def submission(place: Workplace) -> Any:
    from semi_nnunet.util.errors import UserError

    root = place.root / "packed"
    try:
        content = read_submission(root)
        network = load_submission_model(root, content, "cpu").loaded.network
    except UserError as error:
        raise RefusedError(str(error)) from error
    weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    return content, hashlib.sha256(weights).hexdigest()


def resume(place: Workplace) -> Any:
    """Read the checkpoint to continue from; another one of the same network may stand in."""
    folder = place.model() / "fold_0"
    content, *_ = read_newest_valid(folder / "checkpoint_latest.pth", "cpu")
    return sorted(content["network_weights"])


@dataclass(frozen=True)
class FileKind:
    """Files of one kind.

    Args:
        pattern: of their paths below the root.
        writer: the command, or nnU-Net or the user.
        readers: what reads them; none: they are for people, or for other programs.
        notices: whether a change of any byte is noticed.
    """

    pattern: str
    writer: str
    readers: tuple[Callable[[Workplace], Any], ...] = ()
    notices: bool = False

    def matches(self, path: str) -> bool:
        return fnmatchcase(path, self.pattern)


MODEL = f"results/{NAME}/SemiCPSTrainer__*"
DATA = f"preprocessed/{NAME}"
KINDS = (
    # raw data sets
    FileKind("raw/*/imagesTr/*.nii.gz", "the user", (preprocess,), notices=True),
    FileKind("raw/*/imagesUn/*.nii.gz", "the user", (preprocess,), notices=True),
    FileKind("raw/*/imagesTs/*.nii.gz", "the user", (preprocess, predict), notices=True),
    FileKind("raw/*/labelsT[rs]/*.nii.gz", "the user", (preprocess,), notices=True),
    FileKind("raw/*/dataset.json", "the user or convert", (preprocess, split)),
    FileKind("raw/*/distil.json", "pseudo-dataset", (distil,)),
    FileKind("raw/*/split.json", "split", (split,)),
    FileKind("raw/*/split_from.json", "split", (split,)),
    FileKind("raw/*/conversion.json", "convert"),
    FileKind("raw/*/conversion_from.json", "convert"),
    FileKind("raw/*/labelled_subsets.json", "convert"),
    FileKind("raw/hidden_labels_*", "split"),
    FileKind("raw/pseudo_labels_*", "pseudo-dataset"),
    FileKind("raw/*/annotation_rounds.json", "accept"),
    FileKind("raw/*/.annotation/*/journal.json", "accept"),
    # preprocessed data sets
    FileKind(f"{DATA}/dataset.json", "preprocess", (preprocess, train, compare, status)),
    FileKind(f"{DATA}/dataset_fingerprint.json", "preprocess", (preprocess, report)),
    FileKind(f"{DATA}/nnUNetPlans_tiny.json", "plan", (preprocess, train, report, status)),
    FileKind(f"{DATA}/nnUNetPlans.json", "preprocess", (preprocess,)),
    FileKind(f"{DATA}/nnUNetPlans_*.json", "plan, distil, auto"),
    FileKind(f"{DATA}/splits_final.json", "preprocess", (preprocess, train, crossval, report)),
    FileKind(f"{DATA}/semi_checked.jsonl", "preprocess", (preprocess, crossval)),
    FileKind(f"{DATA}/semi_planned_from.json", "preprocess", (preprocess,)),
    FileKind(f"{DATA}/semi_skipped.json", "preprocess", (preprocess, train)),
    FileKind(f"{DATA}/semi_selected.json", "select", (train, select, report)),
    FileKind(f"{DATA}/*_2d.manifest.jsonl", "preprocess", (preprocess, train)),
    FileKind(f"{DATA}/*_unlabeled.manifest.jsonl", "preprocess", (preprocess, train)),
    FileKind(f"{DATA}/*_2d/*.b2nd", "preprocess", (preprocess,), notices=True),
    FileKind(f"{DATA}/*_2d/*.pkl", "preprocess", (preprocess,), notices=True),
    FileKind(f"{DATA}/*_unlabeled/*.b2nd", "preprocess", (preprocess,), notices=True),
    FileKind(f"{DATA}/*_unlabeled/*.pkl", "preprocess", (preprocess,), notices=True),
    FileKind(f"{DATA}/*_unlabeled/*.*", "preprocess", (train,)),  # compares only the size
    FileKind(f"{DATA}/gt_segmentations/*.nii.gz", "preprocess", (preprocess,), notices=True),
    FileKind(f"{DATA}/domain_check/*", "preprocess"),
    FileKind(f"{DATA}/semi_twins.json", "preprocess, if there are near-twins"),
    FileKind("preprocessed/*/semi_pseudo_labelled.json", "pseudo-dataset", (preprocess_distilled,)),
    FileKind("preprocessed/Dataset902*.*", "the same for pseudo-dataset"),
    # labels of a pool: of pseudo-label, of select and of pseudo-dataset
    FileKind("labelled/request.json", "pseudo-label", (label,)),
    FileKind("labelled/uncertainty.csv", "pseudo-label", (label,)),
    FileKind("labelled/parts/*.jsonl", "pseudo-label", (label,)),
    FileKind("labelled/labels/*.nii.gz", "pseudo-label", (label,), notices=True),
    FileKind("*/parts/*.log", "pseudo-label"),
    FileKind(f"{DATA}/pseudo_labels/*/request.json", "select", (select,)),
    FileKind(f"{DATA}/pseudo_labels/*/uncertainty.csv", "select", (select,)),
    FileKind(f"{DATA}/pseudo_labels/*/parts/*.jsonl", "select", (select,)),
    FileKind(f"{DATA}/pseudo_labels/*/labels/*.nii.gz", "select", (select,), notices=True),
    FileKind("preprocessed/Dataset902*/pseudo_labels/*", "pseudo-dataset"),
    # trainings
    FileKind(f"{MODEL}/dataset.json", "nnU-Net", (export, predict)),
    FileKind(f"{MODEL}/plans.json", "nnU-Net", (export, predict)),
    FileKind(f"{MODEL}/dataset_fingerprint.json", "nnU-Net", (export,)),
    FileKind(f"{MODEL}/semi_mirrors.json", "tune", (predict,)),
    FileKind(f"{MODEL}/fold_0/checkpoint_final.pth", "a training", (export, resume), True),
    FileKind("results/*/checkpoint_latest.pth", "a training", (resume,), True),
    FileKind("results/*/checkpoint_best.pth", "a training", (resume,), True),
    FileKind(f"{MODEL}/fold_0/semi_history.csv", "a training", (report, export)),
    FileKind(f"{MODEL}/fold_0/semi_settings.json", "a training", (crossval, report, compare)),
    FileKind(f"{MODEL}/fold_0/semi_cost.json", "a training", (report,)),
    FileKind(f"{MODEL}/fold_0/filter_epoch_*.csv", "a training", (report,)),
    FileKind("results/*/foreground_epoch_*.npz", "a training"),
    FileKind("results/*/filter_snapshot_*.pth", "a training"),
    FileKind("results/*/*.npz", "nnU-Net, for an ensemble"),
    FileKind("results/*/*.pkl", "nnU-Net, for an ensemble"),
    FileKind("results/*/debug.json", "nnU-Net"),
    FileKind("results/*.png", "a training"),
    FileKind("results/*/training_log_*.txt", "nnU-Net"),
    FileKind("results/*/semi_crossval.log", "crossval"),
    FileKind(f"{MODEL}/validation/*.nii.gz", "nnU-Net", (crossval,), notices=True),
    FileKind(f"{MODEL}/test/*.nii.gz", "nnU-Net", (crossval,), notices=True),
    FileKind(f"{MODEL}/validation/summary.json", "nnU-Net", (crossval, report)),
    FileKind(f"{MODEL}/test/summary.json", "evaluate", (crossval, report)),
    FileKind(f"{MODEL}/validation/metrics.csv", "evaluate", (compare, report)),
    FileKind(f"{MODEL}/test/metrics.csv", "evaluate", (compare, report)),
    FileKind("results/*/metrics.json", "evaluate"),
    FileKind("results/*/lesions.csv", "evaluate --lesions"),
    FileKind("results/*/semi_trained_from.json", "crossval, for nnU-Net's own trainers"),
    FileKind(f"{MODEL}/*/semi_measured_from.json", "evaluate", (crossval, compare, report)),
    FileKind(f"{MODEL}/test/semi_predicted_from.json", "crossval", (crossval, compare)),
    FileKind("results/*/predict_from_raw_data_args.json", "nnU-Net"),
    FileKind("results/*/test/plans.json", "nnU-Net"),
    FileKind("results/*/test/dataset.json", "nnU-Net"),
    FileKind("results/*/semi_crossval/jobs.json", "crossval", (crossval,)),
    FileKind("results/*/semi_auto/2d.json", "auto", (auto,)),
    FileKind("results/*/semi_benchmark/*.json", "benchmark", (benchmark,)),
    FileKind("results/*/SemiBaselineTrainer__*", "the same for the baseline"),
    # other outputs
    FileKind("predicted/*.nii.gz", "predict", (evaluate, predict_again), notices=True),
    FileKind("predicted/semi_predicted_from.json", "predict", (predict_again,)),
    FileKind("predicted/dataset.json", "predict", (predict_again, evaluate)),
    FileKind("predicted/*.*", "evaluate"),
    FileKind("values.csv", "compare", (compare_values,)),
    FileKind("compare.md", "compare"),
    FileKind("report.html", "report"),
    FileKind("choice.json", "auto", (report,)),
    FileKind("selection.*", "select"),
    FileKind("next_cases/next.*", "next"),
    FileKind("audit.*", "audit"),
    FileKind("predicted/review.csv", "predict --uncertainty"),
    FileKind("predicted/itksnap_labels.txt", "predict --uncertainty"),
    FileKind("predicted/slicer_colors.ctbl", "predict --uncertainty"),
    FileKind("predicted/segmentations/*.seg.nrrd", "predict --uncertainty, next --proposals"),
    FileKind("measured/efficiency.json", "efficiency", (report,)),
    FileKind("measured/efficiency.csv", "efficiency"),
    FileKind("measured/log.txt", "efficiency"),
    FileKind("measured/outputs/*", "efficiency"),
    FileKind("averaged/*/members.json", "ensemble", (ensemble,)),
    FileKind("averaged/*.*", "ensemble"),
    FileKind("exported/*.zip", "export", (install,), notices=True),
    FileKind("exported/*.*", "export"),
    FileKind("packed/submission.json", "package", (submission,)),
    FileKind("packed/model/*/plans.json", "package", (submission,)),
    FileKind("packed/model/*/dataset.json", "package", (submission,)),
    FileKind("packed/model/*.pth", "package", (submission,), notices=True),
    FileKind("packed/wheels/*", "package"),
    *(
        FileKind(f"packed/{name}", "package")
        for name in (
            "Dockerfile",
            "LICENSE",
            "MODEL_CARD.md",
            "README.md",
            "THIRD_PARTY.md",
            "apptainer.def",
            "install.sh",
            "predict.sh",
            "requirements.txt",
        )
    ),
    FileKind("*.lock", "a running command"),
    FileKind("*.lock.json", "a running command"),
)


@contextmanager
def offline_packaging(folder: Path) -> Any:
    """Let ``package`` take empty wheels of a few packages; yields their folder."""
    import importlib.metadata

    versions = {"numpy": "2.0", "torch": "2.1+cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaging, "find_needed_packages", lambda *_: versions)
        wheels = write_wheels(versions, folder, {})
        write_pip(folder)
        patch.setattr(importlib.metadata, "version", importlib.metadata.version)
        yield wheels


def write_everything(place: Workplace, wheels: Path) -> None:
    """Run every command that writes files of its own kind."""
    place.set_paths()
    write_phantom_dataset(
        place.root / "raw" / NAME, labelled=4, unlabelled=4, test=2, shape=(6, 32, 32)
    )
    place.require("preprocess", "-d", 901, "-c", "2d", "-np", 1)
    tiny = ("--budget", "cpu", "--patch", 32, 32, "--set", *SETTINGS)
    place.require("plan", "-d", 901, "-c", "2d", "--new-plans", PLANS, *tiny)
    preprocess(place)
    trainers = [f"{name}Trainer" for name in TRAINERS]
    place.require("crossval", *WHICH, "-c", "2d", "-f", 0, "-tr", *trainers, *CPU, "--npz")
    folder = place.model() / "fold_0"
    shutil.copy(folder / "checkpoint_best.pth", folder / "checkpoint_latest.pth")
    place.require("compare", *WHICH, "-o", "compare.md", "--write-values", "values.csv")
    MethodChoice("SemiCPSTrainer", ("before",), (("a", "b", "c", "d", "e"),), ("after",)).write(
        place.root / "choice.json"
    )
    efficiency(place)
    place.require("report", *WHICH, "-o", "report.html")
    place.require("export", *WHICH, "-c", "2d", "-tr", trainers[1], "-o", "exported")
    place.require("tune", "-m", place.model(), *CPU)
    predict_again(place)
    evaluate(place)
    label(place)
    distil(place)
    preprocess_distilled(place)
    split(place)
    select(place)
    ensemble(place)
    benchmark(place)
    with offline_packaging(wheels):
        words = ("-m", place.model(), "-f", 0, "-o", "packed", "--device", "cpu")
        place.require("package", *words, "--wheels", wheels)
    options = {"configuration": "2d", "candidates": "SemiCPSTrainer"}
    path = place.root / "results" / NAME / "semi_auto" / "2d.json"
    AutoState(path, options, seconds=1.0).save()


def list_files(root: Path) -> list[str]:
    """Return the paths of all files below a folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
