"""Choose among the baseline and the methods within a budget of hours, prove the choice, ship it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from semi_nnunet.automatic.cases import Cases
from semi_nnunet.automatic.commands import Commands
from semi_nnunet.automatic.page import choice_of, schedule_table, story
from semi_nnunet.automatic.proof import prove, ranked
from semi_nnunet.automatic.rates import rates_elsewhere, rates_here
from semi_nnunet.automatic.schedule import (
    FULL,
    LONGER,
    SHORT,
    Round,
    Setting,
    better_half,
    divide,
)
from semi_nnunet.automatic.state import State
from semi_nnunet.data.image_files import read_with_nnunet
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.data.raw_description import RawDataset
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import ALL, Folders, folders_of
from semi_nnunet.runs.launching import Launcher, find_resources
from semi_nnunet.runs.local import Resources
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import file_in_the_way, write_text, writing
from semi_nnunet.util.lock import hold_until_exit
from semi_nnunet.util.names import unique

CANDIDATES = (  # in the order of preference: docs/results/tournament.md
    RECOMMENDED,
    "SemiMeanTeacherTrainer",
    "SemiMixMatchTrainer",
    "SemiDistillationTrainer",
)
SHARE_SPENT = 0.92  # of the hours, by the trainings; the rest for the report and wrong estimates
MOST_STEPS = 250_000  # nnU-Net's
LATER = "next: when the cluster's queue is empty, the same command again"


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
            f"{other} is at this choice already ({state.path})",
            fix="wait for it, or end it and run the same command again",
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
        problems.append(Problem("-tr", what, f"add one, such as {RECOMMENDED}"))
    kinds = our_trainers()
    for name in candidates:
        if name in kinds and not kinds[name].segments:
            problems.append(Problem(f"-tr {name}", "segments nothing", "leave it out"))
    raise_if_any("The choice cannot start:", problems)


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
            run_stages(self.commands.trainings(one, self.steps_per_epoch))
            jobs = self.commands.jobs_of(one)
            if not all(job.is_done for job in jobs):
                print(LATER)
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
        choice = choice_of(left[0], state, self.cases, proof, self.hours)
        choice.write(self.commands.choice)
        run_stages(self.commands.shipping(proof.ships))
        self.copy_predictions(proof.ships)
        other = None
        if proof.ships != left[0]:
            other = typed(self.commands.exporting(left[0], Path("FOLDER")))
        write_text(out / "README.md", story(folders.raw.name, proof, choice, other))
        return Shipped(proof.ships, proof.said, self.commands.out)

    def show(self) -> None:
        """Print the commands and, if the rates are known, the table."""
        run_stages(self.commands.preparing(), dry_run=True)
        if not self.state.rates:
            here, threads = self.commands.are_here, self.resources.threads
            everybody = self.with_all(self.candidates)
            timing = self.commands.timing(everybody, threads)
            elsewhere = self.commands.measuring(everybody, "0")
            run_stages(timing if here else elsewhere, dry_run=True)
            print("# how the hours are divided is said when a few steps were timed")
            return
        rounds = list(self.state.rounds.values()) or divide(
            self.setting, self.candidates, self.seconds_left
        )
        print(schedule_table(rounds, self.setting))
        for one in rounds:
            run_stages(self.commands.trainings(one, self.steps_per_epoch), dry_run=True)

    def with_all(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """The baseline and candidates, after all teachers of theirs."""
        teachers = self.teachers
        taught = [teachers[name] for name in candidates if name in teachers]
        named = [BASELINE, *candidates, *taught]
        return tuple(sorted(unique(named), key=lambda name: name in teachers))

    @property
    def teachers(self) -> dict[str, str]:
        """Candidate -> the trainer that must be trained before it."""
        kinds = our_trainers()
        taught = {name: kinds[name].taught_by for name in self.candidates if name in kinds}
        return {name: teacher for name, teacher in taught.items() if teacher}

    def measured(self) -> bool:
        """Find out what trainings take; False: a cluster will."""
        everybody = self.with_all(self.candidates if self.cases.choosing else self.candidates[:1])
        commands, known = self.commands, self.state.rates
        if commands.are_here:
            self.state.rates = rates_here(commands, everybody, self.resources, self.cases)
        elif missing := [name for name in everybody if name not in known]:
            if (rates := rates_elsewhere(commands, missing, self.cases)) is None:
                print(LATER)
                return False
            self.state.rates = {**known, **rates}
        self.state.save()
        return True

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

    @cached_property
    def cases(self) -> Cases:
        """The preprocessed ones."""
        return Cases.of(self.commands.folders)

    @property
    def steps_per_epoch(self) -> int:
        return self.commands.planned("steps_per_epoch")

    @property
    def setting(self) -> Setting:
        """What the schedule depends on."""
        return Setting(
            rates=self.state.rates,
            teachers=self.teachers,
            baseline=BASELINE,
            cases=self.cases,
            steps_per_epoch=self.steps_per_epoch,
            most_steps=MOST_STEPS,
            at_a_time=self.resources.jobs,
        )

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
