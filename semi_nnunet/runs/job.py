"""One training of a cross-validation: where it lies, how far it is, which commands are left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.evaluation.tables import CSV as METRICS
from semi_nnunet.files import read_json
from semi_nnunet.history import History
from semi_nnunet.runs.commands import Words

ALL = "all"  # the fold that trains on every labelled case and validates on them
TEST_FOLDER = "test"


@dataclass(frozen=True)
class Folders:
    """nnU-Net's folders of one data set."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def test_images(self) -> Path | None:
        """imagesTs, if it holds anything."""
        folder = self.raw / "imagesTs"
        return folder if folder.is_dir() and any(folder.iterdir()) else None

    @property
    def test_labels(self) -> Path | None:
        """labelsTs, if it holds anything."""
        folder = self.raw / "labelsTs"
        return folder if folder.is_dir() and any(folder.iterdir()) else None


@dataclass(frozen=True)
class Job:
    """One trainer x configuration x fold x seed.

    Args:
        folders: of the data set.
        trainer: class name.
        configuration: for example "2d".
        fold: a number, or "all".
        seed: it has in the comparison.
        plans: identifier of the plans that hold the seed.
    """

    folders: Folders
    trainer: str
    configuration: str
    fold: str
    seed: int
    plans: str

    def __str__(self) -> str:
        return f"{self.trainer} {self.configuration} fold {self.fold} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """nnU-Net's folder of this fold."""
        model = f"{self.trainer}__{self.plans}__{self.configuration}"
        return self.folders.results / model / f"fold_{self.fold}"

    @property
    def log(self) -> Path:
        """What its commands printed."""
        return self.folder / "semi_crossval.log"

    @property
    def is_trained(self) -> bool:
        """A fold that was trained by hand counts."""
        return (self.folder / "checkpoint_final.pth").is_file()

    @property
    def is_validated(self) -> bool:
        return (self.folder / "validation" / "summary.json").is_file()

    def tables(self) -> dict[str, Path]:
        """The metrics of each set of cases this job evaluates; training cases are none."""
        found = {} if self.fold == ALL else {"validation": self.folder / "validation" / METRICS}
        if self.folders.test_labels:
            found["test"] = self.folder / TEST_FOLDER / METRICS
        return found

    @property
    def is_done(self) -> bool:
        predicted = not self.folders.test_images or (self.folder / TEST_FOLDER).is_dir()
        measured = all(path.is_file() for path in self.tables().values())
        return self.is_trained and self.is_validated and predicted and measured

    def history(self) -> History:
        """Empty if it left none, as nnU-Net's own trainers do."""
        path = self.folder / "semi_history.csv"
        return History.read_csv(path) if path.is_file() else History()

    def commands(self, device: str, npz: bool, processes: int) -> Iterator[Words]:
        """The commands that are left, each looked at when the one before has ended.

        Args:
            device: for nnU-Net's commands.
            npz: keep the probabilities, for ensembles.
            processes: that read, write and measure beside the network.
        """
        dataset = self.folders.results.name
        model = ("-tr", self.trainer, "-p", self.plans)
        keep = ("--npz",) if npz else ()
        if not (self.is_trained and self.is_validated):
            if self.is_trained:
                again: Words = ("--val",)
            else:
                again = ("--c",) if any(self.folder.glob("checkpoint_*.pth")) else ()
            fold = (dataset, self.configuration, self.fold)
            yield ("nnUNetv2_train", *fold, *model, "-device", device, *keep, *again)
        validation, test = self.folder / "validation", self.folder / TEST_FOLDER
        if "validation" in self.tables() and not (validation / METRICS).is_file():
            references = self.folders.preprocessed / "gt_segmentations"
            yield self._evaluation(validation, references, processes, "--partial")
        if self.folders.test_images and not test.is_dir():
            aside = test.with_name(f".{TEST_FOLDER}.tmp")
            where = ("-d", dataset, "-c", self.configuration, "-f", self.fold, *model)
            files = ("-i", self.folders.test_images, "-o", aside, "-device", device)
            workers = ("-npp", str(processes), "-nps", str(processes))
            probabilities = ("--save_probabilities",) if npz else ()
            yield ("nnUNetv2_predict", *where, *files, *workers, *probabilities)
            aside.replace(test)
        if self.folders.test_labels and not (test / METRICS).is_file():
            yield self._evaluation(test, self.folders.test_labels, processes)

    def _evaluation(self, predictions: Path, references: Path, processes: int, *more: str) -> Words:
        description = self.folders.preprocessed / "dataset.json"
        where = ("-i", predictions, "-r", references, "--dataset-json", description)
        return ("semi_nnunet", "evaluate", *where, "-np", str(processes), *more)

    def seconds_left(self) -> float | None:
        """Of the training, from its last epochs; None where its history does not tell."""
        settings, seconds = self.folder / "semi_settings.json", self.history().series("seconds")[1]
        if self.is_trained or not (seconds and settings.is_file()):
            return None
        epochs = read_json(settings)["settings"]["epochs"]["value"]
        recent = seconds[-10:]
        return (epochs - len(seconds)) * sum(recent) / len(recent)
