"""A data set of labelled and pseudo-labelled cases, that any trainer can train on.

Omni-supervision (Radosavovic et al. 2018). The pseudo-labelled cases are in the training part of
every fold and in no validation; their record says which models, views and score they come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data import annotated_classes
from semi_nnunet.data.existing_plans import fingerprint_fits
from semi_nnunet.data.integrity import cases_in
from semi_nnunet.data.layout import (
    DISTILLED_FILE,
    PSEUDO_LABELLED_FILE,
    UNLABELLED_IMAGES,
    is_plans,
    was_made,
)
from semi_nnunet.data.patients import (
    KEY,
    Fold,
    PatientOf,
    for_training,
    make_folds,
    require_whole,
)
from semi_nnunet.data.splits import Transfer
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.pseudo_labels.choice import Choice, case_scores, choose
from semi_nnunet.pseudo_labels.pool import Request, ignore_value
from semi_nnunet.settings.overrides import given_before
from semi_nnunet.training.checkpoints import plain
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import folder_aside, read_json, write_json
from semi_nnunet.util.names import unknown


def require_folders(source: Path) -> None:
    """Check that a raw data set keeps its cases in imagesTr and labelsTr.

    Raises:
        UserError: its dataset.json lists them.
    """
    if "dataset" in read_json(source / "dataset.json"):
        raise UserError(
            f"{source}/dataset.json lists its files one by one, to which distil cannot add",
            fix="use the folders imagesTr and labelsTr",
        )


def write_distilled(
    source: Path,
    target: Path,
    request: Request,
    choice: Choice,
    symlink: bool,
    skipped: Collection[str] = (),
    completed: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """Write the raw data set ``target``; returns the pseudo-labelled cases in it.

    imagesTr has the labelled cases of ``source`` and the chosen ones with their pseudo labels,
    imagesUn the others, imagesTs the test cases. ``skipped`` are in none of them. ``completed`` are
    labels that replace those of labelled cases, and annotate all classes.

    Raises:
        UserError: ``target`` is something else.
    """
    description = read_json(source / "dataset.json")
    ending, put = description["file_ending"], Transfer(symlink)
    labelled = cases_in(source / "imagesTr", ending)
    taken = choose(case_scores(request, choice, {*skipped, *labelled}), choice)
    completed = completed or {}
    record = {
        "source": source.name,
        "labelled": sorted(labelled),
        **({"completed": sorted(completed)} if completed else {}),
        **{key: description[key] for key in (KEY, annotated_classes.KEY) if key in description},
        **request.record(),
        "choice": choice.record(),
        "uncertainty": {case: round(value, 6) for case, value in sorted(taken.items())},
    }
    if was_made(target, DISTILLED_FILE, plain(record)):
        return taken
    with folder_aside(target, "No data set was made") as aside:
        for case, files in labelled.items():
            for file in files:
                put(Path(file), aside / "imagesTr")
            own = source / "labelsTr" / f"{case}{ending}"
            put(completed.get(case, own), aside / "labelsTr")
        for case, files in cases_in(source / UNLABELLED_IMAGES, ending).items():
            if case in skipped:
                continue
            for file in files:
                put(Path(file), aside / ("imagesTr" if case in taken else UNLABELLED_IMAGES))
            if case in taken:
                put(request.label_of(case), aside / "labelsTr")
        for folder in ("imagesTs", "labelsTs"):
            for path in sorted((source / folder).glob(f"*{ending}")):
                put(path, aside / folder)
        labels, tests = with_ignore(description, request), cases_in(aside / "imagesTs", ending)
        total = len(labelled) + len(taken)
        told = [*({*labelled} - {*completed}), *tests]
        description = annotated_classes.description_of(description, told)
        write_json(aside / "dataset.json", {**description, "labels": labels, "numTraining": total})
        write_json(aside / DISTILLED_FILE, plain(record))
    return taken


def partial_cases(source: Path) -> list[str]:
    """The labelled cases of a raw data set that do not annotate every class.

    Raises:
        UserError: its dataset.json tells of none.
    """
    description = read_json(source / "dataset.json")
    annotated = annotated_classes.AnnotatedClasses.of(description)
    cases = sorted(cases_in(source / "imagesTr", description["file_ending"]))
    found = [case for case in cases if annotated is not None and annotated.leaves_out(case)]
    if not found:
        raise UserError(
            f"--complete needs cases that do not annotate every class, and "
            f"{source / 'dataset.json'} tells of none by {annotated_classes.KEY!r}",
            fix="leave --complete out, or tell it of them",
        )
    return found


def without(folds: Sequence[Fold], cases: Collection[str]) -> list[Fold]:
    """Folds that neither train nor validate on some cases; [] if one would validate on none."""
    left = [
        {part: [case for case in fold[part] if case not in cases] for part in fold}
        for fold in folds
    ]
    return left if all(fold["val"] for fold in left) else []


def with_ignore(description: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The labels of dataset.json, with the ignore label that unsure voxels have."""
    labels = dict(description["labels"])
    if request.confidence and "ignore" not in labels:
        model = request.trained[0]
        manager = PlansManager(model.plans).get_label_manager(dict(description))
        labels["ignore"] = ignore_value(manager)
    return labels


