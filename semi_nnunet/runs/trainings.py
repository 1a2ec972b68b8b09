"""The trainings of a data set: found, requested, and their tables of metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from semi_nnunet.evaluation.values import Model, Table
from semi_nnunet.raw.layout import read_fold
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.names import unique, unknown
from semi_nnunet.util.validation import fits

REQUESTED = "semi_crossval/jobs.json"  # in the results of a data set


def find_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """Find every fold in the results folder that was trained or begun, with any seed.

    Args:
        plans: only trainings with these; None: with any.
    """
    jobs = []
    for folder in sorted(folders.results.glob("*__*__*/fold_*")):
        model, fold = folder.parent.name.split("__"), read_fold(folder)
        if len(model) != 3 or fold is None:
            continue  # a user's copy
        trainer, name, configuration = model
        original, seed = (name, 0) if name == plans else split_seed_name(name)
        if plans in (None, original):
            jobs.append(Job(folders, trainer, configuration, fold, seed, name))
    return jobs


def require_trained(folders: Folders, plans: str) -> None:
    """Refuse plans without any training if other plans have some.

    Raises:
        UserError: naming the most similar plans.
    """
    trained = unique([split_seed_name(job.plans)[0] for job in find_jobs(folders)])
    if trained and plans not in trained:
        why = f"were not used for any training of {folders.results.name}"
        raise UserError("There is nothing to look at:", [*unknown("plans", [plans], trained, why)])


def record_requested_jobs(folders: Folders, plans: str, jobs: Sequence[Job]) -> None:
    """Record the jobs of the latest crossval with these plans, to list those not yet begun.

    If an earlier crossval still runs, its jobs are kept.
    """
    path = folders.results / REQUESTED
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [[job.trainer, job.configuration, job.fold, job.seed, job.plans] for job in jobs]
    earlier = optional_json(path)
    if any(holder_of(job.lock) for job in read_requested_jobs(folders, plans)):
        keys = [*earlier[plans], *(key for key in keys if key not in earlier[plans])]
    write_json(path, {**earlier, plans: keys})


def read_requested_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """Return the jobs of the latest crossval with these plans; None: with any."""
    path = folders.results / REQUESTED
    requested = {name: keys for name, keys in optional_json(path).items() if plans in (None, name)}
    if not all(
        fits(tuple[tuple[str, str, str, int, str], ...], keys) for keys in requested.values()
    ):
        raise UserError(
            f"{path} must hold lists of trainer, configuration, fold, seed and plans, got "
            f"{json.dumps(requested):.80}",
            fix="remove it; the next semi_nnunet crossval writes it again",
        )
    return [Job(folders, *key) for keys in requested.values() for key in keys]


def list_metric_tables(jobs: Iterable[Job], subset: str) -> list[Table]:
    """List the metrics of "validation" or "test" cases of every job that measures them.

    Stale tables are left out: see :func:`find_stale_tables`.
    """
    return [
        (Model(job.trainer, job.configuration), job.fold, job.seed, tables[subset])
        for job in jobs
        if subset in (tables := job.current_tables())
    ]


def find_stale_tables(jobs: Iterable[Job]) -> list[Problem]:
    """Return a problem for each table that is older than its training, validation or inputs."""
    found = [job.find_stale_problem(subset) for job in jobs for subset in job.tables()]
    return [problem for problem in found if problem is not None]
