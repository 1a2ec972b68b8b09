"""One training of a cross-validation: where it lies, and which of its steps are done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from semi_nnunet.data.configurations import configuration_of, next_stages
from semi_nnunet.data.layout import METRICS_FILE, unlabelled_folder
from semi_nnunet.data.patients import PatientOf, apart_from
from semi_nnunet.data.stage_predictions import (
    missing_predictions,
    never_validated,
    predicts_unlabelled,
)
from semi_nnunet.data.unlabelled import UnlabelledCases
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.runs.folders import (
    ALL,
    TEST_FOLDER,
    VALIDATION_FOLDER,
    Folders,
    is_older,
)
from semi_nnunet.settings.common import PRETRAINER
from semi_nnunet.training.history import History
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

STEPS = ("train", "predict", "evaluate")  # of a job, in this order


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
        """The file that holds what the job's commands printed."""
        return self.folder / "semi_crossval.log"

    @property
    def lock(self) -> Path:
        """Held while a crossval works on it."""
        return self.folder / ".semi_crossval.lock"

    @property
    def is_begun(self) -> bool:
        """Whether the folder of the fold holds more than the notes of a cross-validation."""
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
        """The checkpoint that a finished training leaves."""
        return self.folder / "checkpoint_final.pth"

    @property
    def segments(self) -> bool:
        """Whether there is anything to validate, predict and measure: not of pre-training."""
        kind = our_trainers().get(self.trainer)
        return kind is None or kind.segments

    @property
    def is_validated(self) -> bool:
        if not self.segments:
            return True
        predicted = self._predicted("validation") and (self.validation / "summary.json").is_file()
        return predicted and not self.missing_for_next_stages()

    @property
    def is_tested(self) -> bool:
        """Whether every case that imagesTs holds now is predicted."""
        if not (self.folders.test_images and self.segments):
            return True
        cases, predicted = set(self.folders.test_cases()), self.predicted_cases(TEST_FOLDER)
        if not (self._predicted(TEST_FOLDER) and cases <= predicted):
            return False
        one = self.test / f"{min(predicted, default='')}{self.folders.file_ending}"
        return not is_older(one, self.checkpoint)

    @cached_property
    def _plans(self) -> dict[str, Any]:
        """The plans of the preprocessed data set, or else those beside the trained model."""
        own = self.folders.preprocessed / f"{self.plans}.json", self.folder.parent / "plans.json"
        found = next((path for path in own if path.is_file()), None)
        return {"configurations": {}} if found is None else read_json(found)

    @cached_property
    def _planned(self) -> dict[str, Any] | None:
        """The plan of the configuration; None where plans or configuration are gone."""
        return configuration_of(self._plans, self.configuration)

    @property
    def previous(self) -> Job | None:
        """The job of a cascade's stage before this one."""
        stage = None if self._planned is None else self._planned.get("previous_stage")
        return None if stage is None else replace(self, configuration=stage)

    @property
    def teacher(self) -> Job | None:
        """The job whose network teaches this one, unless its settings name another."""
        kind = our_trainers().get(self.trainer)
        name = None if kind is None else kind.taught_by
        return None if name is None else replace(self, trainer=name)

    @property
    def pretraining(self) -> Job:
        """The job that makes the weights of ``pretrained=pool``."""
        return replace(self, trainer=PRETRAINER, fold=ALL)

    def unlabelled_cases(self, patient_of: PatientOf) -> list[str]:
        """The unlabelled cases of the training, sorted, without patients its fold validates on."""
        if self._planned is None:
            return []
        folder = unlabelled_folder(self.folders.preprocessed, self._planned["data_identifier"])
        splits = self.folders.preprocessed / "splits_final.json"
        if self.fold == ALL or not splits.is_file():
            return cases_of_pool(folder)
        validated = read_json(splits)[int(self.fold)]["val"]
        return apart_from(cases_of_pool(folder), validated, patient_of)

    def missing_for_next_stages(self) -> list[str]:
        """Cases without a prediction for a cascade's next stage, if they are preprocessed for it.

        Those of the fold's validation and, of our trainers, pseudo-labelled and unlabelled ones.
        """
        if self._planned is None:
            return []
        missing: list[str] = []
        own = self.folders.preprocessed / self._planned["data_identifier"]
        for stage in next_stages(self._planned):
            planned = configuration_of(self._plans, stage) or {}
            folder = self.folders.preprocessed / str(planned.get("data_identifier"))
            kind = our_trainers().get(self.trainer) if predicts_unlabelled(self.fold) else None
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
        return self.folder / VALIDATION_FOLDER

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
        if not self.segments:
            return {}
        found = {} if self.fold == ALL else {"validation": self.validation / METRICS_FILE}
        if self.folders.test_labels:
            found["test"] = self.test / METRICS_FILE
        return found

    @property
    def is_done(self) -> bool:
        """Whether all steps of the job are done."""
        if "train" in self.steps and not (self.is_trained and self.is_validated):
            return False
        if "predict" in self.steps and not self.is_tested:
            return False
        return "evaluate" not in self.steps or not self.unmeasured()

    @property
    def is_measured(self) -> bool:
        """Whether there are tables, and all of the present predictions."""
        return bool(self.tables()) and not self.unmeasured()

    def unmeasured(self) -> list[str]:
        """The ones of "validation" and "test" that have no table of their present predictions."""
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
        """The history of the training; it is empty for nnU-Net's own trainers, which leave none."""
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
        yield from commands_of(self, device, processes)


