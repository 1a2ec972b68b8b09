"""Prepare a data set: verify, plan and preprocess it, a large imagesUn in shards if asked for."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.data import prepare as data
from semi_nnunet.data.existing_plans import default_plans_name
from semi_nnunet.data.layout import preprocessed_dataset
from semi_nnunet.data.unlabelled_shards import UnlabelledPreprocessing, UnlabelledShard, shards_left
from semi_nnunet.runs.launching import Launcher, Work, finished
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import require_positive

MOST_PROCESSES = 8  # each takes seconds of a core and 1 GB to begin


@dataclass(frozen=True)
class Ready:
    """A data set that is ready for training.

    Args:
        plans: identifier of its plans.
        counts: configuration -> how many labelled and unlabelled cases are ready.
    """

    plans: str
    counts: dict[str, tuple[int, int]]


def prepare(
    dataset: str,
    configurations: Sequence[str] | None = None,
    *,
    plans: str | None = None,
    planner: str = data.PLANNER,
    processes: int | None = None,
    skip_bad: bool = False,
    skip_outliers: bool = False,
    shards: int | None = None,
    launcher: Launcher | None = None,
) -> Ready | None:
    """Verify, plan and preprocess a data set with its unlabelled images; what is done is kept.

    Args:
        dataset: number or name.
        configurations: which to preprocess; None: nnU-Net's three, as far as the plans have them.
        plans: nnU-Net's plans identifier; None: the planner's own.
        planner: nnU-Net's planner class, used where there are no plans yet.
        processes: workers; None: one for each core, up to 8, or of each shard its cores.
        skip_bad: set bad unlabelled cases aside instead of stopping.
        skip_outliers: set unlabelled cases aside that differ much from the labelled ones, of which
            there is a warning otherwise.
        shards: into which imagesUn is cut, each a job; None: as many as the launcher has jobs, and
            none where it says nothing of them.
        launcher: where the shards are preprocessed; None: on this machine.

    Returns:
        What is ready; None where the shards were handed to a cluster.

    Raises:
        UnfinishedError: shards failed; which, and why, was printed.
        UserError: every bad input, in one pass, before anything is written; images that would take
            more memory than this machine has, before they are preprocessed on it.
    """
    require_positive({"--shards": shards, "-np": processes})
    launcher = launcher or Launcher()
    count = shards or launcher.jobs
    if count is None and launcher.launcher != "local":
        count = 1
    plans = plans or default_plans_name(planner)
    wanted = (dataset, configurations, plans, planner, processes or usable_processes())
    if count is None:
        return Ready(plans, data.prepare(*wanted, skip_bad, skip_outliers))
    here = launcher.launcher == "local"
    prepared = data.prepare_labelled(*wanted, skip_bad, skip_outliers, here)
    is_done = finished(launcher, work_of(prepared, plans, count, processes))
    return Ready(plans, prepared.counts()) if is_done else None


def usable_processes() -> int:
    """As many workers as there are cores, at most nnU-Net's 8."""
    return min(MOST_PROCESSES, usable_cores())


def work_of(prepared: data.Prepared, plans: str, count: int, processes: int | None) -> Work:
    """The work left of ``count`` shards of each configuration's unlabelled cases."""
    left = []
    for number, pool in enumerate(prepared.pools()):
        pool.begin(prepared.unlabelled)
        todo = shards_left(pool, prepared.unlabelled, count)
        left += [number * count + shard for shard in todo]
    name, configurations = prepared.preprocessed.name, prepared.configurations
    print(f"{len(prepared.unlabelled)} unlabelled cases, {len(left)} shards to do", flush=True)
    words = ["preprocess", "-d", name, "-p", plans, "-c", *configurations]
    words += ["--shards", str(count)]
    words += ["-np", str(processes)] if processes else []
    shards = list_shards(name, plans, configurations, count, processes)
    return Work(words, shards, left, prepared.pools()[0].shards)


def list_shards(
    dataset: str, plans: str, configurations: Sequence[str], count: int, processes: int | None
) -> list[UnlabelledShard]:
    """The jobs: ``count`` shards of each configuration."""
    return [
        UnlabelledShard(pool, number, count, processes)
        for name in configurations
        for pool in [UnlabelledPreprocessing(preprocessed_dataset(dataset), plans, name)]
        for number in range(count)
    ]


def prepare_shard(shards: Sequence[UnlabelledShard], launcher: Launcher) -> None:
    """Prepare one shard: a process of a cluster holds its lock, and starts the worker.

    Raises:
        UnfinishedError: it failed.
    """
    finished(launcher, Work([], shards, [], shards[0].folder))


def work_on(shard: UnlabelledShard, processes: int | None) -> None:
    """The work of one process: preprocess the cases of a shard."""
    count = processes or multiprocessing.cpu_count()
    if count > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # of each of them
    shard.run(count)
