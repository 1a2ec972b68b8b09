"""Choose among the baseline and the methods within a budget of hours, prove the choice, ship it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.automatic.commands import PLANS, ROUNDS, Commands
from semi_nnunet.automatic.page import choice_of, schedule_table, story
from semi_nnunet.automatic.proof import prove, ranked
from semi_nnunet.automatic.rates import rate_from, rate_of
from semi_nnunet.automatic.schedule import (
    FULL,
    LONGER,
    SHORT,
    Rate,
    Round,
    Setting,
    better_half,
    divide,
)
from semi_nnunet.automatic.state import State
from semi_nnunet.benchmarking.kept import Kept
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.data.image_files import read_with_nnunet
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.data.layout import read_plans
from semi_nnunet.data.raw_description import RawDataset
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.crossval import BASELINE
from semi_nnunet.runs.folders import ALL, Folders, folders_of, patients_of
from semi_nnunet.runs.folds import number_of_folds
from semi_nnunet.runs.launching import Launcher, find_resources
from semi_nnunet.runs.local import Resources, child_environment
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import Problem, UserError, refuse
from semi_nnunet.util.files import file_in_the_way, write_text, writing
from semi_nnunet.util.lock import hold_until_exit
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import unique

CANDIDATES = (  # in the order of preference: docs/results/tournament.md
    "SemiUnifiedTrainer",
    "SemiMeanTeacherTrainer",
    "SemiMixMatchTrainer",
    "SemiDistillationTrainer",
)
SHARE_SPENT = 0.92  # of the hours, by the trainings; the rest for the report and wrong estimates
MOST_STEPS = 250_000  # nnU-Net's
LOADING = "nnUNet_n_proc_DA"  # how many processes load batches


@dataclass(frozen=True)
class Shipped:
    """What an ``auto`` ends with.

    Args:
        trainer: whose model ships.
        answer: whether unlabelled images helped, in a sentence.
        folder: with the exported model, the predictions of imagesTs and the report.
    """

    trainer: str
    answer: str
    folder: Path


def auto(
    dataset: str,
    *,
    hours: float = 8.0,
    configuration: str | None = None,
    trainers: Sequence[str] = CANDIDATES,
    launcher: Launcher | None = None,
    out: str | Path | None = None,
    dry_run: bool = False,
) -> Shipped | None:
    """Go from a raw data set to one exported model and its proof; may be interrupted and repeated.

    Args:
        dataset: number or name.
        hours: to spend, counted over restarts.
        configuration: such as "2d"; None: 3d_fullres for volumes on a GPU, else 2d.
        trainers: the candidates, the most promising first; the baseline is always one.
        launcher: where trainings run; None: on this machine.
        out: folder for the model, the predictions and the report; None: auto_DATASET, here.
        dry_run: print what would be done, and do nothing.

    Returns:
        What ships; None with ``dry_run``, or where trainings were handed to a cluster.

    Raises:
        UserError: the options or the data are wrong, another process is at it, the time is too
            short, or a stage failed.
    """
    launcher, folders = launcher or Launcher(), folders_of(dataset)
    candidates = unique([name for name in trainers if name != BASELINE])
    where = Path(out or f"auto_{folders.raw.name}").absolute()
    require_sensible(hours, candidates, where)
    resources = find_resources(launcher.device, launcher.jobs, launcher.threads)
    chosen = configuration or configuration_for(folders, resources.device)
    commands = Commands(folders, chosen, launcher, resources.device, where)
    asked = {"configuration": chosen, "candidates": " ".join(candidates)}
    state = State.of(folders.results / "semi_auto" / f"{chosen}.json", asked)
    choice = Choice(commands, state, tuple(candidates), hours, resources)
    if dry_run:
        choice.show()
        return None
    if other := hold_until_exit(state.lock):
        raise UserError(
            f"{other} is at this choice already ({state.path}). Fix: wait for it, or end it and "
            f"run the same command again"
        )
    with state.running():
        return choice.make()


def require_sensible(hours: float, candidates: Sequence[str], out: Path) -> None:
    """Check the options.

    Raises:
        UserError: naming all that is wrong with them.
    """
    problems = [*unknown_trainers(candidates)]
    if hours <= 0:
        problems.append(Problem("--hours", f"must be above 0, got {hours}", "correct it"))
    if there := file_in_the_way(out):
        problems.append(Problem("-o", f"must be a folder, but {there} is a file", "give a folder"))
    if not candidates:
        what = f"must name a candidate besides {BASELINE}, got none"
        problems.append(Problem("-tr", what, "add one, such as SemiMeanTeacherTrainer"))
    kinds = our_trainers()
    for name in candidates:
        if name in kinds and not kinds[name].segments:
            problems.append(Problem(f"-tr {name}", "segments nothing", "leave it out"))
    refuse("The choice cannot start:", problems)


def configuration_for(folders: Folders, device: str) -> str:
    """3d_fullres for volumes on a GPU; 2d for slices, and on a CPU, where 3-D takes many times
    as long.
    """
    if device == "cpu":
        return "2d"
    raw = RawDataset.of(folders.raw)
    images = raw.cases[0].images
    reader = reader_class(raw.content, images)
    array, _, _ = read_with_nnunet(images[0], reader, is_label=False)
    return "3d_fullres" if array.shape[1] > 1 else "2d"


@dataclass
class Choice:
    """The way from the candidates to the one that ships.

    Args:
        commands: of the data set.
        state: what was done before.
        candidates: the most promising first, without the baseline.
        hours: to spend.
        resources: of this machine.
    """

    commands: Commands
    state: State
    candidates: tuple[str, ...]
    hours: float
    resources: Resources

    def make(self) -> Shipped | None:
        """Do all that is left; None: it was handed to a cluster."""
        folders, state = self.commands.folders, self.state
        with writing("the folder of what ships", out := self.commands.out):  # before hours of work
            out.mkdir(parents=True, exist_ok=True)
        run_stages(self.commands.preparing())
        if FULL not in state.rounds and not self.measured():
            return None
        left = list(self.candidates)
        for name in (SHORT, LONGER, FULL):
            if (one := self.round_of(name, left)) is None:
                continue
            run_stages(self.commands.trainings(one, self.setting.steps_per_epoch))
            jobs = self.commands.jobs_of(one)
            if not all(job.is_done for job in jobs):
                print("next: when the cluster's queue is empty, the same command again")
                return None
            if name != FULL:
                run_stages(self.commands.validating(one))
                state.ranked[name] = ranked(jobs)
                state.save()
                print(f"best first: {', '.join(state.ranked[name])}")
                of_candidates = [n for n in state.ranked[name] if n in left]
                left = better_half(of_candidates)
        jobs = self.commands.jobs_of(state.rounds[FULL])
        proof = prove(jobs, left[0])
        choice = choice_of(left[0], state, self.setting, proof, self.hours)
        choice.write(self.commands.choice)
        run_stages(self.commands.shipping(proof.ships))
        self.copy_predictions(proof.ships)
        write_text(self.commands.out / "README.md", story(folders.raw.name, proof, choice))
        return Shipped(proof.ships, proof.said, self.commands.out)

    def show(self) -> None:
        """Print the commands and, if the rates are known, the table."""
        run_stages(self.commands.preparing(), dry_run=True)
        if not self.state.rates:
            here, threads = self.commands.are_here, self.resources.threads
            timing = self.commands.timing(self.everybody, threads)
            elsewhere = self.commands.measuring(self.everybody, "0")
            run_stages(timing if here else elsewhere, dry_run=True)
            print("# how the hours are divided is said when a few steps were timed")
            return
        rounds = list(self.state.rounds.values()) or divide(
            self.setting, self.candidates, self.seconds_left
        )
        print(schedule_table(rounds, self.setting))
        for one in rounds:
            run_stages(self.commands.trainings(one, self.setting.steps_per_epoch), dry_run=True)

    @property
    def everybody(self) -> tuple[str, ...]:
        """The baseline and all candidates, with their teachers."""
        teachers = self.teachers
        named = [BASELINE, *self.candidates, *teachers.values()]
        return tuple(sorted(unique(named), key=lambda name: name in teachers))

    @property
    def teachers(self) -> dict[str, str]:
        """Candidate -> the trainer that must be trained before it."""
        kinds = our_trainers()
        taught = {name: kinds[name].taught_by for name in self.candidates if name in kinds}
        return {name: teacher for name, teacher in taught.items() if teacher}

    def measured(self) -> bool:
        """Find out what trainings take; False: a cluster will."""
        if self.commands.are_here:
            self.state.rates = self.rates_here()
        elif not self.state.rates:
            fold = "0" if number_of_folds(self.commands.folders) else ALL
            run_stages(self.commands.measuring(self.everybody, fold))
            jobs = {name: self.commands.rate_job(name, fold) for name in self.everybody}
            if not all(job.is_done for job in jobs.values()):
                print("next: when the cluster's queue is empty, the same command again")
                return False
            self.state.rates = {name: rate_of(job) for name, job in jobs.items()}
        self.state.save()
        return True

    def rates_here(self) -> dict[str, Rate]:
        """What trainings take on this machine: as a benchmark found, now or before.

        Raises:
            UserError: a trainer cannot be measured.
        """
        resources, commands, cores = self.resources, self.commands, usable_cores()
        name, threads = commands.folders.preprocessed.name, resources.threads
        work = Work(name, commands.configuration, PLANS, resources.device, threads, ROUNDS)
        kept = Kept.of(commands.folders, work)
        if known := [one for one in self.everybody if one in kept.rates]:
            print(f"rates of semi_nnunet benchmark of {kept.dates(known)}: {', '.join(known)}")
        workers = child_environment(resources)[LOADING]
        if missing := [one for one in self.everybody if one not in kept.rates]:
            with variable(LOADING, workers):
                run_stages(commands.timing(missing, threads))
            kept = Kept.of(commands.folders, work)
            if unknown := [one for one in missing if one not in kept.rates]:
                what = f"nothing was kept in {kept.path} of {', '.join(unknown)}"
                raise UserError(f"{what}. Fix: make its folder writable, and run this again")
        semi, folders = self.semi, commands.folders
        share = semi.get("validation_steps_per_epoch", 50) / semi.get("steps_per_epoch", 250)
        labelled = len(folders.labelled_cases())
        validated = math.ceil(labelled / max(1, number_of_folds(folders)))
        return {
            one: rate_from(kept.rates[one], int(workers), cores, validated, share)
            for one in self.everybody
        }

    def round_of(self, name: str, left: Sequence[str]) -> Round | None:
        """The round of this name: as it was begun, or as the time that is left allows."""
        state = self.state
        if name not in state.rounds:
            done = [*state.rounds]
            if FULL in done:
                return None  # it was left out
            rounds = divide(self.setting, left, self.seconds_left, done)
            if rounds[0].name != name:
                return None
            print(schedule_table(rounds, self.setting, done))
            state.rounds[name] = rounds[0]
            state.save()
        return state.rounds[name]

    @property
    def setting(self) -> Setting:
        """What the schedule depends on."""
        folders = self.commands.folders
        return Setting(
            rates=self.state.rates,
            teachers=self.teachers,
            baseline=BASELINE,
            folds=number_of_folds(folders),
            patients=len({*map(patients_of(folders), folders.labelled_cases())}),
            test_cases=len(folders.test_cases()),
            has_test_labels=folders.test_labels is not None,
            steps_per_epoch=int(self.semi.get("steps_per_epoch", 250)),
            most_steps=MOST_STEPS,
            at_a_time=self.resources.jobs,
        )

    @property
    def semi(self) -> dict[str, Any]:
        """The planned settings."""
        content = read_plans(self.commands.folders.preprocessed, PLANS)
        return dict(content.get("semi", {}))

    @property
    def seconds_left(self) -> float:
        return self.hours * 3600 * SHARE_SPENT - self.state.seconds

    def copy_predictions(self, trainer: str) -> None:
        """Copy the predictions of imagesTs to where the model ships, if there are any."""
        folders = self.commands.folders
        of_round = self.commands.jobs_of(self.state.rounds[FULL])
        (job,) = (one for one in of_round if (one.trainer, one.fold) == (trainer, ALL))
        if not job.test.is_dir():
            return
        target = self.commands.out / "predictions"
        target.mkdir(parents=True, exist_ok=True)
        for case in sorted(job.predicted_cases("test")):
            shutil.copyfile(job.test / f"{case}{folders.file_ending}",
                            target / f"{case}{folders.file_ending}")  # fmt: skip
