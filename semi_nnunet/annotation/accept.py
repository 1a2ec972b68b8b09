"""Accept reviewed labels into a data set: raw files, folds, preprocessed arrays and records.

Everything is checked before anything is written. New preprocessed arrays are computed in a folder
next to the others, and then all files change in one transaction. Plans stay as they are.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semi_nnunet.annotation.review import (
    Proposals,
    ReviewedLabel,
    check_labels,
    compare_with_proposals,
    find_folder_problems,
    find_labels_folder,
    match_cases,
    read_proposals,
)
from semi_nnunet.annotation.segmentations import convert_segmentations, name_segmentation
from semi_nnunet.annotation.transaction import (
    COMMIT,
    PREPARE,
    UNDO,
    Transaction,
    list_done,
    read_transactions,
)
from semi_nnunet.preprocessing.cases import Case, PreprocessingSpec, preprocess_cases
from semi_nnunet.preprocessing.manifest import SOURCE_PARTS, Manifest, get_manifest_file
from semi_nnunet.preprocessing.planning import (
    ORIGINS,
    collect_origins,
    describe_changes,
    fingerprint_fits,
    is_derived,
    is_up_to_date,
)
from semi_nnunet.preprocessing.prepare import (
    PrepareOptions,
    one_at_a_time,
    prepare_for_training,
)
from semi_nnunet.raw.classes import ANNOTATED_KEY, find_annotation_problems
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import add_to_folds, build_patient_finder, find_seen_patients, load_folds
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    DATASET_JSON,
    FINGERPRINT_FILE,
    GROUND_TRUTH,
    PLANNED_FROM,
    ROUNDS_FILE,
    SELECTED_FILE,
    SETTINGS_JSON,
    SKIPPED_FILE,
    SPLITS_FILE,
    UNLABELLED_IMAGES,
    find_fold_folders,
    get_unlabelled_folder,
    read_fold,
    read_rounds,
)
from semi_nnunet.raw.plans import list_plans_files
from semi_nnunet.raw.readers import find_spacing_file, get_spacing_file
from semi_nnunet.runs.folders import ALL, Folders, load_patient_finder
from semi_nnunet.training.one_launch import TRAINING_LOCK
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import optional_json, read_json, sha256_of_file, write_json
from semi_nnunet.util.lock import held, holder_of
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.verify.reports import list_checked_states, read_reports, write_reports
from semi_nnunet.verify.twins import join_known_twins

logger = logging.getLogger(__name__)
LOCK = ".semi_accept.lock"  # in the raw data set


@dataclass(frozen=True)
class AcceptOptions:
    """How reviewed labels are accepted.

    Args:
        replaces: labelled cases may get another label.
        keeps_untouched: unchanged proposals are accepted.
        validates: new cases join the validation of the smallest fold.
        classes: that the labels annotate; (): those that dataset.json says.
        replans: plan again.
        processes: worker processes.
    """

    replaces: bool = False
    keeps_untouched: bool = False
    validates: bool = False
    classes: tuple[str, ...] = ()
    replans: bool = False
    processes: int = 1


@dataclass(frozen=True)
class AcceptedRound:
    """What a call has accepted or taken back.

    Args:
        number: of the round; 0: there was nothing to do.
        added: cases that were unlabelled.
        corrected: cases that had another label.
        outdated: trained folds that learned from the earlier labels.
        plan_changes: what planning again has changed, in words.
        taken_back: whether the round was undone.
    """

    number: int
    added: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    plan_changes: tuple[str, ...] = ()
    taken_back: bool = False


def accept_labels(
    folders: Folders, reviewed: Path | None, proposals: Path | None, options: AcceptOptions
) -> AcceptedRound:
    """Finish an interrupted round, then accept the labels of a folder.

    Args:
        folders: of the data set.
        reviewed: folder of the labels; None: only finish an interrupted round.
        proposals: folder of the labels as the models wrote them, or None.

    Raises:
        UserError: with everything that is wrong; then nothing was moved.
    """
    with _locked(folders):
        finished = finish_interrupted(folders)
        if reviewed is None:
            if finished is None:
                raise UserError("no reviewed labels are given", fix="-i FOLDER")
            return finished
        round_ = _accept(folders, reviewed, proposals, options)
    if not round_.number and finished is not None:
        round_ = finished
    if options.replans:
        round_ = replace(round_, plan_changes=tuple(replan(folders, options.processes)))
    return round_


def take_last_round_back(folders: Folders) -> AcceptedRound:
    """Undo the last round: every file is again as it was.

    Raises:
        UserError: there is no round, or files were edited since, whose edits would be lost.
    """
    with _locked(folders):
        undoes = [round_ for round_ in read_transactions(_roots(folders)) if round_.phase == UNDO]
        finished = finish_interrupted(folders)
        if undoes and finished is not None:
            return finished
        transactions = list_done(read_transactions(_roots(folders)))
        if not transactions:
            raise UserError(
                f"{folders.raw.name} has no round that can be taken back",
                fix="only the last round can, and only once",
            )
        last = transactions[-1]
        raise_if_any("The round cannot be taken back:", last.find_later_edits())
        raise_if_any("The round cannot be taken back:", find_running_trainings(folders))
        record = _find_record(folders.raw, last.number)
        last.undo()
        return _summarise(folders, record, taken_back=True)


@contextmanager
def _locked(folders: Folders) -> Iterator[None]:
    """Hold the locks on the raw and the preprocessed data set; wait for other processes."""

    def log_waiting(holder: str) -> None:
        logger.info("%s accepts labels: waiting for it", holder)

    with ExitStack() as stack:
        stack.enter_context(held(folders.raw / LOCK, log_waiting))
        if folders.preprocessed.is_dir():
            stack.enter_context(one_at_a_time(folders.preprocessed))
        yield


def _roots(folders: Folders) -> dict[str, Path]:
    return {"raw": folders.raw, "preprocessed": folders.preprocessed}


def finish_interrupted(folders: Folders) -> AcceptedRound | None:
    """Finish or discard a round that was interrupted; return the finished one."""
    finished = None
    for transaction in read_transactions(_roots(folders)):
        if transaction.phase == PREPARE:
            transaction.discard()
        elif transaction.phase == COMMIT:
            transaction.commit()
            record = _find_record(folders.raw, transaction.number)
            finished = _summarise(folders, record)
            logger.info("finished round %d, which was interrupted", transaction.number)
        elif transaction.phase == UNDO:
            number = transaction.number
            transaction.undo()
            finished = AcceptedRound(number, taken_back=True)
            logger.info("finished taking back round %d, which was interrupted", number)
    _discard_older(folders)
    return finished


def _discard_older(folders: Folders) -> None:
    """Remove what earlier rounds than the last one kept."""
    for transaction in list_done(read_transactions(_roots(folders)))[:-1]:
        transaction.discard()


def _find_record(raw: Path, number: int) -> dict[str, Any]:
    records = [entry for entry in read_rounds(raw) if entry.get("round") == number]
    return records[-1] if records else {"round": number, "cases": {}}


def _summarise(
    folders: Folders, record: Mapping[str, Any], taken_back: bool = False
) -> AcceptedRound:
    cases = record["cases"].items()
    added = tuple(case for case, entry in cases if not entry["correction"])
    corrected = tuple(case for case, entry in cases if entry["correction"])
    outdated = () if taken_back else tuple(list_outdated_trainings(folders, added, corrected))
    return AcceptedRound(int(record["round"]), added, corrected, outdated, taken_back=taken_back)


# ---- checks ----


def _accept(
    folders: Folders, reviewed: Path, proposals: Path | None, options: AcceptOptions
) -> AcceptedRound:
    with tempfile.TemporaryDirectory() as scratch:  # for labels of segmentations
        return _accept_labels(folders, reviewed, proposals, options, Path(scratch))


def _accept_labels(
    folders: Folders,
    reviewed: Path,
    proposals: Path | None,
    options: AcceptOptions,
    scratch: Path,
) -> AcceptedRound:
    raw = RawDataset.of(folders.raw)
    given = find_labels_folder(reviewed)
    folder, unconverted = convert_segmentations(given, raw, scratch)
    labels, accepted, problems = match_cases(folder, raw, options.classes, options.replaces)
    problems += [*unconverted, *find_folder_problems(given)]
    entry = {ANNOTATED_KEY: {"the labels": list(options.classes)}} if options.classes else {}
    problems += find_annotation_problems({**raw.description, **entry}, "--annotated")
    checked, defects = check_labels(labels, raw, options.processes)
    problems += defects
    proposed, sound = read_proposals(given, proposals), _without_problems(checked)
    compared, untouched = compare_with_proposals(sound, raw, proposed, options.keeps_untouched)
    problems += untouched
    ending = raw.description["file_ending"]
    problems = [name_segmentation(problem, folder, given, ending) for problem in problems]
    problems += find_running_trainings(folders)
    with collect_errors(problems, str(folders.preprocessed / SPLITS_FILE)):
        load_folds(folders.preprocessed)
    specs = list[PreprocessingSpec]()
    with collect_errors(problems, str(folders.preprocessed)):
        specs = find_specs(folders.preprocessed, raw)
    if not labels and not accepted and not problems:
        problems.append(Problem(str(given), f"holds no label CASE{ending}", "correct -i"))
    raise_if_any(f"The labels of {given} cannot be accepted (nothing was moved):", problems)
    if not labels:
        logger.info("nothing to do: all %d labels are accepted already", len(accepted))
        return AcceptedRound(0)
    numbers = [int(record["round"]) for record in read_rounds(folders.raw)]
    numbers += [kept.number for kept in read_transactions(_roots(folders))]
    transaction = Transaction(_roots(folders), max(numbers, default=0) + 1)
    transaction.save(PREPARE)
    try:
        record = stage_round(transaction, folders, raw, compared, proposed, specs, options)
        started = find_running_trainings(folders)  # while the cases were preprocessed
        raise_if_any("The labels cannot be accepted (nothing was moved):", [*started])
        transaction.seal()
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()
    _discard_older(folders)
    return _summarise(folders, record)


def _without_problems(labels: Sequence[ReviewedLabel]) -> list[ReviewedLabel]:
    return [label for label in labels if label.report and not label.report.problems]


def find_running_trainings(folders: Folders) -> Iterator[Problem]:
    """Yield a problem for each training that reads the data set now."""
    for fold in list_trained_folds(folders):
        if holder := holder_of(fold / TRAINING_LOCK):
            yield Problem(str(fold), f"{holder} trains on this data set", "wait for it, or stop it")


def list_trained_folds(folders: Folders) -> Iterator[Path]:
    """Yield the folders of all folds of the data set's trainings."""
    for model in sorted(folders.results.glob("*__*__*")):
        yield from find_fold_folders(model).values()


