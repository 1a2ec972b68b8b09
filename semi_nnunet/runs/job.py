"""One training of a cross-validation: its folder, its finished steps and its remaining commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.evaluation.measuring import find_changed_inputs
from semi_nnunet.loading.stage_predictions import (
    find_missing_predictions,
    find_outdated_predictions,
    list_never_validated,
    predicts_unlabelled,
    read_images,
)
from semi_nnunet.loading.unlabelled import UnlabelledCases
from semi_nnunet.preprocessing.manifest import read_sources
from semi_nnunet.raw.description import find_cases, list_cases
from semi_nnunet.raw.folds import PatientOf, exclude_patients_of, load_folds
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    FINAL_CHECKPOINT,
    HISTORY_CSV,
    MEASURED_FROM,
    METRICS_FILE,
    NETWORK,
    PLANS_JSON,
    PREDICTED_FROM,
    SETTINGS_JSON,
    SUMMARY_JSON,
    TRAINED_FROM,
    get_unlabelled_folder,
)
from semi_nnunet.raw.plans import list_next_stages, resolve_configuration
from semi_nnunet.raw.readers import with_spacing_files
from semi_nnunet.runs.folders import ALL, TEST_FOLDER, VALIDATION_FOLDER, Folders, is_older
from semi_nnunet.runs.folds import foresee_folds
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.settings.common import PRETRAINER
from semi_nnunet.training.history import History
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import is_filled, optional_json, read_json, write_json
from semi_nnunet.util.names import list_first
from semi_nnunet.util.provenance import find_changed, recorded
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.verify.twins import join_known_twins

STEPS = ("train", "predict", "evaluate")  # of a job, in this order
INPUT_NAMES = {"classes": "the labels, lesions or one_piece of dataset.json"}  # of measures


def list_pool_cases(folder: Path) -> list[str]:
    """Return the unlabelled cases of a preprocessed folder."""
    return UnlabelledCases(folder).present()


@dataclass(frozen=True)
class Job:
    """One trainer x configuration x fold x seed.

    Args:
        folders: of the data set.
        trainer: class name.
        configuration: for example "2d".
        fold: a number, or "all".
        seed: number of the seed in the comparison.
        plans: identifier of the plans that hold the seed.
        npz: keep the probabilities, for ensembles.
        steps: of :data:`STEPS`, the steps to do.
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
        """The file with the output of the job's commands."""
        return self.folder / "semi_crossval.log"

    @property
    def lock(self) -> Path:
        """The lock that a crossval holds while it works on the job."""
        return self.folder / ".semi_crossval.lock"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that a finished training leaves."""
        return self.folder / FINAL_CHECKPOINT

    @property
    def validation(self) -> Path:
        """The folder of nnU-Net's predictions of the validation cases."""
        return self.folder / VALIDATION_FOLDER

    @property
    def test(self) -> Path:
        """The folder of the predictions of imagesTs."""
        return self.folder / TEST_FOLDER

    @property
    def is_begun(self) -> bool:
        """Whether the folder of the fold holds more than the notes of a cross-validation."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return any("semi_crossval." not in path.name for path in paths)

    @property
    def has_checkpoint(self) -> bool:
        """Whether the training continues from a checkpoint, or is done."""
        return any(self.folder.glob("checkpoint_*.pth"))

    @property
    def is_trained(self) -> bool:
        """Whether the fold is trained; by hand counts, too."""
        return is_filled(self.checkpoint)

    @property
    def segments(self) -> bool:
        """Whether the network segments, so that it can be validated; pre-training does not."""
        facts = our_trainers().get(self.trainer)
        return facts is None or facts.segments

    @property
    def is_validated(self) -> bool:
        if not self.segments:
            return True
        predicted = self._predicted(VALIDATION_FOLDER)
        has_summary = predicted and is_filled(self.validation / SUMMARY_JSON)
        return has_summary and not self.list_missing_stage_predictions()

    @property
    def is_tested(self) -> bool:
        """Whether every case of imagesTs is predicted by the present training."""
        if not (self.folders.test_images and self.segments):
            return True
        cases, predicted = set(self.folders.test_cases()), self.predicted_cases(TEST_FOLDER)
        if not (self._predicted(TEST_FOLDER) and cases <= predicted):
            return False
        if (self.test / PREDICTED_FROM).is_file():
            return not find_changed_test_inputs(self)
        first = self.test / f"{min(predicted, default='')}{self.folders.file_ending}"
        return not is_older(first, self.checkpoint)  # of an earlier version

    @cached_property
    def _plans(self) -> dict[str, Any]:
        """The plans of the preprocessed data set, or else those next to the trained model."""
        paths = self.folders.preprocessed / f"{self.plans}.json", self.folder.parent / PLANS_JSON
        path = next((path for path in paths if path.is_file()), None)
        return {"configurations": {}} if path is None else read_json(path)

    @cached_property
    def _configuration_plan(self) -> dict[str, Any] | None:
        """The plan of the configuration, or None if plans or configuration no longer exist."""
        return resolve_configuration(self._plans, self.configuration)

    @property
    def previous_stage(self) -> Job | None:
        """The job of the previous stage of a cascade."""
        plan = self._configuration_plan
        stage = None if plan is None else plan.get("previous_stage")
        return None if stage is None else replace(self, configuration=stage)

    @property
    def teacher(self) -> Job | None:
        """The job whose network teaches this one, unless the settings name another."""
        facts = our_trainers().get(self.trainer)
        name = None if facts is None else facts.taught_by
        return None if name is None else replace(self, trainer=name)

    @property
    def pretraining(self) -> Job:
        """The job that makes the weights of ``pretrained=pool``."""
        return replace(self, trainer=PRETRAINER, fold=ALL)

    def case_folder(self, unlabelled: bool) -> Path | None:
        """Return the folder of preprocessed cases, or None if plans or configuration are gone."""
        if self._configuration_plan is None:
            return None
        preprocessed, name = self.folders.preprocessed, self._configuration_plan["data_identifier"]
        return get_unlabelled_folder(preprocessed, name) if unlabelled else preprocessed / name

    def unlabelled_cases(
        self,
        patient_of: PatientOf,
        list_cases_in: Callable[[Path], list[str]] = list_pool_cases,
    ) -> list[str]:
        """Return the sorted unlabelled cases, without patients that the fold validates on.

        Near-twins count as one patient, as in the training.

        Args:
            list_cases_in: returns the cases of a preprocessed folder.
        """
        folder = self.case_folder(unlabelled=True)
        if folder is None:
            return []
        cases = list_cases_in(folder)
        folds = dict(enumerate(load_folds(self.folders.preprocessed)))
        if self.fold == ALL or int(self.fold) not in folds:
            return cases
        group_of = join_known_twins(patient_of, self.folders.preprocessed)
        return exclude_patients_of(cases, folds[int(self.fold)]["val"], group_of)

    def list_missing_stage_predictions(self) -> list[str]:
        """Return the cases that lack a prediction for the next stage of a cascade.

        Only cases that are preprocessed for that stage count: those of the fold's validation and,
        for our trainers, pseudo-labelled and unlabelled ones.
        """
        if self._configuration_plan is None:
            return []
        missing: list[str] = []
        preprocessed = self.folders.preprocessed
        source = preprocessed / self._configuration_plan["data_identifier"]
        for stage in list_next_stages(self._configuration_plan):
            plan = resolve_configuration(self._plans, stage) or {}
            target = preprocessed / str(plan.get("data_identifier"))
            facts = our_trainers().get(self.trainer) if predicts_unlabelled(self.fold) else None
            labelled = self.predicted_cases(VALIDATION_FOLDER)
            if facts is not None:
                labelled |= {*list_never_validated(preprocessed, self.fold)}
            cases = [case for case in labelled if (target / f"{case}.b2nd").is_file()]
            if facts is not None and facts.uses_unlabelled:
                pools = (
                    get_unlabelled_folder(preprocessed, path.name) for path in (source, target)
                )
                cases += sorted(set.intersection(*(set(list_pool_cases(pool)) for pool in pools)))
            predictions = self.folder.parent / "predicted_next_stage" / stage
            missing += find_missing_predictions(str(predictions), cases)
            images = read_images(source, cases)
            images |= read_images(get_unlabelled_folder(preprocessed, source.name), cases)
            missing += find_outdated_predictions(str(predictions), images)
        return missing

    def _predicted(self, subset: str) -> bool:
        folder = self.folder / subset
        if not folder.is_dir() or not all(map(is_filled, self._segmentations(subset))):
            return False
        return not self.npz or all(
            is_filled(folder / f"{case}.npz") for case in self.predicted_cases(subset)
        )

    def predicted_cases(self, subset: str) -> set[str]:
        """Return the cases of "validation" or "test" that have a segmentation."""
        ending = self.folders.file_ending
        paths = filter(is_filled, self._segmentations(subset))
        return {path.name.removesuffix(ending) for path in paths}

    def _segmentations(self, subset: str) -> list[Path]:
        """Return the segmentation files of "validation" or "test"; a crash may leave empty ones."""
        folder, ending = self.folder / subset, self.folders.file_ending
        return [folder / f"{case}{ending}" for case in list_cases(folder, ending)]

    def tables(self) -> dict[str, Path]:
        """Return the metrics files of the job, existing or not, by "validation" and "test".

        Fold "all" validates on its training cases, which are not measured.
        """
        if not self.segments:
            return {}
        paths = {} if self.fold == ALL else {VALIDATION_FOLDER: self.validation / METRICS_FILE}
        if self.folders.test_labels:
            paths[TEST_FOLDER] = self.test / METRICS_FILE
        return paths

    @property
    def is_done(self) -> bool:
        """Whether all steps of the job are done."""
        if "train" in self.steps and not (self.is_trained and self.is_validated):
            return False
        if "predict" in self.steps and not self.is_tested:
            return False
        return "evaluate" not in self.steps or not self.list_unmeasured()

    @property
    def is_measured(self) -> bool:
        """Whether the job has tables, and all are up to date."""
        return bool(self.tables()) and not self.list_unmeasured()

    def list_unmeasured(self) -> list[str]:
        """Return which of "validation" and "test" have no table of their present predictions."""
        return [
            subset
            for subset, path in self.tables().items()
            if not is_filled(path)
            or self.is_stale(subset)
            or (subset == TEST_FOLDER and not self.is_tested)
        ]

    def is_stale(self, subset: str) -> bool:
        """Return whether the table measures other predictions or references than the present."""
        return self.find_stale_problem(subset) is not None

    def find_stale_problem(self, subset: str) -> Problem | None:
        """Return why a table is stale, or None if it is up to date or does not exist.

        Copying files without their times makes a table seem older; the fix covers that, too.
        """
        table, is_test = self.tables()[subset], subset == TEST_FOLDER
        changed = find_changed_measures(self, subset) if table.is_file() else []
        if is_test and table.is_file():
            changed += find_changed_test_inputs(self)
        command = suggest_command(
            "crossval", dataset=self.folders.results.name, plans=split_seed_name(self.plans)[0],
            configurations=[self.configuration], trainers=[self.trainer], folds=[self.fold],
            seeds=self.seed + 1,
        )  # fmt: skip
        fix = f"{command} measures again"
        if changed:
            changed = [INPUT_NAMES.get(name, name) for name in changed]
            reason = f"measures {self} before a change of {list_first(changed)}"
            return Problem(str(table), f"{reason}, and left out", fix)
        records = [MEASURED_FROM, *([PREDICTED_FROM] if is_test else [])]
        if all((table.parent / name).is_file() for name in records):
            return None
        sources = {
            VALIDATION_FOLDER: self.validation / SUMMARY_JSON,
            TEST_FOLDER: self.checkpoint,
        }
        if not is_older(table, sources[subset]):
            return None
        reason = f"is older than the training or validation of {self}"
        fix += "; if it was copied without times, touch the file"
        return Problem(str(table), f"{reason}, and left out", fix)

    def current_tables(self) -> dict[str, Path]:
        """Return the :meth:`tables` that are not stale, existing or not."""
        return {name: path for name, path in self.tables().items() if not self.is_stale(name)}

    def history(self) -> History:
        """Return the history of the training; empty for nnU-Net's own trainers."""
        path = self.folder / HISTORY_CSV
        return History.read_csv(path) if path.is_file() else History()

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """Yield the remaining commands, each decided when the previous one has ended.

        Args:
            device: for nnU-Net's commands.
            processes: workers that read, write and measure.

        Raises:
            UserError: a step needs another one, which is neither done nor requested.
        """
        if "train" in self.steps:
            yield from build_training_command(self, device)
        if "predict" in self.steps and not self.is_tested:
            require_step(self, "train", self.is_trained)
            yield from predict_test_cases(self, device, processes)
        if "evaluate" not in self.steps:
            return
        unmeasured, folders = self.list_unmeasured(), self.folders
        if VALIDATION_FOLDER in unmeasured:
            require_step(self, "train", self.is_validated)
            yield folders.evaluation_command(self.validation, folders.references, processes)
        if folders.test_labels and TEST_FOLDER in unmeasured:
            require_step(self, "predict", self.is_tested)
            yield folders.evaluation_command(self.test, folders.test_labels, processes)