def folds_of(source: Path, labelled: Sequence[str], patient_of: PatientOf) -> list[Fold]:
    """The folds of a preprocessed data set, or those it would have; [] with a single patient.

    Args:
        source: its folder.
        labelled: its cases.
        patient_of: see :func:`~semi_nnunet.data.patients.patient_finder`.

    Raises:
        UserError: they tear patients.
    """
    path = source / "splits_final.json"
    folds = list(read_json(path)) if path.is_file() else make_folds(labelled, patient_of)
    for number, fold in enumerate(folds):
        require_whole(path, number, fold, patient_of)
    return folds


def write_folds(
    folds: Sequence[Fold], target: Path, taken: Collection[str], patient_of: PatientOf
) -> int:
    """Write splits_final.json: folds of the labelled cases, pseudo-labelled ones for training.

    Those of patients whom a fold validates on are not in its training.

    Args:
        folds: of :func:`folds_of`.
        target: preprocessed folder of the new data set; folds that are there are kept.
        taken: pseudo-labelled cases.
        patient_of: see :func:`~semi_nnunet.data.patients.patient_finder`.

    Returns:
        The number of folds; with none, fold "all" is left: nnU-Net's would validate on pseudo
        labels.

    Raises:
        UserError: folds that are there do not fit the cases.
    """
    path = target / "splits_final.json"
    splits = [for_training(fold, taken, patient_of) for fold in folds]
    if path.is_file():
        there = read_json(path)
        for number, fold in enumerate(there):
            require_whole(path, number, fold, patient_of)
        if cases_of(there) != cases_of(splits):
            raise UserError(
                f"{path} has folds of other cases than the data set",
                fix="remove it, or add to it what is missing",
            )
        return len(there)
    target.mkdir(parents=True, exist_ok=True)
    write_json(path, splits)
    return len(splits)


def write_pseudo_labelled(target: Path, taken: Iterable[str]) -> None:
    """Tell the trainers which cases' labels are a model's, beside splits_final.json."""
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / PSEUDO_LABELLED_FILE, plain(sorted(taken)))


def cases_of(splits: Sequence[Mapping[str, Sequence[str]]]) -> set[str]:
    """The cases of all folds."""
    return {case for fold in splits for part in fold.values() for case in part}


def known_plans(preprocessed: Path, models: Sequence[TrainedModel]) -> dict[str, dict[str, Any]]:
    """The plans that a new data set can take over, by name: of the source, and of the models."""
    of_models = {str(model.plans["plans_name"]): model.plans for model in reversed(models)}
    paths = [path for path in sorted(preprocessed.glob("*.json")) if is_plans(path)]
    return of_models | {path.stem: dict(read_json(path)) for path in paths}


def plans_problems(
    name: str, configuration: str, plans: Mapping[str, dict[str, Any]]
) -> Iterator[Problem]:
    """Plans and a configuration that do not exist."""
    yield from unknown("plans", [name], plans)
    if name in plans:
        yield from unknown("configuration", [configuration], plans[name]["configurations"])


def stages_of(plans: Mapping[str, Any], configuration: str) -> tuple[str, ...]:
    """The stages trained for a configuration: in a cascade, those before it come first."""
    if configuration not in plans["configurations"]:
        return (configuration,)
    before = PlansManager(dict(plans)).get_configuration(configuration).previous_stage_name
    return (configuration,) if before is None else (*stages_of(plans, before), configuration)


def write_plans(
    raw: Path, preprocessed: Path, name: str, plans: Mapping[str, Any], processes: int
) -> None:
    """Write plans of another data set for a new one, as nnUNetv2_move_plans_between_datasets does.

    Settings that a person gave stay; those that the rules had derived for the other cases are
    derived anew when training starts. nnU-Net's fingerprint of the new cases says that the plans
    are theirs, so that ``semi_nnunet preprocess`` does not plan. Plans that are there are kept.

    Args:
        raw: the new data set.
        preprocessed: its preprocessed folder.
        name: of the plans.
        plans: their content.
        processes: that read the images.
    """
    if not fingerprint_fits(raw, preprocessed):
        extract_fingerprints([int(raw.name[7:10])], num_processes=processes, verbose=False)
        write_json(preprocessed / "dataset.json", read_json(raw / "dataset.json"))
    path = preprocessed / f"{name}.json"
    if path.is_file():
        return
    given = given_before(plans)
    moved = {**plans, "dataset_name": raw.name, "plans_name": name, "semi": given}
    if "semi_planned" in plans:
        moved["semi_planned"] = {**plans["semi_planned"], "given": given, "semi": given}
    write_json(path, moved)