def list_outdated_trainings(
    folders: Folders, added: Sequence[str], corrected: Sequence[str]
) -> Iterator[str]:
    """Yield the trainings that learned without the added or from the corrected labels.

    A training that has seen patients whom its fold validates on now is outdated, too. nnU-Net's own
    trainers do not record their cases: they learned from those of their fold.
    """
    folds, patient_of = load_folds(folders.preprocessed), load_patient_finder(folders)
    for folder in list_trained_folds(folders):
        cases, number = optional_json(folder / SETTINGS_JSON).get("cases", {}), read_fold(folder)
        learned = {*cases.get("labelled", ())}
        if not any(folder.glob("checkpoint_*.pth")) or (cases and not learned):
            continue  # not begun, or a pre-training without labels
        trained_now, seen = {*added, *corrected}, list[str]()
        if number != ALL and int(number or 0) < len(folds):
            fold = folds[int(number or 0)]
            trained_now &= {*fold["train"]}
            every_case = itertools.chain.from_iterable(cases.values())
            seen = find_seen_patients(every_case, fold["train"], fold["val"], patient_of)
        if trained_now - learned or learned.intersection(corrected) or seen:
            yield f"{folder.parent.name}/{folder.name}"


def find_specs(preprocessed: Path, raw: RawDataset) -> list[PreprocessingSpec]:
    """Return one specification for each folder of preprocessed labelled cases.

    Plans of seeds and other derived plans share the folders of their original.

    Raises:
        UserError: a folder was preprocessed with other plans or labels than there are now.
    """
    candidates: dict[str, list[PreprocessingSpec]] = {}
    for path in list_plans_files(preprocessed):
        plans = read_json(path)
        for configuration in plans["configurations"]:
            spec = PreprocessingSpec(plans, configuration, raw.content)
            if get_manifest_file(preprocessed / spec.data_identifier).is_file():
                candidates.setdefault(spec.data_identifier, []).append(spec)
    part, specs, problems = SOURCE_PARTS.index("preprocessing"), [], list[Problem]()
    for identifier, group in candidates.items():
        entries = Manifest(preprocessed / identifier).present().values()
        made_from = Counter(entry.source.split("-")[part] for entry in entries)
        fitting = [spec for spec in group if spec.digest in made_from]
        if fitting:
            specs.append(fitting[0])
        elif made_from:
            defect = "was preprocessed with other plans or labels than there are now"
            fix = f"semi_nnunet preprocess -d {raw.number} first"
            problems.append(Problem(str(preprocessed / identifier), defect, fix))
    raise_if_any(f"{preprocessed} is outdated:", problems)
    return specs


