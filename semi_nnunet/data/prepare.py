"""From a raw data set with ``imagesUn`` to everything training needs: verify, plan, preprocess; resumable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from semi_nnunet.data.integrity import (
    CaseReport,
    cases_in,
    check_dataset,
    dataset_problems,
    duplicate_problems,
)
from semi_nnunet.data.layout import (
    UNLABELLED_IMAGES,
    preprocessed_dataset,
    raw_dataset,
    require_paths,
    unlabelled_folder,
)
from semi_nnunet.data.preprocessing import Case, Recipe, adopt_stock_preprocessing, preprocess_cases
from semi_nnunet.errors import Problem, UserError
from semi_nnunet.files import read_json, write_json

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
SKIPPED_FILE = "semi_skipped.json"


def prepare(
    dataset: str,
    configurations: Sequence[str] | None,
    plans_name: str,
    planner: str,
    num_processes: int,
    skip_bad: bool,
) -> dict[str, tuple[int, int]]:
    """Verify, plan and preprocess; may be interrupted and called again.

    Args:
        dataset: number or name.
        configurations: which to preprocess; None: every one of the plans that has its own data.
        plans_name: nnU-Net's plans identifier.
        planner: nnU-Net's planner class, used where the plans do not exist yet.
        num_processes: worker processes.
        skip_bad: set bad unlabelled cases aside instead of stopping.

    Returns:
        configuration -> (labelled cases, unlabelled cases) that are ready.

    Raises:
        UserError: every bad input, in one pass, before anything is written.
    """
    require_paths("raw", "preprocessed")
    raw, preprocessed = raw_dataset(dataset), preprocessed_dataset(dataset)
    reports, skipped = verify(raw, num_processes, skip_bad)
    plans = plan_if_needed(raw, preprocessed, plans_name, planner, num_processes)
    dataset_json = read_json(preprocessed / "dataset.json")
    hashes = {(report.subset, report.case): report.content_hash or "" for report in reports}
    labelled = labelled_cases(raw, dataset_json, hashes)
    unlabelled = [
        Case(name, tuple(files), None, hashes["unlabelled", name])
        for name, files in cases_in(raw / UNLABELLED_IMAGES, dataset_json["file_ending"]).items()
        if name not in skipped
    ]
    write_json(preprocessed / SKIPPED_FILE, skipped)
    ready = {}
    for configuration in requested(plans, configurations):
        recipe = Recipe(plans, configuration, dataset_json)
        folder = preprocessed / PlansManager(plans).get_configuration(configuration).data_identifier
        if adopt_stock_preprocessing(labelled, recipe, folder, preprocessed / "gt_segmentations"):
            print(
                f"{configuration}: took over {len(labelled)} labelled cases preprocessed by nnU-Net"
            )
        preprocess_cases(labelled, recipe, folder, num_processes, f"{configuration}, labelled")
        preprocess_cases(
            unlabelled,
            recipe,
            unlabelled_folder(preprocessed, folder.name),
            num_processes,
            f"{configuration}, unlabelled",
        )
        ready[configuration] = len(labelled), len(unlabelled)
    copy_ground_truth(labelled, preprocessed / "gt_segmentations", dataset_json["file_ending"])
    return ready


def verify(
    raw: Path, num_processes: int, skip_bad: bool
) -> tuple[list[CaseReport], dict[str, list[str]]]:
    """Check the whole raw data set.

    Returns:
        The report of every case, and the unlabelled cases set aside with their problems.

    Raises:
        UserError: everything that is wrong, except what ``skip_bad`` sets aside.
    """
    general = dataset_problems(raw)
    if any(problem.where.endswith("dataset.json") for problem in general):
        raise UserError(f"{raw} cannot be used:", general)
    reports = check_dataset(raw, num_processes)
    duplicates = duplicate_problems(reports)
    bad_unlabelled = {
        report.case: list(report.problems)
        for report in reports
        if report.subset == "unlabelled" and report.problems
    }
    for problem in duplicates:
        bad_unlabelled.setdefault(case_of(problem, reports), []).append(problem)
    serious = [
        problem
        for report in reports
        if report.subset != "unlabelled"
        for problem in report.problems
    ]
    of_unlabelled = [problem for problems in bad_unlabelled.values() for problem in problems]
    everything = general + serious + ([] if skip_bad else of_unlabelled)
    if everything:
        hint = (
            " (--skip-bad sets bad unlabelled cases aside)"
            if of_unlabelled and not skip_bad
            else ""
        )
        raise UserError(f"{len(everything)} problems in {raw}{hint}:", everything)
    if bad_unlabelled:
        print(
            f"set aside {len(bad_unlabelled)} bad unlabelled cases:",
            *(f"  {problem}" for problem in of_unlabelled),
            sep="\n",
        )
    return reports, {
        case: [str(problem) for problem in problems] for case, problems in bad_unlabelled.items()
    }


def case_of(problem: Problem, reports: Sequence[CaseReport]) -> str:
    """The unlabelled case that a problem of duplicated content is about."""
    names = sorted(
        (report.case for report in reports if report.subset == "unlabelled"), key=len, reverse=True
    )
    return next(name for name in names if name in problem.where)


def plan_if_needed(
    raw: Path, preprocessed: Path, plans_name: str, planner: str, num_processes: int
) -> dict[str, Any]:
    """nnU-Net's fingerprint and plans; what is there and still fits is kept."""
    plans_file = preprocessed / f"{plans_name}.json"
    number = int(raw.name[7:10])
    if not plans_file.is_file() or not _fingerprint_fits(raw, preprocessed):
        with variable_unset("nnUNet_n_proc_DA"):  # nnU-Net's planner fails where it is 0
            extract_fingerprints(
                [number],
                num_processes=num_processes,
                clean=not _fingerprint_fits(raw, preprocessed),
                verbose=False,
            )
            written = plan_experiments([number], planner, overwrite_plans_name=plans_name)
        plans_file = preprocessed / f"{written}.json"
    return dict(read_json(plans_file))


