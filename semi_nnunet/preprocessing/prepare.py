"""Prepare a raw data set with ``imagesUn`` for training: verify, plan, preprocess.

Every step may be interrupted; :func:`prepare_for_training` then does only the unfinished work.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.preprocessing.cases import (
    Case,
    PreprocessingSpec,
    copy_ground_truth,
    log_stage,
    preprocess_labelled,
)
from semi_nnunet.preprocessing.manifest import describe_source_changes, read_sources
from semi_nnunet.preprocessing.planning import (
    ORIGINS,
    get_default_plans_name,
    plan_if_needed,
    select_configurations,
)
from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import build_patient_finder, load_folds
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    DATASET_JSON,
    FINGERPRINT_FILE,
    GROUND_TRUTH,
    PLANNED_FROM,
    SKIPPED_FILE,
    SPLITS_FILE,
    find_raw_dataset,
    get_preprocessed_dataset,
    require_paths,
)
from semi_nnunet.raw.readers import Geometry, format_numbers
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import optional_json, read_json, sha256_of_file, write_json
from semi_nnunet.util.lock import held
from semi_nnunet.util.memory import GIB, memory_bytes
from semi_nnunet.util.names import list_first
from semi_nnunet.util.shards import Shard, find_unfinished_shards
from semi_nnunet.verify.domain import check_domain
from semi_nnunet.verify.integrity import verify_dataset
from semi_nnunet.verify.reports import (
    CaseReport,
    list_checked_states,
    read_reports,
    write_reports,
)
from semi_nnunet.verify.twins import (
    describe_twins,
    find_split_twins,
    find_twins,
    read_twin_groups,
    write_twins,
)

logger = logging.getLogger(__name__)
LOCK = ".semi_preprocess.lock"  # in the folder of the preprocessed data set
MEMORY_FIX = "correct the spacing in its header, remove the case, or use a machine with more memory"


class ShardLauncher(Protocol):
    """Runs shards of unlabelled cases as jobs."""

    @property
    def is_local(self) -> bool:
        """Whether the jobs run on this machine, so that its memory must suffice."""

    def __call__(self, shards: list[Shard[UnlabelledPreprocessing]], unfinished: list[int]) -> bool:
        """Run or submit the unfinished shards.

        Args:
            shards: of all configurations.
            unfinished: their indices.

        Returns:
            Whether all shards are finished now.
        """


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare a data set.

    Args:
        configurations: which to preprocess; None: nnU-Net's three, as far as the plans have them.
        plans: nnU-Net's plans identifier; None: the planner's own.
        planner: nnU-Net's planner class, used if the plans do not exist yet.
        gpu_memory_gb: memory that new plans are made for; None: the planner's own.
        processes: number of worker processes.
        skip_bad: skip bad unlabelled cases instead of raising.
        skip_outliers: skip unlabelled cases that differ much from the labelled ones.
    """

    configurations: Sequence[str] | None = None
    plans: str | None = None
    planner: str = "ExperimentPlanner"
    gpu_memory_gb: float | None = None
    processes: int = 1
    skip_bad: bool = False
    skip_outliers: bool = False