# ---- new content ----


def stage_round(
    transaction: Transaction,
    folders: Folders,
    raw: RawDataset,
    labels: Sequence[ReviewedLabel],
    proposals: Proposals,
    specs: Sequence[PreprocessingSpec],
    options: AcceptOptions,
) -> dict[str, Any]:
    """Write the new content of all files aside, and list the changes.

    Returns:
        The record of the round.
    """
    added = [label for label in labels if not label.is_correction]
    for label in labels:
        _stage_label(transaction, raw, label)
    description = _describe_with(raw, labels, options.classes)
    write_json(transaction.stage(f"raw/{DATASET_JSON}", protected=True), description)
    record = describe_round(transaction.number, labels, len(raw.labelled), proposals.models)
    rounds = [*read_rounds(folders.raw), record]
    path = transaction.stage(f"raw/{ROUNDS_FILE}", protected=True)
    write_json(path, {"rounds": rounds})
    if (folders.preprocessed / DATASET_JSON).is_file():
        _stage_preprocessed(transaction, folders.preprocessed, labels, specs, options.processes)
        _stage_notes(transaction, folders.preprocessed, labels, options.replans)
        _stage_folds(transaction, folders.preprocessed, added, description, options.validates)
        write_json(transaction.stage(f"preprocessed/{DATASET_JSON}"), description)
        if options.replans:
            _keep_plans(transaction, folders.preprocessed)
    return record


