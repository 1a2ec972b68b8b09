"""Prepare a data set: verify, plan and preprocess it, a large imagesUn in shards on request."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing
from semi_nnunet.raw.layout import get_preprocessed_dataset
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.launching import JobLauncher, JobWork, run_work
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import format_count, unique
from semi_nnunet.util.shards import Shard
from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.workflows.before_start import collect_warnings

logger = logging.getLogger(__name__)

MOST_PROCESSES = 8  # starting one takes seconds of a core and 1 GB


@dataclass(frozen=True)
class PreparedCounts:
    """The cases of a data set that are ready for training.

    Args:
        plans: identifier of its plans.
        counts: configuration -> numbers of labelled and unlabelled cases that are ready.
    """

    plans: str
    counts: dict[str, tuple[int, int]]


@dataclass
class ShardJobs:
    """Run shards of unlabelled cases as jobs, for ``preprocessing.prepare``.

    Args:
        launcher: where the jobs run.
        processes: workers of each; None: one for each core.
    """

    launcher: JobLauncher
    processes: int | None

    @property
    def is_local(self) -> bool:
        """Whether the jobs run on this machine."""
        return self.launcher.is_local

    def __call__(self, shards: list[Shard[UnlabelledPreprocessing]], unfinished: list[int]) -> bool:
        """Run or submit the unfinished shards; return whether all are done."""
        pool, count = shards[0].work, shards[0].of
        configurations = unique([shard.work.configuration for shard in shards])
        logger.info(
            f"{format_count(pool.cases, 'unlabelled case')}, "
            f"{format_count(unfinished, 'shard')} to do"
        )
        dataset = pool.preprocessed.name
        command = build_command(
            "preprocess", dataset=dataset, plans=pool.plans, configurations=configurations,
            shards=count, processes=self.processes,
        )  # fmt: skip
        jobs = list_shards(dataset, pool.plans, configurations, count, self.processes)
        return run_work(self.launcher, JobWork(command, jobs, unfinished, pool.shards))


def count_usable_processes() -> int:
    """Return the number of cores, at most nnU-Net's 8."""
    return min(MOST_PROCESSES, usable_cores())


def collect_data_warnings(dataset: str, ready: PreparedCounts) -> list[Problem]:
    """Return a warning for each part of the preprocessed data that teaches nothing."""
    preprocessed = get_preprocessed_dataset(dataset)
    plans = read_plans(preprocessed, ready.plans)
    problems = [
        problem
        for configuration in ready.counts
        for problem in collect_warnings(preprocessed, plans, configuration, [])
    ]
    return list(dict.fromkeys(problems))


def list_shards(
    dataset: str, plans: str, configurations: Sequence[str], count: int, processes: int | None
) -> list[Shard[UnlabelledPreprocessing]]:
    """Return the jobs: ``count`` shards of each configuration."""
    preprocessed = get_preprocessed_dataset(dataset)
    return [
        Shard(pool, number, count)
        for name in configurations
        for pool in [UnlabelledPreprocessing(preprocessed, plans, name, processes)]
        for number in range(count)
    ]


def prepare_shard(shards: Sequence[Shard[UnlabelledPreprocessing]], launcher: JobLauncher) -> None:
    """Prepare one shard in a process of a cluster, which holds its lock and starts the worker.

    Raises:
        UnfinishedError: it failed.
    """
    run_work(launcher, JobWork([], shards, [], shards[0].folder))


def preprocess_shard(shard: Shard[UnlabelledPreprocessing], processes: int | None) -> None:
    """Preprocess the cases of a shard, as its worker."""
    count = processes or multiprocessing.cpu_count()
    if count > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # for each process
    shard.work.preprocess_shard(shard, count)
