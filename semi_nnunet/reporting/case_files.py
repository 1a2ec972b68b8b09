"""Files of a case: image, reference, predictions and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semi_nnunet.evaluation.labelling import Labelling, read_labelling
from semi_nnunet.evaluation.values import Model
from semi_nnunet.raw.description import list_raw_cases, read_description
from semi_nnunet.raw.layout import DATASET_JSON, GROUND_TRUTH, METRICS_FILE, UNLABELLED_IMAGES
from semi_nnunet.raw.readers import Geometry, read_with_nnunet
from semi_nnunet.runs.folders import TEST_FOLDER, Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.util.files import read_csv


@dataclass(frozen=True)
class FilesOfCase:
    """The files of one case, with predictions of the same fold and seed."""

    case: str
    image: Path
    labels: dict[str, Path]  # "reference", "method", perhaps "baseline"
    tables: dict[str, Path]  # "method", perhaps "baseline" -> metrics.csv
    fold: str
    seed: int


class CaseFiles:
    """The files of the validation or test cases of a data set, with predictions of trainings.

    Raises:
        UserError: the raw data set is missing.
    """

    def __init__(self, folders: Folders, subset: str, jobs: Sequence[Job]):
        self.folders, self.subset, self.jobs = folders, subset, jobs
        description = read_description(folders.raw)
        self.ending = description["file_ending"]
        raw_subset = "test" if subset == "test" else "labelled"
        self.images = {
            case.case: Path(case.images[0])
            for case in list_raw_cases(folders.raw, description, UNLABELLED_IMAGES)
            if case.subset == raw_subset and case.images
        }

    def reference(self, case: str) -> Path:
        folder = self.folders.raw / "labelsTs"
        if self.subset != "test":
            folder = self.folders.preprocessed / GROUND_TRUTH
        return folder / f"{case}{self.ending}"

    def find(self, case: str, method: Model, baseline: Model | None) -> FilesOfCase | None:
        """Return the files of a case for the first fold and seed that all models have, or None."""
        models = {"method": method, **({"baseline": baseline} if baseline else {})}
        predictions = {name: self.predictions(model, case) for name, model in models.items()}
        common = set.intersection(*(set(paths) for paths in predictions.values()))
        reference = self.reference(case)
        if not (common and case in self.images and reference.is_file()):
            return None
        key = min(common)
        labels = {name: paths[key] for name, paths in predictions.items()}
        tables = {name: path.parent / METRICS_FILE for name, path in labels.items()}
        labels = {"reference": reference, **labels}
        return FilesOfCase(case, self.images[case], labels, tables, *key)

    def predictions(self, model: Model, case: str) -> dict[tuple[str, int], Path]:
        """Return fold and seed -> the predicted file."""
        name = TEST_FOLDER if self.subset == "test" else "validation"
        paths = {
            (job.fold, job.seed): job.folder / name / f"{case}{self.ending}"
            for job in self.jobs
            if (job.trainer, job.configuration) == (model.trainer, model.configuration)
        }
        return {key: path for key, path in paths.items() if path.is_file()}


def load_labelling(files: CaseFiles, examples: Sequence[FilesOfCase]) -> Labelling:
    """Read the labelling of the data set; the first example chooses the reader."""
    description = files.folders.preprocessed / DATASET_JSON
    if not description.is_file():
        description = files.folders.raw / DATASET_JSON
    return read_labelling(description, str(examples[0].labels["reference"]))


def read_voxels(path: Path, labelling: Labelling, is_label: bool) -> tuple[np.ndarray, Geometry]:
    array, geometry, _ = read_with_nnunet(str(path), labelling.reader, is_label)
    return array, geometry


def has_flat_images(files: FilesOfCase, labelling: Labelling) -> bool:
    """Return whether the data set consists of 2-D images."""
    return read_voxels(files.labels["reference"], labelling, True)[0].shape[1] == 1


def read_metric_rows(path: Path, case: str) -> dict[str, dict[str, str]]:
    """Return class -> row of a metrics.csv for one case."""
    if not path.is_file():
        return {}
    return {row["class"]: row for row in read_csv(path)[1] if row["case"] == case}