def describe_round(
    number: int, labels: Sequence[ReviewedLabel], labelled_before: int, models: Sequence[str]
) -> dict[str, Any]:
    """Return the record of a round.

    Args:
        labels: the accepted ones.
        labelled_before: number of labelled cases before the round.
        models: that proposed the labels.
    """
    added = sum(not label.is_correction for label in labels)
    cases = {
        label.name: {
            "correction": label.is_correction,
            "changed_voxels": label.changed_voxels,
            "label": label.digest,
        }
        for label in labels
    }
    return {
        "round": number,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "models": list(models),
        "labelled_before": labelled_before,
        "labelled_after": labelled_before + added,
        "cases": cases,
    }


def _stage_label(transaction: Transaction, raw: RawDataset, label: ReviewedLabel) -> None:
    """Copy a label and move the images of its case."""
    target = _name_label(raw, label)
    copy = transaction.stage(target, protected=True)
    shutil.copyfile(label.path, copy)
    if sha256_of_file(copy) != label.digest:
        raise UserError(f"{label.path} changed after its check", fix="repeat the command")
    if sidecar := find_spacing_file(label.path, is_label=True):
        spacing = transaction.stage(str(get_spacing_file(target, is_label=True)))
        shutil.copyfile(sidecar, spacing)
    if label.is_correction:
        return
    images = [Path(image) for image in label.case.images]
    if sidecar := find_spacing_file(images[0], is_label=False):
        images.append(sidecar)
    for image in images:
        transaction.move(f"raw/{UNLABELLED_IMAGES}/{image.name}", f"raw/imagesTr/{image.name}")


