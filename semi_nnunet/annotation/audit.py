"""Find labels to look at again, by their disagreement with out-of-fold predictions.

``semi_nnunet crossval`` predicts every labelled case with a network that has not seen its label.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from semi_nnunet.annotation.audit_list import COLUMNS, AuditedLabel, LabelAudit, list_rows
from semi_nnunet.annotation.disagreement import Disagreement, compare_label
from semi_nnunet.annotation.pages import write_audit_page
from semi_nnunet.annotation.suspicion import (
    average_suspicions,
    find_most_suspicious,
    score_labels,
)
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.reporting.case_files import CaseFiles, FilesOfCase, load_labelling, read_voxels
from semi_nnunet.runs.folders import ALL, VALIDATION_FOLDER, Folders, find_folders
from semi_nnunet.runs.folds import find_fold_problems, foresee_folds, list_folds
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.runs.trainings import find_jobs, require_trained
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import require_place, write_atomically, write_csv
from semi_nnunet.util.names import list_first, require_positive, unique
from semi_nnunet.util.parallel import in_processes
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.workflows.compare import require_trained_names
from semi_nnunet.workflows.matched import find_stale_predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSelection:
    """The trainings whose predictions are used; None: all of the data set with these plans."""

    configurations: Sequence[str] | None = None
    trainers: Sequence[str] | None = None
    plans: str = DEFAULT_PLANS
    folds: Sequence[str] | None = None


def audit_labels(
    dataset: str | None,
    selection: ModelSelection,
    model: str | None = None,
    *,
    out: Path,
    pictures: int = 30,
    processes: int = 1,
) -> LabelAudit:
    """Rank the labelled cases, and write the list and a page.

    :func:`semi_nnunet.audit` documents the arguments and errors.
    """
    require_positive({"-np": processes})
    if pictures < 0:
        raise UserError(f"--pictures must be 0 or more, got {pictures}", fix="correct it")
    if out.suffix == ".csv":
        raise UserError("-o is an HTML file, next to which a .csv is written", fix="x.html")
    if (dataset is None) == (model is None):
        raise UserError("audit needs a data set (-d) or a model (-m)", fix="give one of them")
    list_path = out.with_suffix(".csv")
    for path in (out, list_path):
        require_place(path)
    if model is not None:
        dataset, selection = select_trainings(model, selection.folds)
    folders = find_folders(str(dataset))
    models = find_complete_models(folders, selection)
    files = [find_case_files(folders, jobs) for jobs in models]
    labelling = load_labelling(*files[0])
    scored = []
    for _, cases in files:
        compared = in_processes(partial(compare_files, labelling), cases, processes, "compares")
        disagreements = {case.case: item for case, item in zip(cases, compared, strict=True)}
        scored.append(score_labels(disagreements, list(labelling.classes)))
    suspicions = average_suspicions(scored)
    by_model = [{case.case: case for case in cases} for _, cases in files]
    ranked = sorted(suspicions, key=lambda case: (-suspicions[case].score, case))
    shown = find_most_suspicious(scored)  # the picture is of the model that gives the reason
    labels = tuple(AuditedLabel(n, suspicions[n], by_model[shown[n]][n]) for n in ranked)
    audit = LabelAudit(labels, out, list_path)
    write_csv(list_path, [COLUMNS, *list_rows(audit, RawDataset.of(folders.raw))])
    write_atomically(
        out, lambda path: write_audit_page(path, folders.raw.name, audit, labelling, pictures)
    )
    return audit


# ---- the predictions ----


def select_trainings(text: str, folds: Sequence[str] | None) -> tuple[str, ModelSelection]:
    """Return the data set and the trainings of a model in nnUNet_results.

    Raises:
        UserError: there is no such model, or it lies elsewhere.
    """
    model = find_model(text)
    folder, (trainer, plans, configuration) = model.folder, model.parts
    if folder.parent.resolve() != find_folders(folder.parent.name).results.resolve():
        raise UserError(
            f"-m must be a model below nnUNet_results, got {folder}",
            fix="move it there, or set nnUNet_results",
        )
    if folds is None and Path(text).name.startswith("fold_"):
        folds = model.folds
    return folder.parent.name, ModelSelection([configuration], [trainer], plans, folds)


def find_complete_models(folders: Folders, selection: ModelSelection) -> list[list[Job]]:
    """Return the trainings of each model that has predicted every validation case.

    Raises:
        UserError: no model has, or predictions were made from other data or labels.
    """
    plans, problems = selection.plans, list[Problem]()
    jobs = [job for job in find_jobs(folders, plans) if job.segments and job.fold != ALL]
    if not jobs:
        require_trained(folders, plans)
        fix = suggest_command(
            "crossval", dataset=folders.raw.name, configurations=["2d"], trainers=[BASELINE],
            plans=plans,
        )  # fmt: skip
        raise UserError("There are no predictions of labelled cases", fix=fix)
    names = [(job.trainer, job.configuration) for job in jobs]
    trainers, configurations = selection.trainers, selection.configurations
    why = f"was not trained with {plans}"
    require_trained_names(names, unique(trainers or ()), unique(configurations or ()), why)
    folds = unique(selection.folds or list_folds(folders))
    raise_if_any("The labels cannot be audited:", find_fold_problems(folders, folds))
    models = defaultdict[tuple[str, str, str], list[Job]](list)
    for job in jobs:
        is_selected = job.trainer in (trainers or [job.trainer])
        if is_selected and job.configuration in (configurations or [job.configuration]):
            models[job.trainer, job.configuration, job.plans].append(job)
    complete = []
    for model, trained in models.items():
        chosen = [job for job in trained if job.fold in folds]
        if missing := list_unpredicted(folders, chosen, folds):
            problems.append(_describe_unpredicted(folders, model, missing))
        else:
            complete.append(chosen)
    if not complete:
        raise_if_any("The labels cannot be audited:", problems)
    for problem in problems:
        logger.info(f"left out: {problem}")
    stale = [problem for model in complete for problem in find_stale_predictions(folders, model)]
    raise_if_any("The predictions were made from other labels:", dict.fromkeys(stale))
    return complete


def list_unpredicted(
    folders: Folders, jobs: Sequence[Job], folds: Sequence[str]
) -> dict[str, list[str]]:
    """Return fold -> validation cases without a prediction, of a finished training."""
    validated = {job.fold: job for job in jobs if job.is_trained and job.is_validated}
    missing = {}
    for number, fold in enumerate(foresee_folds(folders)):
        if (name := str(number)) not in folds:
            continue
        predicted = validated[name].predicted_cases(VALIDATION_FOLDER) if name in validated else ()
        if cases := sorted({*fold["val"]}.difference(predicted)):
            missing[name] = cases
    return missing


def _describe_unpredicted(
    folders: Folders, model: tuple[str, str, str], missing: Mapping[str, Sequence[str]]
) -> Problem:
    trainer, configuration, plans = model
    original, seed = split_seed_name(plans)
    command = suggest_command(
        "crossval", dataset=folders.raw.name, configurations=[configuration], trainers=[trainer],
        plans=original, seeds=seed + 1,
    )  # fmt: skip
    cases = [case for names in missing.values() for case in names]
    defect = f"fold {', '.join(missing)} lacks predictions of {list_first(cases, 3)}"
    fix = f"{command}; or audit only other folds with -f"
    return Problem(f"{trainer} {configuration} ({plans})", defect, fix)


# ---- the list ----


def find_case_files(folders: Folders, jobs: Sequence[Job]) -> tuple[CaseFiles, list[FilesOfCase]]:
    """Return the files of the validation cases of one model.

    Raises:
        UserError: images or labels are missing.
    """
    files = CaseFiles(folders, VALIDATION_FOLDER, jobs)
    cases, problems, folds = [], [], foresee_folds(folders)
    for job in jobs:
        for case in folds[int(job.fold)]["val"]:
            prediction, reference = job.validation / f"{case}{files.ending}", files.reference(case)
            if case not in files.images or not reference.is_file():
                fix = "put image and label back, or run semi_nnunet preprocess"
                problems.append(Problem(case, "has no image or no label", fix))
                continue
            labels = {"reference": reference, "method": prediction}
            image = files.images[case]
            cases.append(FilesOfCase(case, image, labels, {}, job.fold, job.seed))
    raise_if_any("The labels cannot be audited:", problems)
    return files, cases


def compare_files(labelling: Labelling, files: FilesOfCase) -> Disagreement:
    """Read the label and the prediction of a case, and compare them.

    Raises:
        UserError: a file cannot be read, or the two have different shapes.
    """
    try:
        label, geometry = read_voxels(files.labels["reference"], labelling, True)
        prediction, _ = read_voxels(files.labels["method"], labelling, True)
    except BrokenFileError as error:
        raise UserError(f"a file of {files.case} {error}", fix=error.fix) from error
    if label.shape != prediction.shape:
        raise UserError(
            f"the label of {files.case} has the shape {label.shape[1:]}, its prediction "
            f"{prediction.shape[1:]}",
            fix="repeat semi_nnunet preprocess and crossval",
        )
    return compare_label(
        label[0].astype(int), prediction[0].astype(int), geometry.spacing, labelling.classes,
        labelling.list_classes(files.case), labelling.ignore,
    )  # fmt: skip
