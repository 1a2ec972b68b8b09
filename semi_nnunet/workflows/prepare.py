"""Prepare a data set: verify, plan and preprocess it, a large imagesUn in shards on request."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing, UnlabelledShard
from semi_nnunet.raw.layout import get_preprocessed_dataset
from semi_nnunet.runs.launching import JobLauncher, JobWork, run_work
from semi_nnunet.runs.verb_commands import build_command
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import unique

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

    def __call__(self, shards: list[UnlabelledShard], unfinished: list[int]) -> bool:
        """Run or submit the unfinished shards; return whether all are done."""
        pool = shards[0].pool
        configurations = unique([shard.pool.configuration for shard in shards])
        logger.info(f"{len(pool.cases())} unlabelled cases, {len(unfinished)} shards to do")
        _, *words = build_command(
            "preprocess", dataset=pool.preprocessed.name, plans=pool.plans,
            configurations=configurations, shards=shards[0].of, processes=self.processes,
        )  # fmt: skip
        jobs = [replace(shard, processes=self.processes) for shard in shards]
        return run_work(self.launcher, JobWork([*map(str, words)], jobs, unfinished, pool.shards))


def count_usable_processes() -> int:
    """Return the number of cores, at most nnU-Net's 8."""
    return min(MOST_PROCESSES, usable_cores())


def list_shards(
    dataset: str, plans: str, configurations: Sequence[str], count: int, processes: int | None
) -> list[UnlabelledShard]:
    """Return the jobs: ``count`` shards of each configuration."""
    return [
        UnlabelledShard(pool, number, count, processes)
        for name in configurations
        for pool in [UnlabelledPreprocessing(get_preprocessed_dataset(dataset), plans, name)]
        for number in range(count)
    ]


def prepare_shard(shards: Sequence[UnlabelledShard], launcher: JobLauncher) -> None:
    """Prepare one shard in a process of a cluster, which holds its lock and starts the worker.

    Raises:
        UnfinishedError: it failed.
    """
    run_work(launcher, JobWork([], shards, [], shards[0].folder))


def preprocess_shard(shard: UnlabelledShard, processes: int | None) -> None:
    """Preprocess the cases of a shard, as its worker."""
    count = processes or multiprocessing.cpu_count()
    if count > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # for each process
    shard.run(count)
