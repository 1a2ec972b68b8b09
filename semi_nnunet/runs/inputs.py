"""What the predictions and measures of a job were made from, and whether that has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semi_nnunet.evaluation.measuring import find_changed_inputs
from semi_nnunet.preprocessing.manifest import read_sources
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    NETWORK,
    PREDICTED_FROM,
    SETTINGS_JSON,
    TRAINED_FROM,
)
from semi_nnunet.runs.folders import ALL, VALIDATION_FOLDER
from semi_nnunet.runs.folds import foresee_folds
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.provenance import find_changed

if TYPE_CHECKING:
    from semi_nnunet.runs.job import Job


def list_test_inputs(job: Job) -> dict[str, Path | str]:
    """Return everything that the predictions of imagesTs depend on.

    These are the images, the network, and in a cascade the predictions of the first stage.
    """
    folders, inputs = job.folders, dict[str, Path | str]()
    for case, paths in find_cases(folders.raw / "imagesTs", folders.file_ending).items():
        inputs |= {f"image {Path(path).name}": Path(path) for path in paths}
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
    """Return what has changed since the predictions were measured; nothing without a record.

    Args:
        subset: "validation" or "test".
    """
    references = job.folders.references if subset == VALIDATION_FOLDER else job.folders.test_labels
    if references is None:
        return []
    description = job.folders.preprocessed / DATASET_JSON
    return find_changed_inputs(job.tables()[subset].parent, references, description)