def _name_label(raw: RawDataset, label: ReviewedLabel) -> str:
    """Return the place of a label in the data set, "raw/..."."""
    listed = raw.description.get("dataset", {}).get(label.name, {}).get("label")
    if listed is not None:
        path = next(case.label for case in raw.cases if case.case == label.name)
        place = Path(str(path)).absolute()
        if not place.is_relative_to(raw.folder.absolute()):
            raise UserError(
                f"the label of {label.name} lies outside of the data set, in {place}",
                fix="correct it there, and run semi_nnunet preprocess",
            )
        return f"raw/{place.relative_to(raw.folder.absolute()).as_posix()}"
    return f"raw/labelsTr/{label.name}{raw.description['file_ending']}"


def _describe_with(
    raw: RawDataset, labels: Sequence[ReviewedLabel], classes: Sequence[str]
) -> dict[str, Any]:
    """Return dataset.json with more labelled cases."""
    description, ending = dict(raw.content), raw.description["file_ending"]
    added = [label for label in labels if not label.is_correction]
    if "dataset" in description:
        listing = {
            label.name: {
                "images": [f"imagesTr/{Path(image).name}" for image in label.case.images],
                "label": f"labelsTr/{label.name}{ending}",
            }
            for label in added
        }
        description["dataset"] = {**description["dataset"], **listing}
    if classes:
        annotated = {label.name: list(classes) for label in labels}
        description[ANNOTATED_KEY] = {**description.get(ANNOTATED_KEY, {}), **annotated}
    description["numTraining"] = len(raw.labelled) + len(added)
    return description


def _stage_preprocessed(
    transaction: Transaction,
    preprocessed: Path,
    labels: Sequence[ReviewedLabel],
    specs: Sequence[PreprocessingSpec],
    processes: int,
) -> None:
    """Preprocess the cases aside, and remove their unlabelled arrays."""
    cases = [_as_case(label) for label in labels]
    for spec in specs:
        identifier = spec.data_identifier
        aside = transaction.side_folder("preprocessed") / "new" / identifier
        preprocess_cases(cases, spec, aside, processes, f"{spec.configuration}, accepted")
        for entry in Manifest(aside).read().values():
            for name in entry.files:
                transaction.stage(f"preprocessed/{identifier}/{name}")
        lines = get_manifest_file(aside).read_bytes()
        manifest = get_manifest_file(preprocessed / identifier)
        present = manifest.read_bytes()
        target = transaction.stage(f"preprocessed/{manifest.name}", grows=True)
        target.write_bytes(present + b"\n" * (present[-1:] not in (b"", b"\n")) + lines)
        unlabelled = get_unlabelled_folder(preprocessed, identifier)
        names = [f"{case.name}{ending}" for case in cases for ending in (".pkl", ".b2nd")]
        for name in names:
            if (unlabelled / name).is_file():
                transaction.remove(f"preprocessed/{unlabelled.name}/{name}")
    references = preprocessed / GROUND_TRUTH
    for label in labels if references.is_dir() else ():
        name = label.path.name
        shutil.copyfile(label.path, transaction.stage(f"preprocessed/{GROUND_TRUTH}/{name}"))
        if sidecar := find_spacing_file(label.path, is_label=True):
            copy = transaction.stage(f"preprocessed/{GROUND_TRUTH}/{sidecar.name}")
            shutil.copyfile(sidecar, copy)


def _as_case(label: ReviewedLabel) -> Case:
    report = label.report
    if report is None or report.geometry is None:
        raise UserError(f"{label.path} was not checked", fix="repeat the command")
    return Case(
        label.name, label.case.images, str(label.path), report.content_hash or "",
        report.geometry.spacing, list_checked_states(label.case, report),
    )  # fmt: skip


