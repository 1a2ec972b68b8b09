"""Cross-validation: list the jobs, order them, and run the unfinished ones."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from semi_nnunet.discovery.listing import unknown_trainers
from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.raw.folds import describe_left_out
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.raw.lesion_rules import LESIONS_KEY
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, is_one_piece
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import ALL, Folders, find_folders, load_patient_finder
from semi_nnunet.runs.folds import (
    count_dataset_folds,
    find_fold_problems,
    list_folds,
    write_missing_folds,
)
from semi_nnunet.runs.job import STEPS, Job
from semi_nnunet.runs.launching import JobLauncher, JobWork, run_work
from semi_nnunet.runs.seeds import find_seed_problems, write_seed_plans
from semi_nnunet.runs.trainings import record_requested_jobs
from semi_nnunet.util.errors import raise_if_any
from semi_nnunet.util.files import optional_json, read_json, write_json
from semi_nnunet.util.names import require_positive, unique, unknown
from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.workflows.before_start import (
    find_cascade_problems,
    find_data_problems,
    find_description_changes,
    find_empty_checkpoints,
    find_leaked_patients,
    find_pretraining_problems,
    find_raw_changes,
    find_stage_option_problems,
    find_test_label_problems,
    warn_about_partial_labels,
)
from semi_nnunet.workflows.matched import find_changed_trainings
from semi_nnunet.workflows.next_step import suggest_preprocessing

logger = logging.getLogger(__name__)

TRAINERS = (BASELINE, RECOMMENDED)


def run_crossval(
    dataset: str,
    configurations: Sequence[str],
    trainers: Sequence[str] = TRAINERS,
    *,
    plans: str = DEFAULT_PLANS,
    folds: Sequence[str] | None = None,
    seeds: int = 1,
    npz: bool = False,
    steps: Sequence[str] = STEPS,
    launcher: JobLauncher | None = None,
) -> bool:
    """Train, predict and measure every trainer x configuration x fold x seed.

    Finished steps are kept. Every job runs nnU-Net's own commands in processes of their own.

    Args:
        dataset, configurations, trainers, plans, folds, seeds, npz, steps: see
            :func:`semi_nnunet.crossval`.
        launcher: where the jobs run; None: on this machine.

    Returns:
        True if all jobs are done; False if they were handed to a cluster, or if this process ran a
        single one of them.

    Raises:
        UnfinishedError: jobs failed; the reasons were printed.
        UserError: jobs could not run; raised before the first one starts, with all reasons.
    """
    require_positive({"--seeds": seeds})
    launcher, folders = launcher or JobLauncher(), find_folders(dataset)
    folds = folds or list_folds(folders)
    jobs = make_jobs(
        folders, plans, configurations, trainers, folds, seeds, npz, steps,
        compares_raw=launcher.only is None,
    )  # fmt: skip
    if launcher.only is None:
        launcher.require_usable()
        warn_about_partial_labels(folders, trainers)
        record_requested_jobs(folders, plans, jobs)
        update_models(jobs)
    unfinished = [index for index, job in enumerate(jobs) if not job.is_done]
    logs = folders.results / "semi_crossval"
    command = build_command(
        "crossval", dataset=dataset, configurations=configurations, trainers=trainers, plans=plans,
        folds=folds, seeds=seeds, npz=npz, stages=steps,
    )  # fmt: skip
    work = JobWork(command, jobs, unfinished, logs, find_dependencies(jobs))
    finished_count = len(jobs) - len(unfinished)
    logger.info(f"{folders.results.name}: {len(jobs)} jobs, {finished_count} done before")
    return run_work(launcher, work)


def make_jobs(
    folders: Folders,
    plans: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
    folds: Sequence[str],
    seeds: int,
    npz: bool = False,
    steps: Sequence[str] = STEPS,
    compares_raw: bool = True,
) -> list[Job]:
    """Make a job for every trainer, configuration, fold and seed; write plans for seeds above 0.

    Seed 0 uses the plans themselves, so that a fold trained by hand counts.

    Args:
        compares_raw: whether the raw files are compared with the preprocessed ones, which the
            process that starts a cluster's tasks does for all of them.

    Raises:
        UserError: jobs could not run, with all reasons.
    """
    content = read_plans(folders.preprocessed, plans)
    configurations, trainers, folds = map(unique, (configurations, trainers, folds))
    problems = [
        *unknown_trainers(trainers),
        *unknown("configuration", configurations, content["configurations"]),
        *find_description_changes(folders),
        *find_fold_problems(folders, folds),
        *unknown("step", steps, STEPS),
    ]
    if not problems:
        preprocess = suggest_preprocessing(folders.preprocessed.name, plans, configurations)
        problems = [
            *(find_raw_changes(folders, preprocess) if compares_raw else ()),
            *find_data_problems(folders, content, plans, configurations, trainers),
            *find_test_label_problems(folders),
            *(find_seed_problems(content, plans) if seeds > 1 else ()),
        ]
    raise_if_any("The cross-validation cannot start:", problems)
    write_missing_folds(folders, content, configurations, folds)
    if set(folds) - {ALL} and (
        warning := describe_left_out(folders.preprocessed, folders.labelled_cases())
    ):
        logger.info(warning)
    names = [plans, *(write_seed_plans(folders, plans, content, seed) for seed in range(1, seeds))]
    jobs = [
        resolve_shared_pretraining(
            Job(folders, trainer, configuration, fold, seed, name, npz, tuple(steps))
        )
        for (seed, name), configuration, fold, trainer in itertools.product(
            enumerate(names), configurations, folds, trainers
        )
    ]
    jobs = list(dict.fromkeys(jobs))
    patient_of = load_patient_finder(folders)
    problems = [
        *dict.fromkeys(find_cascade_problems(jobs, count_dataset_folds(folders))),
        *find_stage_option_problems(jobs, steps),
        *find_empty_checkpoints(jobs),
        *find_changed_trainings(jobs, content, patient_of),
        *find_leaked_patients(jobs, patient_of),
        *find_pretraining_problems(jobs, content),
    ]
    raise_if_any("The cross-validation cannot start:", problems)
    return jobs


def update_models(jobs: Sequence[Job]) -> None:
    """Update "one_piece" in the copies of dataset.json that trained models have.

    "lesions", which excludes it, is updated as well.
    """
    today = read_json(jobs[0].folders.preprocessed / DATASET_JSON)
    for folder in {job.folder.parent for job in jobs}:
        description = optional_json(folder / DATASET_JSON)
        if description and is_one_piece(description) != is_one_piece(today):
            kept = {key: value for key, value in description.items() if key != LESIONS_KEY}
            rules = {LESIONS_KEY: today[LESIONS_KEY]} if LESIONS_KEY in today else {}
            now = {**kept, **rules, ONE_PIECE_KEY: is_one_piece(today)}
            write_json(folder / DATASET_JSON, now)


def resolve_shared_pretraining(job: Job) -> Job:
    """Return the job itself; for pre-training, which all folds share, the job of fold "all"."""
    return job if job.segments else job.pretraining


def find_dependencies(jobs: Sequence[Job]) -> dict[Job, list[Job]]:
    """Map each job to the jobs that it waits for.

    The second stage of a cascade waits for the first stages of all folds, whose predictions share
    one folder. A training waits for its teacher and for pre-training.
    """
    scheduled, jobs_of_model = set(jobs), defaultdict[Job, list[Job]](list)
    for job in jobs:
        jobs_of_model[replace(job, fold=ALL)].append(job)
    dependencies = {}
    for job in jobs:
        previous = job.previous_stage
        dependencies[job] = list(jobs_of_model[replace(previous, fold=ALL)]) if previous else []
        dependencies[job] += [
            first for first in (job.teacher, job.pretraining) if first in scheduled and first != job
        ]
    return dependencies