def _fingerprint_fits(raw: Path, preprocessed: Path) -> bool:
    """Whether there is a fingerprint of as many cases as imagesTr holds now."""
    path = preprocessed / "dataset_fingerprint.json"
    return (
        path.is_file()
        and len(read_json(path)["spacings"]) == read_json(raw / "dataset.json")["numTraining"]
    )


@contextmanager
def variable_unset(name: str) -> Iterator[None]:
    """Inside the block the environment variable ``name`` is not set."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def labelled_cases(
    raw: Path, dataset_json: Mapping[str, Any], hashes: Mapping[tuple[str, str], str]
) -> list[Case]:
    """The training cases of a raw data set, as nnU-Net lists them."""
    files = get_filenames_of_train_images_and_targets(str(raw), dict(dataset_json))
    return [
        Case(str(name), tuple(entry["images"]), entry["label"], hashes["labelled", str(name)])
        for name, entry in files.items()
    ]


def requested(plans: Mapping[str, Any], configurations: Sequence[str] | None) -> list[str]:
    """The configurations to preprocess; a cascade's second stage uses the data of 3d_fullres.

    Raises:
        UserError: one is not in the plans.
    """
    available = [
        name
        for name in plans["configurations"]
        if "inherits_from" not in plans["configurations"][name]
    ]
    if configurations is None:
        return [name for name in CONFIGURATIONS if name in available]
    unknown = [name for name in configurations if name not in plans["configurations"]]
    if unknown:
        raise UserError(
            f"the plans have no configuration {', '.join(unknown)}. Fix: choose from {', '.join(plans['configurations'])}"
        )
    roots = [plans["configurations"][name].get("inherits_from", name) for name in configurations]
    return list(dict.fromkeys(roots))


def copy_ground_truth(cases: Sequence[Case], folder: Path, file_ending: str) -> None:
    """Copy the labels to where nnU-Net's validation looks for them, where they are missing or older."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        target = folder / f"{case.name}{file_ending}"
        source = Path(str(case.label))
        if not target.is_file() or target.stat().st_mtime < source.stat().st_mtime:
            shutil.copy2(source, target)
