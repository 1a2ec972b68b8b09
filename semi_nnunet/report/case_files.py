"""Where everything that was drawn on a case lies, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semi_nnunet.evaluation.labelling import Labelling, read_labelling
from semi_nnunet.evaluation.values import Model
from semi_nnunet.raw.description import list_raw_cases, read_description
from semi_nnunet.raw.layout import METRICS_FILE, UNLABELLED_IMAGES
from semi_nnunet.raw.readers import Geometry, read_with_nnunet
from semi_nnunet.runs.folders import TEST_FOLDER, Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.util.files import read_csv


@dataclass(frozen=True)
class FilesOfCase:
    """Everything drawn on one case, of trainings of the same fold and seed."""

    case: str
    image: Path
    labels: dict[str, Path]  # "reference", "method", perhaps "baseline"
    tables: dict[str, Path]  # "method", perhaps "baseline" -> metrics.csv
    fold: str
    seed: int


class CaseFiles:
    """The folders with the files of the cases of one subset.

    Raises:
        UserError: the raw data set is not there.
    """

    def __init__(self, folders: Folders, subset: str, jobs: Sequence[Job]):
        self.folders, self.subset, self.jobs = folders, subset, jobs
        description = read_description(folders.raw)
        self.ending = description["file_ending"]
        kind = "test" if subset == "test" else "labelled"
        self.images = {
            case.case: Path(case.images[0])
            for case in list_raw_cases(folders.raw, description, UNLABELLED_IMAGES)
            if case.subset == kind and case.images
        }

    def reference(self, case: str) -> Path:
        folder = self.folders.raw / "labelsTs"
        if self.subset != "test":
            folder = self.folders.preprocessed / "gt_segmentations"
        return folder / f"{case}{self.ending}"

    def find(self, case: str, method: Model, baseline: Model | None) -> FilesOfCase | None:
        """The files of a case, by the first fold and seed that both predicted; None: not all."""
        wanted = {"method": method, **({"baseline": baseline} if baseline else {})}
        found = {name: self.predictions(model, case) for name, model in wanted.items()}
        common = set.intersection(*(set(paths) for paths in found.values()))
        reference = self.reference(case)
        if not (common and case in self.images and reference.is_file()):
            return None
        key = min(common)
        labels = {name: paths[key] for name, paths in found.items()}
        tables = {name: path.parent / METRICS_FILE for name, path in labels.items()}
        return FilesOfCase(
            case, self.images[case], {"reference": reference, **labels}, tables, *key
        )

    def predictions(self, model: Model, case: str) -> dict[tuple[str, int], Path]:
        """Fold and seed -> the predicted file."""
        name = TEST_FOLDER if self.subset == "test" else "validation"
        paths = {
            (job.fold, job.seed): job.folder / name / f"{case}{self.ending}"
            for job in self.jobs
            if (job.trainer, job.configuration) == (model.trainer, model.configuration)
        }
        return {key: path for key, path in paths.items() if path.is_file()}


def load_labelling(files: CaseFiles, found: Sequence[FilesOfCase]) -> Labelling:
    """Read how the data set labels."""
    description = files.folders.preprocessed / "dataset.json"
    if not description.is_file():
        description = files.folders.raw / "dataset.json"
    return read_labelling(description, str(found[0].labels["reference"]))


def read_voxels(path: Path, labelling: Labelling, is_label: bool) -> tuple[np.ndarray, Geometry]:
    array, geometry, _ = read_with_nnunet(str(path), labelling.reader, is_label)
    return array, geometry


def has_flat_images(files: FilesOfCase, labelling: Labelling) -> bool:
    """Whether the data set is one of 2-D images."""
    return read_voxels(files.labels["reference"], labelling, True)[0].shape[1] == 1


def read_metric_rows(path: Path, case: str) -> dict[str, dict[str, str]]:
    """Class -> the row of metrics.csv."""
    if not path.is_file():
        return {}
    return {row["class"]: row for row in read_csv(path)[1] if row["case"] == case}
