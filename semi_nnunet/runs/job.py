"""One training of a cross-validation: where it lies, how far it is, which commands are left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.patients import PatientOf, apart_from
from semi_nnunet.data.unlabelled import UnlabelledCases
from semi_nnunet.discovery.listing import trainer_classes
from semi_nnunet.evaluation.tables import CSV as METRICS
from semi_nnunet.runs.commands import EpochTimes
from semi_nnunet.training.cascade import missing_predictions, never_validated, predicts_unlabelled
from semi_nnunet.training.history import History
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

ALL = "all"  # the fold that trains on every labelled case and validates on them
TEST_FOLDER = "test"
COPIED_WITHIN_S = 60.0
STEPS = ("train", "predict", "evaluate")  # of a job, in this order


@dataclass(frozen=True)
class Folders:
    """nnU-Net's folders of one data set."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def test_images(self) -> Path | None:
        """imagesTs, if it holds anything."""
        return folder_with_files(self.raw / "imagesTs")

    def evaluation(self, predictions: Path, references: Path, processes: int) -> Command:
        """The command that measures predictions; there may be labels of others, too."""
        description = self.preprocessed / "dataset.json"
        where = ("-i", predictions, "-r", references, "--dataset-json", description)
        return ("semi_nnunet", "evaluate", *where, "-np", str(processes), "--partial")

    @property
    def references(self) -> Path:
        """The labels of the labelled cases, which nnU-Net keeps."""
        return self.preprocessed / "gt_segmentations"

    @property
    def test_labels(self) -> Path | None:
        """labelsTs, if it holds anything."""
        return folder_with_files(self.raw / "labelsTs")

    @property
    def file_ending(self) -> str:
        """Of images and labels; results that came alone may have the raw images beside them."""
        prepared = self.preprocessed / "dataset.json"
        path = prepared if prepared.is_file() else self.raw / "dataset.json"
        return str(read_json(path)["file_ending"])

    def test_cases(self) -> list[str]:
        """Those of imagesTs."""
        if not self.test_images:
            return []
        images = str(self.test_images)
        return list(get_identifiers_from_splitted_dataset_folder(images, self.file_ending))

    def test_cases_without_labels(self) -> list[str]:
        """Of imagesTs, where labelsTs holds the labels of others."""
        labels = self.test_labels
        if labels is None:
            return []
        ending = self.file_ending
        return [case for case in self.test_cases() if not (labels / f"{case}{ending}").is_file()]


def folder_with_files(folder: Path) -> Path | None:
    """The folder, if it is there and holds anything but what a file manager hides in it."""
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    return folder


def is_older(result: Path, source: Path) -> bool:
    """Whether a file is of before its source was made anew, such as a fold trained again by hand.

    Copying a folder may mix up times by seconds.
    """
    if not (result.is_file() and source.is_file()):
        return False
    return result.stat().st_mtime < source.stat().st_mtime - COPIED_WITHIN_S


