"""A cross-validation: which jobs it consists of, in which order, and running what is left."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semi_nnunet.data.layout import read_plans
from semi_nnunet.discovery.listing import unknown_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED
from semi_nnunet.runs.before_start import (
    cascade_problems,
    data_problems,
    pretraining_problems,
    seen_before,
    step_problems,
    test_label_problems,
    untold_annotation,
    untold_patients,
    untold_trainers,
)
from semi_nnunet.runs.folders import ALL, Folders, folders_of, patients_of
from semi_nnunet.runs.folds import all_folds, fold_problems, number_of_folds, write_folds
from semi_nnunet.runs.job import STEPS, Job
from semi_nnunet.runs.launching import Launcher, Work, finished
from semi_nnunet.runs.matched import changed_since
from semi_nnunet.runs.seeds import seed_problems, write_seed
from semi_nnunet.runs.trainings import note_asked
from semi_nnunet.util.errors import raise_if_any
from semi_nnunet.util.names import require_positive, unique, unknown

PLANS = "nnUNetPlans"
TRAINERS = (BASELINE, RECOMMENDED)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A cross-validation as it was asked for, in the words of ``semi_nnunet crossval``."""

    dataset: str
    configurations: Sequence[str]
    trainers: Sequence[str]
    plans: str
    folds: Sequence[str]
    seeds: int
    npz: bool
    steps: Sequence[str]

    def words(self) -> list[str]:
        """The command that makes the same list of jobs."""
        words = ["crossval", "-d", self.dataset, "-p", self.plans, "--seeds", str(self.seeds)]
        words += ["-c", *self.configurations, "-tr", *self.trainers, "-f", *self.folds]
        words += ["--steps", *self.steps]
        return words + (["--npz"] if self.npz else [])


def crossval(
    dataset: str,
    configurations: Sequence[str],
    trainers: Sequence[str] = TRAINERS,
    *,
    plans: str = PLANS,
    folds: Sequence[str] | None = None,
    seeds: int = 1,
    npz: bool = False,
    steps: Sequence[str] = STEPS,
    launcher: Launcher | None = None,
) -> bool:
    """Train, predict and measure trainers x configurations x folds x seeds; what is done stays.

    Every job runs nnU-Net's own commands as processes of their own, and shows how far they are.

    Args:
        dataset: number or name.
        configurations: such as "2d"; of a cascade both stages, the first one first.
        trainers: class names, of ours or nnU-Net's.
        plans: identifier of the plans; seeds above 0 get plans of their own.
        folds: numbers or "all"; None: those there are.
        seeds: how many.
        npz: keep probabilities, for ensembles.
        steps: of "train", "predict" and "evaluate", those of each job to do.
        launcher: where the jobs run; None: on this machine.

    Returns:
        Whether all jobs are done; False where they were handed to a cluster, or where this process
        had a single one to do.

    Raises:
        UnfinishedError: jobs failed; which, and why, was printed.
        UserError: all that would keep a job from running, before the first one starts.
    """
    require_positive({"--seeds": seeds})
    launcher, folders = launcher or Launcher(), folders_of(dataset)
    asked = Asked(
        dataset=dataset,
        configurations=configurations,
        trainers=trainers,
        plans=plans,
        folds=folds or all_folds(folders),
        seeds=seeds,
        npz=npz,
        steps=steps,
    )
    jobs = make_jobs(folders, plans, configurations, trainers, asked.folds, seeds, npz, steps)
    if launcher.only is None:
        launcher.require_usable()
        if warning := untold_trainers(folders, trainers):
            print(warning, flush=True)
        note_asked(folders, plans, jobs)
    left = [index for index, job in enumerate(jobs) if not job.is_done]
    work = Work(asked.words(), jobs, left, folders.results / "semi_crossval", needs(jobs))
    print(f"{folders.results.name}: {len(jobs)} jobs, {len(jobs) - len(left)} done before")
    return finished(launcher, work)


def make_jobs(
    folders: Folders,
    plans: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
    folds: Sequence[str],
    seeds: int,
    npz: bool = False,
    steps: Sequence[str] = STEPS,
) -> list[Job]:
    """Make a job for every trainer, configuration, fold and seed; write plans for seeds above 0.

    Seed 0 uses the plans themselves, so that a fold trained by hand counts.

    Raises:
        UserError: all that would keep a job from running.
    """
    content = read_plans(folders.preprocessed, plans)
    configurations, trainers, folds = map(unique, (configurations, trainers, folds))
    problems = [
        *unknown_trainers(trainers),
        *unknown("configuration", configurations, content["configurations"]),
        *untold_patients(folders),
        *untold_annotation(folders),
        *fold_problems(folders, folds),
        *unknown("step", steps, STEPS),
    ]
    if not problems:
        problems = [
            *data_problems(folders, content, plans, configurations, trainers),
            *test_label_problems(folders),
            *(seed_problems(content, plans) if seeds > 1 else ()),
        ]
    raise_if_any("The cross-validation cannot start:", problems)
    write_folds(folders, content, configurations, folds)
    names = [plans, *(write_seed(folders, plans, content, seed) for seed in range(1, seeds))]
    jobs = [
        place_of(Job(folders, trainer, configuration, fold, seed, name, npz, tuple(steps)))
        for (seed, name), configuration, fold, trainer in itertools.product(
            enumerate(names), configurations, folds, trainers
        )
    ]
    jobs = list(dict.fromkeys(jobs))
    problems = list(dict.fromkeys(cascade_problems(jobs, number_of_folds(folders))))
    patient_of = patients_of(folders)
    problems += [*step_problems(jobs, steps), *changed_since(jobs, content, patient_of)]
    problems += [*seen_before(jobs, patient_of), *pretraining_problems(jobs, content)]
    raise_if_any("The cross-validation cannot start:", problems)
    return jobs


def place_of(job: Job) -> Job:
    """The job itself; of pre-training, which all folds share, that of fold "all"."""
    return job if job.segments else job.pretraining


def needs(jobs: Sequence[Job]) -> dict[Job, list[Job]]:
    """Job -> those of the others that come before it.

    A cascade's second stage comes after the first of every fold, as their predictions lie in one
    folder, and a trainer after the one that teaches it and after pre-training.
    """
    known, of_all_folds = set(jobs), defaultdict[Job, list[Job]](list)
    for job in jobs:
        of_all_folds[replace(job, fold=ALL)].append(job)
    found = {}
    for job in jobs:
        previous, teacher = job.previous, job.teacher
        found[job] = list(of_all_folds[replace(previous, fold=ALL)]) if previous else []
        found[job] += [one for one in (teacher, job.pretraining) if one in known and one != job]
    return found