def require_step(job: Job, step: str, done: bool) -> None:
    """Check that a step is done which another one needs.

    Raises:
        UserError: it is not.
    """
    if not done:
        raise UserError(f"{job} needs its step {step!r} first", fix=f"crossval --stages {step}")


def build_training_command(job: Job, device: str) -> Iterator[Command]:
    """Yield the command that trains, continues or validates; nothing if both are done."""
    if job.is_trained and job.is_validated:
        return
    if job.is_trained:
        mode: Command = ("--val",)
    else:
        mode = ("--c",) if job.has_checkpoint else ()
        if not mode and job.trainer not in our_trainers():
            record_trained_from(job)
    keep = ("--npz",) if job.npz else ()
    fold = (job.folders.results.name, job.configuration, job.fold)
    model = ("-tr", job.trainer, "-p", job.plans)
    yield ("nnUNetv2_train", *fold, *model, "-device", device, *keep, *mode)


def predict_test_cases(job: Job, device: str, processes: int) -> Iterator[Command]:
    """Predict imagesTs into a temporary folder, then replace the earlier predictions."""
    temporary = job.test.with_name(f".{TEST_FOLDER}.tmp")
    dataset, images = job.folders.results.name, job.folders.raw / "imagesTs"
    fold = ("-d", dataset, "-c", job.configuration, "-f", job.fold)
    model = ("-tr", job.trainer, "-p", job.plans)
    files = ("-i", images, "-o", temporary, "-device", device)
    workers = ("-npp", str(processes), "-nps", str(processes))
    keep = ("--save_probabilities",) if job.npz else ()
    previous = job.previous_stage
    stage = () if previous is None else ("-prev_stage_predictions", previous.test)
    shutil.rmtree(temporary, ignore_errors=True)  # a killed prediction may know other cases
    with recorded(temporary / PREDICTED_FROM, list_test_inputs(job)):
        yield ("nnUNetv2_predict", *fold, *model, *files, *workers, *keep, *stage)
    # earlier predictions have fewer cases, or no probabilities
    shutil.rmtree(job.test, ignore_errors=True)
    temporary.replace(job.test)