def commands_of(job: Job, device: str, processes: int) -> Iterator[Command]:
    """The commands that are left; see :meth:`Job.commands`."""
    folders = job.folders
    if "train" in job.steps:
        yield from training(job, device)
    if "predict" in job.steps and not job.is_tested:
        require(job, "train", job.is_trained)
        yield from prediction(job, device, processes)
    if "evaluate" not in job.steps:
        return
    unmeasured = job.unmeasured()
    if "validation" in unmeasured:
        require(job, "train", job.is_validated)
        yield folders.evaluation(job.validation, folders.references, processes)
    if folders.test_labels and "test" in unmeasured:
        require(job, "predict", job.is_tested)
        yield folders.evaluation(job.test, folders.test_labels, processes)


def require(job: Job, step: str, done: bool) -> None:
    """Check a step that another needs.

    Raises:
        UserError: it is not done.
    """
    if not done:
        raise UserError(f"{job} needs its step {step!r} first", fix=f"crossval --steps {step}")


def model_options(job: Job) -> Command:
    """The options that name the model to nnU-Net's commands."""
    return ("-tr", job.trainer, "-p", job.plans)


def training(job: Job, device: str) -> Iterator[Command]:
    """The command that is left of training and validation, if any."""
    if job.is_trained and job.is_validated:
        return
    if job.is_trained:
        again: Command = ("--val",)
    else:
        again = ("--c",) if job.continues else ()
    keep = ("--npz",) if job.npz else ()
    fold = (job.folders.results.name, job.configuration, job.fold)
    yield ("nnUNetv2_train", *fold, *model_options(job), "-device", device, *keep, *again)


def prediction(job: Job, device: str, processes: int) -> Iterator[Command]:
    """Predict imagesTs aside, then put the folder in place of the one before."""
    aside = job.test.with_name(f".{TEST_FOLDER}.tmp")
    dataset, images = job.folders.results.name, job.folders.raw / "imagesTs"
    where = ("-d", dataset, "-c", job.configuration, "-f", job.fold, *model_options(job))
    files = ("-i", images, "-o", aside, "-device", device)
    workers = ("-npp", str(processes), "-nps", str(processes))
    keep = ("--save_probabilities",) if job.npz else ()
    previous = job.previous
    stage = () if previous is None else ("-prev_stage_predictions", previous.test)
    yield ("nnUNetv2_predict", *where, *files, *workers, *keep, *stage)
    # was predicted before: fewer cases, or without probabilities
    shutil.rmtree(job.test, ignore_errors=True)
    aside.replace(job.test)
