"""``semi_nnunet preprocess``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from semi_nnunet.verbs.options import (
    JOBS,
    MORE,
    Dataset,
    Flag,
    Launcher,
    OptionalPlans,
    RareFlag,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.workflows.prepare import PreparedCounts

logger = logging.getLogger(__name__)


def preprocess(
    dataset: Dataset,
    configurations: Annotated[Sequence[str] | None, option("-c", several=True)] = None,
    *,
    plans: OptionalPlans = None,
    processes: Annotated[int | None, option("-np")] = None,
    skip_bad: Flag = False,
    skip_outliers: RareFlag = False,
    planner: Annotated[str, option("-pl", group=MORE)] = "ExperimentPlanner",
    gpu_memory_target: Annotated[float | None, option("-gpu_memory_target", group=MORE)] = None,
    shards: Annotated[int | None, option(group=JOBS)] = None,
    launcher: Launcher | None = None,
    worker: Annotated[bool, Parameter(show=False, negative="")] = False,
) -> PreparedCounts | None:
    """Verify, plan and preprocess a data set with its unlabelled images in imagesUn.

        semi_nnunet preprocess -d 42
        semi_nnunet preprocess -d 42 -c 2d 3d_fullres -np 4 --skip-bad

    Runs nnU-Net's fingerprint, planning and preprocessing for imagesTr (results of its own command
    nnUNetv2_plan_and_preprocess are kept), then preprocesses imagesUn with the same plans. It may
    be interrupted and repeated: finished cases are kept.

    Unlabelled images that differ much from the labelled ones in spacing, size, orientation,
    intensities or colour are named, and shown in the folder domain_check of the preprocessed data
    set. They are used, unless --skip-outliers skips them. If they are meant to differ, write
    "unlabelled_domain": "other" into dataset.json.

    A large imagesUn can be cut into shards. Each shard is a job, here or on a cluster:

        semi_nnunet preprocess -d 42 --shards 8 --jobs 2 -np 4
        semi_nnunet preprocess -d 42 --launcher slurm --shards 100 --sbatch='--cpus-per-task=4'
        semi_nnunet preprocess -d 42 --launcher ray --shards 100 --threads 4

    The launching process verifies all images and does everything else; semi_nnunet doctor counts
    the finished cases.

    Args:
        dataset: Number or name of the data set.
        configurations: Such as 2d (default: 2d, 3d_fullres and 3d_lowres, if planned).
        plans: Plans identifier (default: the planner's, nnUNetPlans).
        processes: Worker processes (default: one for each core, up to 8; for a shard its cores).
        skip_bad: Skip bad unlabelled cases, which are listed in semi_skipped.json, and continue.
        skip_outliers: Skip unlabelled cases that differ much from the labelled ones.
        planner: nnU-Net's planner, used if there are no plans yet.
        gpu_memory_target: GB of GPU memory to plan for, if there are no plans yet (default: the
            planner's).
        shards: Number of shards of imagesUn (default: --jobs; without --jobs and --launcher: none).
        launcher: Where the shards are preprocessed; None: on this machine.
        worker: This process preprocesses a shard; set by the launcher.

    Returns:
        The plans and the number of cases; None if the shards were handed to a cluster.

    Raises:
        UnfinishedError: shards failed; the reasons were printed.
        UserError: every bad input, in one pass, before anything is written.

    Example:
        >>> preprocess("42", ["2d"], processes=1).counts  # labelled and unlabelled cases
        {'2d': (3, 2)}
    """
    from semi_nnunet.preprocessing.planning import get_default_plans_name
    from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.util.names import require_positive
    from semi_nnunet.workflows import prepare as steps
    from semi_nnunet.workflows.next_step import suggest_training

    require_positive({"--shards": shards, "-np": processes})
    if gpu_memory_target is not None and not gpu_memory_target > 0:
        raise UserError(
            f"-gpu_memory_target must be above 0, got {gpu_memory_target:g}", fix="correct it"
        )
    jobs = (launcher or Launcher()).for_jobs()
    if jobs.only is not None:  # a process of a cluster, or the worker that it starts
        open_shards = steps.list_shards(
            dataset, plans or "", configurations or (), shards or 0, processes
        )
        if worker:
            steps.preprocess_shard(open_shards[jobs.only], processes)
        else:
            steps.prepare_shard(open_shards, jobs)
        return None
    count = shards or jobs.jobs
    if count is None and not jobs.is_local:
        count = 1
    plans = plans or get_default_plans_name(planner)
    options = PrepareOptions(
        configurations,
        plans,
        planner,
        gpu_memory_target,
        processes or steps.count_usable_processes(),
        skip_bad,
        skip_outliers,
    )
    shard_jobs = None if count is None else steps.ShardJobs(jobs, processes)
    counts = prepare_for_training(dataset, options, count, shard_jobs)
    if counts is None:
        return None
    ready = steps.PreparedCounts(plans, counts)
    for configuration, (labelled, unlabelled) in ready.counts.items():
        logger.info(
            f"{configuration}: {labelled} labelled and {unlabelled} unlabelled cases are ready"
        )
    for problem in steps.collect_data_warnings(dataset, ready):
        logger.warning(problem.as_warning())
    configuration, (labelled, _) = next(iter(ready.counts.items()))
    fold = "0" if labelled > 1 else "all"  # a single case cannot be split
    first, *alternatives = suggest_training(dataset, ready.plans, configuration, fold)
    if alternatives:
        first = f"as there is no GPU: {first}"
    lines = [f"next{',' if alternatives else ':'} {first}", *(f"      {a}" for a in alternatives)]
    logger.info("\n".join(lines))
    return ready
