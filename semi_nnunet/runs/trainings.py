"""What trainings of a data set there are, which were asked for, and the tables they left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semi_nnunet.evaluation.values import Model, Table
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.seeds import unseeded
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.names import unique, unknown

ASKED = "semi_crossval/jobs.json"  # in the results of a data set


def found_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """Find every fold in the results folder that was trained, or begun, with any seed.

    Args:
        folders: of the data set.
        plans: only trainings with these; else with any.
    """
    jobs = []
    for folder in sorted(folders.results.glob("*__*__*/fold_*")):
        model, fold = folder.parent.name.split("__"), folder.name.removeprefix("fold_")
        if len(model) != 3 or not (fold == ALL or fold.isdecimal()):
            continue  # a copy that somebody keeps
        trainer, name, configuration = model
        own, seed = (name, 0) if name == plans else unseeded(name)
        if plans in (None, own):
            jobs.append(Job(folders, trainer, configuration, fold, seed, name))
    return jobs


def require_trained(folders: Folders, plans: str) -> None:
    """Refuse plans that nothing was trained with, where there are trainings with others.

    Raises:
        UserError: so it is; it names the nearest.
    """
    trained = unique([unseeded(job.plans)[0] for job in found_jobs(folders)])
    if trained and plans not in trained:
        why = f"were not used for any training of {folders.results.name}"
        raise UserError("There is nothing to look at:", [*unknown("plans", [plans], trained, why)])


def note_asked(folders: Folders, plans: str, jobs: Sequence[Job]) -> None:
    """Write down the jobs of the newest crossval with these plans, for those not yet begun.

    Those of an earlier one that is still at work stay.
    """
    path = folders.results / ASKED
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [[job.trainer, job.configuration, job.fold, job.seed, job.plans] for job in jobs]
    earlier = optional_json(path)
    if any(holder_of(job.lock) for job in asked_jobs(folders, plans)):
        keys = [*earlier[plans], *(key for key in keys if key not in earlier[plans])]
    write_json(path, {**earlier, plans: keys})


def asked_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """The jobs that were asked for last with these plans, or with any."""
    asked = optional_json(folders.results / ASKED)
    return [
        Job(folders, *key) for name, keys in asked.items() for key in keys if plans in (None, name)
    ]


def tables_of(jobs: Iterable[Job], subset: str) -> list[Table]:
    """The metrics of one set of cases, "validation" or "test", of every job that measures it.

    Those of a training before the one that is there are left out: see :func:`stale_tables`.
    """
    return [
        (Model(job.trainer, job.configuration), job.fold, job.seed, tables[subset])
        for job in jobs
        if subset in (tables := job.current_tables())
    ]


def stale_tables(jobs: Iterable[Job]) -> list[Problem]:
    """Tables of folds that were trained or validated again since.

    Copying without times may look alike, so that the fix says what to do then.
    """
    return [
        Problem(
            str(job.tables()[subset]),
            f"is older than the training or validation of {job}, and left out",
            "semi_nnunet crossval measures again; if it was copied without times, touch the file",
        )
        for job in jobs
        for subset in job.tables()
        if job.is_stale(subset)
    ]
