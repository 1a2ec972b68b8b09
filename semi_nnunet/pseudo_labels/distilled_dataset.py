"""Write a data set of labelled and pseudo-labelled cases on which any trainer can train.

Omni-supervision (Radosavovic et al. 2018). Pseudo-labelled cases train in every fold and validate
in none; their record holds the models, views and score that they come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.preprocessing.planning import describe_origin, fingerprint_fits
from semi_nnunet.pseudo_labels.choice import SelectionRule, score_cases, select_cases
from semi_nnunet.pseudo_labels.pool import LabellingRequest, choose_ignore_label
from semi_nnunet.raw import classes as annotated_classes
from semi_nnunet.raw.benchmark_split import FileTransfer
from semi_nnunet.raw.description import find_cases, list_files
from semi_nnunet.raw.folds import (
    PATIENT_KEY,
    Fold,
    PatientOf,
    extend_fold,
    load_folds,
    make_folds,
    require_whole_patients,
    save_folds,
)
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    DISTILLED_FILE,
    PSEUDO_LABELLED_FILE,
    SPLITS_FILE,
    UNLABELLED_IMAGES,
    read_dataset_number,
    was_dataset_made,
)
from semi_nnunet.raw.plans import list_plans_files
from semi_nnunet.settings.overrides import collect_user_layers
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import (
    folder_aside,
    optional_json,
    read_json,
    sha256_of_json,
    sha256_of_version,
    write_json,
)
from semi_nnunet.util.names import unknown

# keys of the record: checksums of the annotated cases, and of test cases with the pool's names
FILES, OTHERS = "files", "other_files"


def require_image_folders(source: Path) -> None:
    """Check that a raw data set keeps its cases in imagesTr and labelsTr.

    Raises:
        UserError: its dataset.json lists them.
    """
    if "dataset" in read_json(source / DATASET_JSON):
        raise UserError(
            f"{source}/dataset.json lists its files one by one, to which pseudo-dataset cannot add",
            fix="use the folders imagesTr and labelsTr",
        )


# ---- raw data set ----


def write_distilled_dataset(
    source: Path,
    target: Path,
    request: LabellingRequest,
    choice: SelectionRule,
    symlink: bool,
    skipped: Collection[str] = (),
    completed: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """Write the raw data set ``target`` and return its pseudo-labelled cases with uncertainty.

    imagesTr has the labelled cases of ``source`` and the selected ones with their pseudo labels,
    imagesUn the rest of the pool, imagesTs the test cases.

    Args:
        source, target: raw folders.
        request: of the labelled pool.
        choice: selects the cases.
        symlink: link to files instead of copying them.
        skipped: cases to leave out.
        completed: case -> label that annotates all classes and replaces its annotation.

    Raises:
        UserError: ``target`` exists with another content.
    """
    description = read_json(source / DATASET_JSON)
    ending, put = description["file_ending"], FileTransfer(symlink)
    labelled = find_cases(source / "imagesTr", ending)
    selected = select_cases(score_cases(request, choice, {*skipped, *labelled}), choice)
    completed = completed or {}
    record = {
        "source": source.name,
        "labelled": sorted(labelled),
        **({"completed": sorted(completed)} if completed else {}),
        **{
            key: description[key]
            for key in (PATIENT_KEY, annotated_classes.ANNOTATED_KEY)
            if key in description
        },
        **request.record(),
        "choice": choice.record(),
        "uncertainty": {case: round(value, 6) for case, value in sorted(selected.items())},
    }
    before = optional_json(target / DISTILLED_FILE)
    record["images"] = before.get("images", record["images"])  # the raw data may have moved
    if FILES in before or not before:  # earlier versions did not record it
        record[FILES] = digest_annotated_cases(source, labelled, ending)
    if OTHERS in before or not before:
        record[OTHERS] = digest_other_files(source, ending)
    if was_dataset_made(target, DISTILLED_FILE, to_plain_values(record)):
        return selected
    with folder_aside(target, "No data set was made") as aside:
        for case, files in labelled.items():
            for file in files:
                put(Path(file), aside / "imagesTr")
            annotation = source / "labelsTr" / f"{case}{ending}"
            put(completed.get(case, annotation), aside / "labelsTr")
        for case, files in find_cases(source / UNLABELLED_IMAGES, ending).items():
            if case in skipped:
                continue
            for file in files:
                put(Path(file), aside / ("imagesTr" if case in selected else UNLABELLED_IMAGES))
            if case in selected:
                put(request.label_path(case), aside / "labelsTr")
        for folder in ("imagesTs", "labelsTs"):
            for name in list_files(source / folder):
                if name.endswith(ending):
                    put(source / folder / name, aside / folder)
        labels, tests = (
            add_ignore_label(description, request),
            find_cases(aside / "imagesTs", ending),
        )
        total = len(labelled) + len(selected)
        still_partial = [*({*labelled} - {*completed}), *tests]
        description = annotated_classes.restrict_annotations(description, still_partial)
        write_json(aside / DATASET_JSON, {**description, "labels": labels, "numTraining": total})
        write_json(aside / DISTILLED_FILE, to_plain_values(record))
    return selected


def digest_annotated_cases(source: Path, cases: Mapping[str, Sequence[str]], ending: str) -> str:
    """Return a checksum of the images and labels of the labelled cases."""
    paths = [Path(file) for files in cases.values() for file in files]
    paths += [source / "labelsTr" / f"{case}{ending}" for case in cases]
    return sha256_of_json(list_checksums(paths))


def digest_other_files(source: Path, ending: str) -> str:
    """Return a checksum of the test cases, and of the names of the unlabelled images."""
    tests = [
        source / folder / name
        for folder in ("imagesTs", "labelsTs")
        for name in list_files(source / folder)
        if name.endswith(ending)
    ]
    return sha256_of_json(
        {
            "tests": list_checksums(tests),
            "unlabelled": sorted(find_cases(source / UNLABELLED_IMAGES, ending)),
        }
    )


def list_checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Return FOLDER/NAME -> SHA-256 of files."""
    return {f"{path.parent.name}/{path.name}": sha256_of_version(path) for path in paths}


