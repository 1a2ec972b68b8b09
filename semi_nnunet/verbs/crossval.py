"""``semi_nnunet crossval``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.verbs.options import (
    MORE,
    Dataset,
    Flag,
    Folds,
    Launcher,
    Plans,
    RareFlag,
    Seeds,
    option,
)

logger = logging.getLogger(__name__)
STAGES = ("train", "predict", "evaluate")


def crossval(
    dataset: Dataset,
    configurations: Annotated[Sequence[str], option("-c", several=True)],
    trainers: Annotated[Sequence[str], option("-tr", several=True)] = (BASELINE, RECOMMENDED),
    *,
    plans: Plans = DEFAULT_PLANS,
    folds: Folds = None,
    seeds: Seeds = 1,
    npz: RareFlag = False,
    stages: Annotated[Sequence[str], option(several=True, group=MORE)] = STAGES,
    equal_time: Flag = False,
    launcher: Launcher | None = None,
) -> bool:
    """Train, predict and measure trainers x configurations x folds x seeds, as many as fit.

        semi_nnunet crossval -d 42 -c 2d -tr SemiBaselineTrainer SemiUnifiedTrainer --seeds 3
        semi_nnunet crossval -d 42 -c 3d_lowres 3d_cascade_fullres -tr SemiUnifiedTrainer
        semi_nnunet crossval -d 42 -c 2d --equal-time
        semi_nnunet compare -d 42

    Every job runs nnU-Net's own nnUNetv2_train, nnUNetv2_predict of imagesTs if there is one, and
    semi_nnunet evaluate. Repeat the command to continue: finished jobs are skipped, also a fold
    that was trained by hand, and killed jobs continue. Folds split the labelled cases; the
    unlabelled cases serve all folds. Seed 0 uses the plans, other seeds use plans of their own
    (PLANS_seed1, ...). --equal-time also trains the baseline for as long as each method took, with
    plans of its own (PLANS_as_long_as_TRAINER), and compare shows both gains. One job runs on each
    GPU, or --jobs on the CPU. With a launcher each job is a task of a cluster. SLURM requeues and
    continues a job whose time is up; Ray continues one on another node if its node is lost.

        semi_nnunet crossval ... --launcher slurm --sbatch='--gres=gpu:1 --time=12:00:00'
        semi_nnunet crossval ... --launcher ray --ray-address HOST:6379

    Args:
        dataset: Number or name of the data set.
        configurations: Such as 2d; for a cascade both stages, the first one first.
        trainers: Class names, ours or nnU-Net's.
        plans: Plans identifier; seeds above 0 get plans of their own.
        folds: Numbers or all (default: all folds, 0 1 2 3 4).
        seeds: Number of seeds.
        npz: Keep probabilities, for semi_nnunet ensemble.
        stages: Stages of each job: train predict evaluate.
        equal_time: Afterwards also train a baseline as long as each method.
        launcher: Where the jobs run; None: on this machine.

    Returns:
        Whether all jobs are done; False if they were handed to a cluster, or if this process had a
        single job to do.

    Raises:
        UnfinishedError: jobs failed; the reasons were printed.
        UserError: everything that would keep a job from running, before the first one starts.

    Example:
        >>> trainers = ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"]
        >>> crossval("42", ["2d"], trainers, plans="short", folds=["0"], npz=True)
        True
    """
    from semi_nnunet.workflows.crossval import run_crossval as run_jobs

    options: dict[str, Any] = {"folds": folds, "seeds": seeds, "npz": npz, "steps": stages}
    options["launcher"] = (launcher or Launcher()).for_jobs()
    is_done = run_jobs(dataset, configurations, trainers, plans=plans, **options)
    if equal_time and not is_done:
        logger.info("longer baselines follow once these jobs are done: repeat the command")
    elif equal_time:
        from semi_nnunet.benchmarking.plan_length import train_longer_baselines

        is_done = train_longer_baselines(dataset, configurations, trainers, plans=plans, **options)
    if is_done and "evaluate" in stages:
        plans_option = "" if plans == DEFAULT_PLANS else f" -p {plans}"
        logger.info(f"all done; next: semi_nnunet compare -d {dataset}{plans_option}")
    elif is_done:
        logger.info(f"done: {', '.join(stages)}; next: the other stages")
    return is_done