def _stage_notes(
    transaction: Transaction, preprocessed: Path, labels: Sequence[ReviewedLabel], replans: bool
) -> None:
    """Update the records of preprocessing, so that nothing else counts as changed."""
    added = [label.name for label in labels if not label.is_correction]
    if (path := preprocessed / CHECKED_FILE).is_file():
        reports = read_reports(path)
        for label in labels:
            reports.pop(("unlabelled", label.name), None)
            if label.report is not None:
                reports["labelled", label.name] = label.report
        write_reports(transaction.stage(f"preprocessed/{CHECKED_FILE}"), reports.values())
    skipped = optional_json(preprocessed / SKIPPED_FILE)
    if kept := {case: reasons for case, reasons in skipped.items() if case in added}:
        rest = {case: reasons for case, reasons in skipped.items() if case not in kept}
        write_json(transaction.stage(f"preprocessed/{SKIPPED_FILE}"), rest)
    selected = optional_json(preprocessed / SELECTED_FILE)
    if set(added).intersection(selected.get("cases", ())):
        rest_cases = [case for case in selected["cases"] if case not in added]
        path = transaction.stage(f"preprocessed/{SELECTED_FILE}")
        write_json(path, {**selected, "cases": rest_cases})  # without any, trainings say so
    fingerprint = preprocessed / FINGERPRINT_FILE
    if fingerprint.is_file() and not replans:
        digest, planned = sha256_of_file(fingerprint), optional_json(preprocessed / PLANNED_FROM)
        if planned.get("fingerprint") != digest:
            planned = {**planned, "fingerprint": digest, "cases": {}, "accepted": []}
        names = {label.name for label in labels}
        planned["cases"] = {c: source for c, source in planned["cases"].items() if c not in names}
        planned["accepted"] = [*planned.get("accepted", []), *added]
        write_json(transaction.stage(f"preprocessed/{PLANNED_FROM}"), planned)


def _stage_folds(
    transaction: Transaction,
    preprocessed: Path,
    added: Sequence[ReviewedLabel],
    description: Mapping[str, Any],
    validates: bool,
) -> None:
    folds = load_folds(preprocessed)
    if folds and added:
        patient_of = join_known_twins(build_patient_finder(description), preprocessed)
        joined = add_to_folds(folds, [label.name for label in added], patient_of, validates)
        path = transaction.stage(f"preprocessed/{SPLITS_FILE}", protected=True)
        write_json(path, joined)


# ---- planning again ----


def _keep_plans(transaction: Transaction, preprocessed: Path) -> None:
    """Have an undo restore plans and fingerprint, which planning again writes in place."""
    transaction.remove(f"preprocessed/{FINGERPRINT_FILE}")
    record = optional_json(preprocessed / PLANNED_FROM) | {ORIGINS: collect_origins(preprocessed)}
    write_json(transaction.stage(f"preprocessed/{PLANNED_FROM}"), record)
    for path in list_plans_files(preprocessed):
        shutil.copyfile(path, transaction.stage(f"preprocessed/{path.name}"))


def replan(folders: Folders, processes: int) -> list[str]:
    """Plan and preprocess again, and return what has changed in the plans, in words."""
    preprocessed = folders.preprocessed
    files = list_plans_files(preprocessed)
    before = {path.stem: read_json(path) for path in files}
    is_current = fingerprint_fits(folders.raw, preprocessed) and all(
        is_up_to_date(before[path.stem], path) for path in files
    )
    if not before or is_current:
        return []
    changes = list[str]()
    for name, plans in before.items():
        if is_derived(plans):
            changes.append(f"{name} is of the earlier plans: make it again (semi_nnunet plan)")
            continue
        configurations = [
            configuration
            for configuration in plans["configurations"]
            if (preprocessed / PreprocessingSpec(plans, configuration, {}).data_identifier).is_dir()
        ]
        options = PrepareOptions(
            configurations or None,
            name,
            plans["experiment_planner_used"],
            processes=processes,
            skip_bad=bool(optional_json(preprocessed / SKIPPED_FILE)),
        )
        prepare_for_training(folders.raw.name, options)
        now = read_json(preprocessed / f"{name}.json")
        changes += [f"{name} {change}" for change in describe_changes(plans, now)]
    return changes


def describe_outdated(round_: AcceptedRound) -> str:
    """Return a sentence about the trainings that the round made outdated, or ""."""
    if not round_.outdated:
        return ""
    folds = format_count(round_.outdated, "trained fold")
    return f"{folds} learned before this round: {list_first(round_.outdated)}"