def list_partial_cases(source: Path) -> list[str]:
    """Return the labelled cases of a raw data set that do not annotate every class.

    Raises:
        UserError: its dataset.json declares none.
    """
    description = read_json(source / DATASET_JSON)
    annotated = annotated_classes.AnnotatedClasses.of(description)
    cases = sorted(find_cases(source / "imagesTr", description["file_ending"]))
    partial = [case for case in cases if annotated is not None and annotated.leaves_out(case)]
    if not partial:
        raise UserError(
            f"--complete needs cases that do not annotate every class, and "
            f"{source / 'dataset.json'} declares none by {annotated_classes.ANNOTATED_KEY!r}",
            fix="leave --complete out, or declare them",
        )
    return partial


def add_ignore_label(description: Mapping[str, Any], request: LabellingRequest) -> dict[str, Any]:
    """Return the labels of dataset.json, with the ignore label that unsure voxels have."""
    labels = dict(description["labels"])
    if request.confidence and "ignore" not in labels:
        model = request.trained[0]
        manager = PlansManager(model.plans).get_label_manager(dict(description))
        labels["ignore"] = choose_ignore_label(manager)
    return labels


# ---- folds ----


def load_or_make_folds(source: Path, labelled: Sequence[str], patient_of: PatientOf) -> list[Fold]:
    """Return the folds of a preprocessed data set, or those it would get; [] with one patient.

    Args:
        source: its folder.
        labelled: its cases.
        patient_of: see :func:`~semi_nnunet.raw.folds.build_patient_finder`.

    Raises:
        UserError: the folds split a patient.
    """
    folds = load_folds(source) or make_folds(labelled, patient_of)
    for number, fold in enumerate(folds):
        require_whole_patients(source / SPLITS_FILE, number, fold, patient_of)
    return folds


def remove_from_folds(folds: Sequence[Fold], cases: Collection[str]) -> list[Fold]:
    """Return folds without these cases; [] if a fold would have no validation case.

    >>> remove_from_folds([{"train": ["a", "b"], "val": ["c"]}], ["b"])
    [{'train': ['a'], 'val': ['c']}]
    """
    remaining = [
        {subset: [case for case in fold[subset] if case not in cases] for subset in fold}
        for fold in folds
    ]
    return remaining if all(fold["val"] for fold in remaining) else []