@dataclass(frozen=True)
class PreparedLabelled:
    """A data set in which only unlabelled cases remain to be preprocessed.

    Args:
        configurations: the requested ones.
        labelled: number of labelled cases.
        unlabelled: the usable unlabelled cases.
    """

    preprocessed: Path
    plans: str
    configurations: list[str]
    labelled: int
    unlabelled: list[Case]

    def pools(self) -> list[UnlabelledPreprocessing]:
        """Return the work on the unlabelled cases, an object for each configuration."""
        return [
            UnlabelledPreprocessing(self.preprocessed, self.plans, name)
            for name in self.configurations
        ]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return configuration -> (labelled cases, unlabelled cases)."""
        return dict.fromkeys(self.configurations, (self.labelled, len(self.unlabelled)))


def prepare_for_training(
    dataset: str,
    options: PrepareOptions,
    shards: int | None = None,
    launcher: ShardLauncher | None = None,
) -> dict[str, tuple[int, int]] | None:
    """Verify, plan and preprocess a data set; may be interrupted and called again.

    Args:
        dataset: number or name.
        shards: number of shards into which the unlabelled cases of each configuration are cut;
            None: no shards.
        launcher: runs the shards; None: this process does, one after the other.

    Returns:
        Configuration -> (labelled cases, unlabelled cases) that are ready; None if the launcher
        has not finished all shards.

    Raises:
        UserError: with every bad input, before anything is written; or, after planning, with the
            images that need more memory than this machine has.
    """
    runs_here = launcher is None or launcher.is_local
    prepared = prepare_labelled(dataset, options, checks_memory=runs_here)
    if shards is None:
        with one_at_a_time(prepared.preprocessed):
            for pool in prepared.pools():
                pool.preprocess(prepared.unlabelled, options.processes)
        return prepared.counts()
    all_shards: list[Shard[UnlabelledPreprocessing]] = []
    unfinished: list[int] = []
    with one_at_a_time(prepared.preprocessed):
        for pool in prepared.pools():
            pool.begin(prepared.unlabelled)
            unfinished += [len(all_shards) + n for n in find_unfinished_shards(pool, shards)]
            all_shards += [Shard(pool, number, shards) for number in range(shards)]
    if launcher is None:
        for index in unfinished:
            shard = all_shards[index]
            shard.work.preprocess_shard(shard, options.processes)
        return prepared.counts()
    return prepared.counts() if launcher(all_shards, unfinished) else None


def prepare_labelled(
    dataset: str, options: PrepareOptions, checks_memory: bool = True
) -> PreparedLabelled:
    """Verify all cases, plan, and preprocess the labelled cases.

    Errors are those of :func:`prepare_for_training`.

    Args:
        checks_memory: this machine will preprocess the unlabelled cases, so its memory must
            suffice.
    """
    require_paths("raw", "preprocessed")
    plans_name = options.plans or get_default_plans_name(options.planner)
    folder, preprocessed = find_raw_dataset(dataset), get_preprocessed_dataset(dataset)
    log_stage(f"checking {folder}")
    raw = RawDataset.of(folder)
    if not raw.labelled:
        raise UserError(
            f"{folder} has no labelled case, from which nnU-Net plans",
            fix=f"semi_nnunet next -d {raw.number} chooses images to label first",
        )
    known = read_reports(preprocessed / CHECKED_FILE)
    reports, skipped = verify_dataset(raw, options.processes, options.skip_bad, known)
    with one_at_a_time(preprocessed):
        plans = plan_if_needed(
            raw, preprocessed, plans_name, options.planner, options.processes,
            options.gpu_memory_gb,
        )  # fmt: skip
        selected = select_configurations(plans, options.configurations)
        skipped |= check_domain(raw, reports, skipped, preprocessed, options.skip_outliers)
        if checks_memory:
            skipped |= check_memory(raw, reports, skipped, plans, selected, options.skip_bad)
        record_checks(raw, reports, skipped, preprocessed)
        labelled, unlabelled = list_usable_cases(raw, reports, skipped)
        specs = [PreprocessingSpec(plans, name, raw.content) for name in selected]
        for spec in specs:
            preprocess_labelled(labelled, spec, preprocessed, options.processes)
        folder = preprocessed / specs[0].data_identifier
        warn_of_outdated_plans(preprocessed, read_sources(folder, raw.labelled))
        copy_ground_truth(labelled, preprocessed / GROUND_TRUTH, raw.content["file_ending"])
    return PreparedLabelled(preprocessed, plans_name, selected, len(labelled), unlabelled)


def record_checks(
    raw: RawDataset,
    reports: Sequence[CaseReport],
    skipped: Mapping[str, Any],
    preprocessed: Path,
) -> None:
    """Write what was checked: reports, near-twins, skipped cases and the present dataset.json."""
    write_reports(preprocessed / CHECKED_FILE, reports)
    check_twins(raw, reports, preprocessed)
    write_json(preprocessed / SKIPPED_FILE, skipped)
    if (copied := read_json(preprocessed / DATASET_JSON)) != raw.content:
        if lost := copied.keys() - raw.content.keys():
            logger.warning(
                f"WARNING: {list_first(sorted(lost))} in {preprocessed / DATASET_JSON} is not "
                f"in {raw.folder / DATASET_JSON}, which replaces it"
            )
        write_json(preprocessed / DATASET_JSON, raw.content)


def check_twins(raw: RawDataset, reports: Sequence[CaseReport], preprocessed: Path) -> None:
    """Warn of images that are nearly the same, and record them, so that new folds group them."""
    twins = find_twins(reports, build_patient_finder(raw.description))
    write_twins(preprocessed, twins)
    tests = sum(report.subset == "test" for report in reports)
    for warning in describe_twins(twins, tests):
        logger.warning("WARNING: %s", warning)
    split = find_split_twins(load_folds(preprocessed), read_twin_groups(preprocessed))
    for fold, count in split.items():
        logger.warning(
            f"WARNING: {count} validation cases of fold {fold} have a near-twin among its "
            f"training cases, so that their measures are too good. Fix: remove "
            f"{preprocessed / SPLITS_FILE}; the next training makes new folds. Then train all "
            f"folds again"
        )


def warn_of_outdated_plans(preprocessed: Path, sources: Mapping[str, str]) -> None:
    """Warn if images or labels have changed since nnU-Net's fingerprint was made.

    The first call after a fingerprint was made records the cases.

    Args:
        sources: labelled case -> what it was made from.
    """
    path, fingerprint = preprocessed / PLANNED_FROM, preprocessed / FINGERPRINT_FILE
    if not fingerprint.is_file():
        return  # the plans were copied without it
    digest, record = sha256_of_file(fingerprint), optional_json(path)
    if record.get("fingerprint") != digest or not isinstance(record.get("cases"), dict):
        origins = record.get(ORIGINS, {})
        write_json(path, {"fingerprint": digest, "cases": sources, ORIGINS: origins})
        return
    changes = [
        change
        for change in describe_source_changes(record["cases"], sources)
        if not change.startswith("preprocessing")
    ]
    if changes:
        logger.warning(
            f"WARNING: images or labels have changed since the fingerprint and the plans were "
            f"made: {list_first(changes)}. Fix: remove {fingerprint} and run this command again, "
            f"which plans again; patch and network may change"
        )


def list_usable_cases(
    raw: RawDataset, reports: Sequence[CaseReport], skipped: Mapping[str, Any]
) -> tuple[list[Case], list[Case]]:
    """Return all labelled cases, and the unlabelled ones that are not skipped."""
    checked = {(report.subset, report.case): report for report in reports}
    cases: dict[str, list[Case]] = {"labelled": [], "unlabelled": [], "test": []}
    for raw_case in raw.cases:
        if raw_case.subset == "labelled" or raw_case.case not in skipped:
            report = checked[raw_case.subset, raw_case.case]
            spacing = report.geometry.spacing if report.geometry else ()
            case = Case(
                raw_case.case, raw_case.images, raw_case.label, report.content_hash or "", spacing,
                list_checked_states(raw_case, report),
            )  # fmt: skip
            cases[raw_case.subset].append(case)
    return cases["labelled"], cases["unlabelled"]


@contextmanager
def one_at_a_time(preprocessed: Path) -> Iterator[None]:
    """Hold the lock on the plans and cases of a data set; wait for the process that has it."""

    def log_waiting(holder: str) -> None:
        logger.info("%s prepares %s: waiting for it", holder, preprocessed.name)

    with held(preprocessed / LOCK, log_waiting):
        yield


# ---- memory ----
# With a wrong spacing in its header, an image of a few megabytes can fill the memory when it is
# resampled. The system then kills the process without a message.


def check_memory(
    raw: RawDataset,
    reports: Sequence[CaseReport],
    skipped: Collection[str],
    plans: Mapping[str, Any],
    configurations: Sequence[str],
    skip_bad: bool,
) -> dict[str, list[str]]:
    """Find the unlabelled images for whose resampling the memory of this machine does not suffice.

    Args:
        skipped: unlabelled cases that are skipped already.
        skip_bad: skip such cases instead of raising.

    Returns:
        The newly skipped cases -> their problem.

    Raises:
        UserError: with the shape and the memory that each such case would need.
    """
    available, manager = memory_bytes(), PlansManager(dict(plans))
    if available is None:
        return {}
    files = {case.case: case.images[0] for case in raw.cases if case.subset == "unlabelled"}
    problems = {}
    for report in reports:
        if report.subset == "unlabelled" and report.case not in skipped and report.geometry:
            defect = find_memory_problem(
                report.geometry, len(raw.channels), manager, configurations, available
            )
            if defect:
                file_name = os.path.relpath(files[report.case], raw.folder)
                problems[report.case] = Problem(file_name, defect, MEMORY_FIX)
    if problems and not skip_bad:
        defect = f"resampling {len(problems)} unlabelled images takes more memory than available"
        raise UserError(f"{defect} (--skip-bad skips them):", list(problems.values()))
    if problems:
        number = len(problems)
        logger.info("skipped %d unlabelled cases that do not fit into the memory:", number)
        for problem in problems.values():
            logger.info("  %s", problem)
    return {case: [str(problem)] for case, problem in problems.items()}


def find_memory_problem(
    geometry: Geometry,
    channels: int,
    plans: PlansManager,
    configurations: Sequence[str],
    available: int,
) -> str:
    """Describe the most demanding configuration, or return "" if ``available`` bytes suffice."""
    order = plans.transpose_forward
    targets = {name: plans.get_configuration(name).spacing for name in configurations}
    needs = {name: estimate_memory(geometry, channels, order, mm) for name, mm in targets.items()}
    worst = max(needs, key=lambda name: needs[name][1])
    shape, required = needs[worst]
    if required <= available:
        return ""
    return (
        f"for {worst} its {format_numbers(geometry.shape)} voxels of "
        f"{format_numbers(geometry.spacing)} mm are resampled to {format_numbers(shape)} voxels; "
        f"this needs {required / GIB:.1f} GiB of memory, and this machine has "
        f"{available / GIB:.1f} GiB"
    )


def estimate_memory(
    geometry: Geometry, channels: int, transpose: Sequence[int], target: Sequence[float]
) -> tuple[tuple[int, ...], int]:
    """Return the shape of an image after nnU-Net's resampling, and the bytes at the peak.

    Args:
        geometry: of the image. nnU-Net may crop a border of zeros first, which is ignored here.
        transpose: the order of axes in the plans.
        target: spacing in mm of a configuration, in that order; 2D has two numbers and keeps the
            slices.
    """
    shape = [geometry.shape[axis] for axis in transpose]
    spacing = [geometry.spacing[axis] for axis in transpose]
    new_spacing = [*spacing[: len(spacing) - len(target)], *target]
    new_shape = tuple(int(size) for size in compute_new_shape(shape, spacing, new_spacing))
    by_slices, axis = determine_do_sep_z_and_axis(None, spacing, new_spacing)
    moves = by_slices and shape[axis] != new_shape[axis]
    per_voxel = get_bytes_per_voxel(channels, by_slices, moves)
    return new_shape, 12 * channels * math.prod(shape) + per_voxel * math.prod(new_shape)


def get_bytes_per_voxel(channels: int, by_slices: bool, moves_slices: bool) -> int:
    """Return the measured memory of nnU-Net's default resampling for each new voxel.

    The image is held as float32 (4 bytes a channel), one channel in float64 (8) and the label (2).
    (:func:`estimate_memory` adds 12 bytes for each old voxel and channel.) Thick slices are
    resampled one by one, with the previous channel still in memory (8). If the number of slices
    changes, nnU-Net also interpolates between slices and holds two arrays of the coordinates of all
    voxels (48); from the second channel on, one of the previous channel is still in memory (16).
    """
    total = 4 * channels + 10 + 48 * moves_slices
    return total + (8 * by_slices + 16 * moves_slices if channels > 1 else 0)