@cache
def cases_of_pool(folder: Path) -> list[str]:
    """The unlabelled cases of a preprocessed folder, read once: there may be 100,000."""
    return UnlabelledCases(folder).present()


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
        npz: keep the probabilities, for ensembles.
        steps: those of :data:`STEPS` to do.
    """

    folders: Folders
    trainer: str
    configuration: str
    fold: str
    seed: int
    plans: str
    npz: bool = False
    steps: tuple[str, ...] = STEPS

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
    def lock(self) -> Path:
        """Held while a crossval works on it."""
        return self.folder / ".semi_crossval.lock"

    @property
    def is_begun(self) -> bool:
        """Whether there is more in its folder than what a crossval noted."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return any("semi_crossval." not in path.name for path in there)

    @property
    def continues(self) -> bool:
        """Whether training goes on from a checkpoint, or is done."""
        return any(self.folder.glob("checkpoint_*.pth"))

    @property
    def is_trained(self) -> bool:
        """A fold that was trained by hand counts."""
        return self.checkpoint.is_file()

    @property
    def checkpoint(self) -> Path:
        """What a finished training leaves."""
        return self.folder / "checkpoint_final.pth"

    @property
    def is_validated(self) -> bool:
        predicted = self._predicted("validation") and (self.validation / "summary.json").is_file()
        return predicted and not self.missing_for_next_stages()

    @property
    def is_tested(self) -> bool:
        """Whether every case that imagesTs holds now is predicted."""
        if not self.folders.test_images:
            return True
        cases, predicted = set(self.folders.test_cases()), self.predicted_cases(TEST_FOLDER)
        if not (self._predicted(TEST_FOLDER) and cases <= predicted):
            return False
        one = self.test / f"{min(predicted, default='')}{self.folders.file_ending}"
        return not is_older(one, self.checkpoint)

    @cached_property
    def _plans(self) -> PlansManager | None:
        """Those that it trains with; of results that came alone, those that it was trained with."""
        own = self.folders.preprocessed / f"{self.plans}.json", self.folder.parent / "plans.json"
        found = next((path for path in own if path.is_file()), None)
        return None if found is None else PlansManager(read_json(found))

    @cached_property
    def _manager(self) -> ConfigurationManager | None:
        """None where plans, or the configuration in them, are gone."""
        plans = self._plans
        if plans is None or self.configuration not in plans.plans["configurations"]:
            return None
        return plans.get_configuration(self.configuration)

    @property
    def previous(self) -> Job | None:
        """The job of a cascade's stage before this one."""
        stage = None if self._manager is None else self._manager.previous_stage_name
        return None if stage is None else replace(self, configuration=stage)

    @property
    def teacher(self) -> Job | None:
        """The job whose network teaches this one, unless its settings name another."""
        kind = trainer_classes().get(self.trainer)
        name = None if kind is None else kind.taught_by
        return None if name is None else replace(self, trainer=name)

    def unlabelled_cases(self, patient_of: PatientOf) -> list[str]:
        """Those that it would train on now, sorted: not of patients whom its fold validates on."""
        if self._manager is None:
            return []
        folder = unlabelled_folder(self.folders.preprocessed, self._manager.data_identifier)
        splits = self.folders.preprocessed / "splits_final.json"
        if self.fold == ALL or not splits.is_file():
            return cases_of_pool(folder)
        validated = read_json(splits)[int(self.fold)]["val"]
        return apart_from(cases_of_pool(folder), validated, patient_of)

    def missing_for_next_stages(self) -> list[str]:
        """Cases without a prediction for a cascade's next stage, if they are preprocessed for it.

        Those of the fold's validation and, of our trainers, pseudo-labelled and unlabelled ones.
        """
        if self._manager is None or self._plans is None:
            return []
        missing: list[str] = []
        own = self.folders.preprocessed / self._manager.data_identifier
        for stage in self._manager.next_stage_names or ():
            identifier = self._plans.get_configuration(stage).data_identifier
            folder = self.folders.preprocessed / identifier
            kind = trainer_classes().get(self.trainer) if predicts_unlabelled(self.fold) else None
            labelled = self.predicted_cases("validation")
            if kind is not None:
                labelled |= {*never_validated(self.folders.preprocessed, self.fold)}
            cases = [case for case in labelled if (folder / f"{case}.b2nd").is_file()]
            if kind is not None and kind.uses_unlabelled:
                both = (unlabelled_folder(folder.parent, one.name) for one in (own, folder))
                cases += sorted(set.intersection(*(set(cases_of_pool(one)) for one in both)))
            predictions = self.folder.parent / "predicted_next_stage" / stage
            missing += missing_predictions(str(predictions), cases)
        return missing

    @property
    def validation(self) -> Path:
        """nnU-Net's predictions of the validation cases."""
        return self.folder / "validation"

    @property
    def test(self) -> Path:
        """The predictions of imagesTs."""
        return self.folder / TEST_FOLDER

    def _predicted(self, subset: str) -> bool:
        folder = self.folder / subset
        if not folder.is_dir():
            return False
        return not self.npz or all(
            (folder / f"{case}.npz").is_file() for case in self.predicted_cases(subset)
        )

    def predicted_cases(self, subset: str) -> set[str]:
        """The cases of "validation" or "test" whose segmentation is there."""
        ending = self.folders.file_ending
        paths = (self.folder / subset).glob(f"*{ending}")
        return {p.name.removesuffix(ending) for p in paths if not p.name.startswith(".")}

    def tables(self) -> dict[str, Path]:
        """The metrics of each set of cases this job evaluates; training cases are none."""
        found = {} if self.fold == ALL else {"validation": self.validation / METRICS}
        if self.folders.test_labels:
            found["test"] = self.test / METRICS
        return found

    @property
    def is_done(self) -> bool:
        """Whether its steps are."""
        if "train" in self.steps and not (self.is_trained and self.is_validated):
            return False
        if "predict" in self.steps and not self.is_tested:
            return False
        return "evaluate" not in self.steps or not self._unmeasured()

    def _unmeasured(self) -> list[str]:
        """Of "validation" and "test", what has no table, or one of other predictions."""
        return [
            subset
            for subset, path in self.tables().items()
            if not path.is_file()
            or self.is_stale(subset)
            or (subset == "test" and not self.is_tested)
        ]

    def is_stale(self, subset: str) -> bool:
        """Whether the table is of a training, or of a validation, before the one that is there."""
        made_by = {"validation": self.validation / "summary.json", "test": self.checkpoint}
        return is_older(self.tables()[subset], made_by[subset])

    def current_tables(self) -> dict[str, Path]:
        """The :meth:`tables` that are not stale, whether they are there yet or not."""
        return {name: path for name, path in self.tables().items() if not self.is_stale(name)}

    def history(self) -> History:
        """Empty if it left none, as nnU-Net's own trainers do."""
        path = self.folder / "semi_history.csv"
        return History.read_csv(path) if path.is_file() else History()

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """The commands that are left, each looked at when the one before has ended.

        Args:
            device: for nnU-Net's commands.
            processes: that read, write and measure beside the network.

        Raises:
            UserError: a step needs one before it that is neither done nor asked for.
        """
        if "train" in self.steps:
            yield from self._training(device)
        if "predict" in self.steps and not self.is_tested:
            self._require("train", self.is_trained)
            yield from self._prediction(device, processes)
        if "evaluate" not in self.steps:
            return
        unmeasured = self._unmeasured()
        if "validation" in unmeasured:
            self._require("train", self.is_validated)
            yield self.folders.evaluation(self.validation, self.folders.references, processes)
        if self.folders.test_labels and "test" in unmeasured:
            self._require("predict", self.is_tested)
            yield self.folders.evaluation(self.test, self.folders.test_labels, processes)

    def _require(self, step: str, done: bool) -> None:
        if not done:
            raise UserError(f"{self} needs its step {step!r} first. Fix: crossval --steps {step}")

    @property
    def _model(self) -> Command:
        return ("-tr", self.trainer, "-p", self.plans)

    def _training(self, device: str) -> Iterator[Command]:
        dataset = self.folders.results.name
        keep = ("--npz",) if self.npz else ()
        if not (self.is_trained and self.is_validated):
            if self.is_trained:
                again: Command = ("--val",)
            else:
                again = ("--c",) if self.continues else ()
            fold = (dataset, self.configuration, self.fold)
            yield ("nnUNetv2_train", *fold, *self._model, "-device", device, *keep, *again)

    def _prediction(self, device: str, processes: int) -> Iterator[Command]:
        aside = self.test.with_name(f".{TEST_FOLDER}.tmp")
        dataset, images = self.folders.results.name, self.folders.raw / "imagesTs"
        where = ("-d", dataset, "-c", self.configuration, "-f", self.fold, *self._model)
        files = ("-i", images, "-o", aside, "-device", device)
        workers = ("-npp", str(processes), "-nps", str(processes))
        keep = ("--save_probabilities",) if self.npz else ()
        previous = self.previous
        stage = () if previous is None else ("-prev_stage_predictions", previous.test)
        yield ("nnUNetv2_predict", *where, *files, *workers, *keep, *stage)
        # was predicted before: fewer cases, or without probabilities
        shutil.rmtree(self.test, ignore_errors=True)
        aside.replace(self.test)

    def epoch_times(self) -> list[float]:
        """Seconds of each epoch so far, from the history; else from its logs.

        nnU-Net's own trainers leave no history, and that of another may be damaged.
        """
        with suppress(UserError):
            if rows := self.history().rows:
                return [row["seconds"] for row in rows if "seconds" in row]
        return list(self.logged_epochs().seconds.values())

    def logged_epochs(self) -> EpochTimes:
        """Of all its logs, one after another."""
        found = EpochTimes()
        logs = self.folder.glob("training_log_*.txt")
        for log in sorted(logs, key=lambda path: (path.stat().st_mtime, path.name)):
            for line in log.read_text().splitlines():
                found.feed(line)
        return found

    def seconds_left(self) -> float | None:
        """Of the training, from its last epochs; None where its history does not tell."""
        settings = self.folder / "semi_settings.json"
        if self.is_trained or not settings.is_file():
            return None
        seconds = self.epoch_times()
        if not seconds:
            return None
        epochs = read_json(settings)["settings"]["epochs"]["value"]
        recent = seconds[-10:]
        return (epochs - len(seconds)) * sum(recent) / len(recent)