def write_distilled_folds(
    folds: Sequence[Fold], target: Path, pseudo_labelled: Collection[str], patient_of: PatientOf
) -> int:
    """Write splits_final.json: folds of the labelled cases, with pseudo-labelled ones to train on.

    Pseudo-labelled cases of a patient that a fold validates on are not in its training.

    Args:
        folds: of :func:`load_or_make_folds`.
        target: preprocessed folder of the new data set; existing folds are kept.
        pseudo_labelled: cases.
        patient_of: see :func:`~semi_nnunet.raw.folds.build_patient_finder`.

    Returns:
        The number of folds. If it is 0, only fold "all" is possible: nnU-Net's folds would validate
        on pseudo labels.

    Raises:
        UserError: existing folds do not fit the cases.
    """
    path = target / SPLITS_FILE
    splits = [extend_fold(fold, pseudo_labelled, patient_of) for fold in folds]
    if path.is_file():
        existing = load_folds(target)
        for number, fold in enumerate(existing):
            require_whole_patients(path, number, fold, patient_of)
        if collect_fold_cases(existing) != collect_fold_cases(splits):
            raise UserError(
                f"{path} has folds of other cases than the data set",
                fix="remove it, or add the missing cases",
            )
        return len(existing)
    target.mkdir(parents=True, exist_ok=True)
    save_folds(target, splits)
    return len(splits)


def write_pseudo_labelled_cases(target: Path, cases: Iterable[str]) -> None:
    """Write the list of cases whose labels are a model's, next to splits_final.json."""
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / PSEUDO_LABELLED_FILE, to_plain_values(sorted(cases)))


def collect_fold_cases(splits: Sequence[Mapping[str, Sequence[str]]]) -> set[str]:
    """Return the cases of all folds."""
    return {case for fold in splits for subset in fold.values() for case in subset}


# ---- plans ----


def load_available_plans(
    preprocessed: Path, models: Sequence[TrainedModel]
) -> dict[str, dict[str, Any]]:
    """Return the plans that a new data set can take over, by name: of the source and the models."""
    of_models = {str(model.plans["plans_name"]): model.plans for model in reversed(models)}
    of_source = {path.stem: dict(read_json(path)) for path in list_plans_files(preprocessed)}
    return of_models | of_source


def find_missing_plans(
    name: str, configuration: str, plans: Mapping[str, dict[str, Any]]
) -> Iterator[Problem]:
    """Yield a problem if the plans or their configuration do not exist."""
    yield from unknown("plans", [name], plans)
    if name in plans:
        yield from unknown("configuration", [configuration], plans[name]["configurations"])


def list_cascade_stages(plans: Mapping[str, Any], configuration: str) -> tuple[str, ...]:
    """Return the configurations to train for one of them, first stages of a cascade first."""
    if configuration not in plans["configurations"]:
        return (configuration,)
    stage = PlansManager(dict(plans)).get_configuration(configuration).previous_stage_name
    return (*(() if stage is None else list_cascade_stages(plans, stage)), configuration)


def write_distilled_plans(
    raw: Path, preprocessed: Path, name: str, plans: Mapping[str, Any], processes: int
) -> None:
    """Write plans of another data set for a new one, as nnUNetv2_move_plans_between_datasets does.

    Settings that a user gave are kept; those derived for the other cases are derived again when
    training starts. nnU-Net's fingerprint of the new cases marks the plans as theirs, so that
    ``semi_nnunet preprocess`` does not plan. Existing plans are kept.

    Args:
        raw: the new data set.
        preprocessed: its preprocessed folder.
        name: of the plans.
        plans: their content.
        processes: number of processes that read the images.
    """
    if not fingerprint_fits(raw, preprocessed):
        extract_fingerprints([read_dataset_number(raw)], num_processes=processes, verbose=False)
        write_json(preprocessed / DATASET_JSON, read_json(raw / DATASET_JSON))
    path = preprocessed / f"{name}.json"
    if path.is_file():
        return
    settings = collect_user_layers(plans)
    moved = {**plans, "dataset_name": raw.name, "plans_name": name, "semi": settings}
    if "semi_planned" in plans:
        own: dict[str, Any] = {"given": settings, "semi": settings}
        own |= describe_origin(preprocessed)
        moved["semi_planned"] = {**plans["semi_planned"], **own}
    write_json(path, moved)
