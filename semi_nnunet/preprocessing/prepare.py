"""Prepare a raw data set with ``imagesUn`` for training: verify, plan, preprocess.

Every step may be interrupted; :func:`prepare_for_training` then does only the unfinished work.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semi_nnunet.preprocessing.cases import (
    Case,
    PreprocessingSpec,
    copy_ground_truth,
    log_stage,
    preprocess_labelled,
)
from semi_nnunet.preprocessing.planning import (
    get_default_plans_name,
    plan_if_needed,
    select_configurations,
)
from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    DATASET_JSON,
    GROUND_TRUTH,
    SKIPPED_FILE,
    find_raw_dataset,
    get_preprocessed_dataset,
    require_paths,
)
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.lock import held
from semi_nnunet.util.shards import Shard, find_unfinished_shards
from semi_nnunet.verify.domain import check_domain
from semi_nnunet.verify.integrity import verify_dataset
from semi_nnunet.verify.memory_needs import check_memory
from semi_nnunet.verify.reports import CaseReport, read_reports, write_reports

logger = logging.getLogger(__name__)
PLANNER = "ExperimentPlanner"
LOCK = ".semi_preprocess.lock"  # in the folder of the preprocessed data set


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
        """Return the unlabelled cases of each configuration."""
        return [
            UnlabelledPreprocessing(self.preprocessed, self.plans, name)
            for name in self.configurations
        ]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return configuration -> (labelled cases, unlabelled cases)."""
        return dict.fromkeys(self.configurations, (self.labelled, len(self.unlabelled)))


def prepare_for_training(
    dataset: str,
    configurations: Sequence[str] | None,
    plans_name: str | None,
    planner: str,
    num_processes: int,
    skip_bad: bool,
    skip_outliers: bool = False,
    shards: int | None = None,
    launcher: ShardLauncher | None = None,
) -> dict[str, tuple[int, int]] | None:
    """Verify, plan and preprocess a data set; may be interrupted and called again.

    Args:
        dataset: number or name.
        configurations: which to preprocess; None: nnU-Net's three, as far as the plans have them.
        plans_name: nnU-Net's plans identifier; None: the planner's own.
        planner: nnU-Net's planner class, used if the plans do not exist yet.
        skip_bad: skip bad unlabelled cases instead of raising.
        skip_outliers: skip unlabelled cases that differ much from the labelled ones.
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
    prepared = prepare_labelled(
        dataset, configurations, plans_name, planner, num_processes, skip_bad, skip_outliers,
        runs_here,
    )  # fmt: skip
    if shards is None:
        with one_at_a_time(prepared.preprocessed):
            for pool in prepared.pools():
                pool.preprocess(prepared.unlabelled, num_processes)
        return prepared.counts()
    all_shards: list[Shard[UnlabelledPreprocessing]] = []
    unfinished: list[int] = []
    for pool in prepared.pools():
        pool.begin(prepared.unlabelled)
        unfinished += [len(all_shards) + n for n in find_unfinished_shards(pool, shards)]
        all_shards += [Shard(pool, number, shards) for number in range(shards)]
    if launcher is None:
        for index in unfinished:
            shard = all_shards[index]
            shard.work.preprocess_shard(shard, num_processes)
        return prepared.counts()
    return prepared.counts() if launcher(all_shards, unfinished) else None


def prepare_labelled(
    dataset: str,
    configurations: Sequence[str] | None,
    plans_name: str | None,
    planner: str,
    num_processes: int,
    skip_bad: bool,
    skip_outliers: bool = False,
    checks_memory: bool = True,
) -> PreparedLabelled:
    """Verify all cases, plan, and preprocess the labelled cases.

    Arguments and errors are those of :func:`prepare_for_training`. ``checks_memory``: this machine
    will preprocess the unlabelled cases, so its memory must suffice.
    """
    require_paths("raw", "preprocessed")
    plans_name = plans_name or get_default_plans_name(planner)
    folder, preprocessed = find_raw_dataset(dataset), get_preprocessed_dataset(dataset)
    log_stage(f"checking {folder}")
    raw, checked = RawDataset.of(folder), preprocessed / CHECKED_FILE
    reports, skipped = verify_dataset(raw, num_processes, skip_bad, read_reports(checked))
    with one_at_a_time(preprocessed):
        plans = plan_if_needed(raw, preprocessed, plans_name, planner, num_processes)
        selected = select_configurations(plans, configurations)
        skipped |= check_domain(raw, reports, skipped, preprocessed, skip_outliers)
        if checks_memory:
            skipped |= check_memory(raw, reports, skipped, plans, selected, skip_bad)
        write_reports(checked, reports)
        write_json(preprocessed / SKIPPED_FILE, skipped)
        if read_json(preprocessed / DATASET_JSON) != raw.content:  # the plans fit nevertheless
            write_json(preprocessed / DATASET_JSON, raw.content)
        labelled, unlabelled = list_cases(raw, reports, skipped)
        for configuration in selected:
            spec = PreprocessingSpec(plans, configuration, raw.content)
            preprocess_labelled(labelled, spec, preprocessed, num_processes)
        copy_ground_truth(labelled, preprocessed / GROUND_TRUTH, raw.content["file_ending"])
    return PreparedLabelled(preprocessed, plans_name, selected, len(labelled), unlabelled)


def list_cases(
    raw: RawDataset, reports: Sequence[CaseReport], skipped: Mapping[str, Any]
) -> tuple[list[Case], list[Case]]:
    """Return the labelled and the unlabelled cases to preprocess, without the skipped ones."""
    hashes = {(report.subset, report.case): report.content_hash or "" for report in reports}
    cases: dict[str, list[Case]] = {"labelled": [], "unlabelled": [], "test": []}
    for raw_case in raw.cases:
        if raw_case.subset == "labelled" or raw_case.case not in skipped:
            content_hash = hashes[raw_case.subset, raw_case.case]
            case = Case(raw_case.case, raw_case.images, raw_case.label, content_hash)
            cases[raw_case.subset].append(case)
    return cases["labelled"], cases["unlabelled"]


@contextmanager
def one_at_a_time(preprocessed: Path) -> Iterator[None]:
    """Hold the lock on the plans and cases of a data set; wait for the process that has it."""

    def log_waiting(holder: str) -> None:
        logger.info("%s prepares %s: waiting for it", holder, preprocessed.name)

    with held(preprocessed / LOCK, log_waiting):
        yield