def list_test_inputs(job: Job) -> dict[str, Path | str]:
    """Return everything that the predictions of imagesTs depend on.

    These are the images, the network, and in a cascade the predictions of the first stage.
    """
    folders, inputs = job.folders, dict[str, Path | str]()
    for case, paths in find_cases(folders.raw / "imagesTs", folders.file_ending).items():
        files = with_spacing_files(paths, is_label=False)
        inputs |= {f"image {path.name}": path for path in files}
        if job.previous_stage is not None:
            prediction = job.previous_stage.test / f"{case}{folders.file_ending}"
            inputs[f"first stage {case}"] = prediction
    inputs[NETWORK] = job.checkpoint
    return {name: path for name, path in inputs.items() if Path(path).is_file()}


def record_trained_from(job: Job) -> None:
    """Record the preprocessed data of a fold for one of nnU-Net's own trainers, before it starts.

    The trainers of this package record more, in semi_settings.json.
    """
    folder, folds = job.case_folder(unlabelled=False), foresee_folds(job.folders)
    if folder is None:
        return
    if job.fold == ALL:
        cases = dict.fromkeys(("labelled", "validation"), job.folders.labelled_cases())
    elif int(job.fold) < len(folds):
        fold = folds[int(job.fold)]
        cases = {"labelled": fold["train"], "validation": fold["val"]}
    else:
        return
    sources = {kind: read_sources(folder, names) for kind, names in cases.items()}
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / TRAINED_FROM, sources)


def read_trained_from(job: Job) -> dict[str, dict[str, str]]:
    """Return kind of cases -> case -> what it was made from when the training began.

    Trainings of earlier versions, and those of nnU-Net's own trainers without ``crossval``, have
    no record.
    """
    recorded = optional_json(job.folder / SETTINGS_JSON).get("sources")
    return dict(recorded or optional_json(job.folder / TRAINED_FROM))


def find_changed_test_inputs(job: Job) -> list[str]:
    """Return what has changed since imagesTs was predicted; nothing if that was not recorded."""
    record = job.test / PREDICTED_FROM
    return find_changed(record, list_test_inputs(job)) if record.is_file() else []


def find_changed_measures(job: Job, subset: str) -> list[str]:
    """Return what has changed since the predictions were measured.

    Nothing counts as changed without a record, or if the preprocessed data are gone.

    Args:
        subset: "validation" or "test".
    """
    references = job.folders.references if subset == VALIDATION_FOLDER else job.folders.test_labels
    description = job.folders.preprocessed / DATASET_JSON
    if references is None or not (references.is_dir() and description.is_file()):
        return []
    return find_changed_inputs(job.tables()[subset].parent, references, description)
