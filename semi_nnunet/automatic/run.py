"""Choose the best method within a budget of hours, test the choice, and export its model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from semi_nnunet.annotation.next_cases import PAGE, TABLE
from semi_nnunet.automatic.cases import CaseCounts
from semi_nnunet.automatic.checked_choice import check_choice, rank_trainers
from semi_nnunet.automatic.commands import PLANS, TIMED_STEPS, USUAL, AutoCommands
from semi_nnunet.automatic.page import (
    build_choice,
    describe_next_cases,
    explain_changes,
    format_answer_page,
    format_progress_page,
    format_ranking,
    format_schedule,
    warn_of_short_training,
)
from semi_nnunet.automatic.rates import (
    assume_rates,
    find_kept_rates,
    measure_rates_locally,
    measure_rates_on_cluster,
    read_training_seconds,
)
from semi_nnunet.automatic.schedule import (
    FULL,
    LONGER,
    SHORT,
    ScheduleInputs,
    TrainingRate,
    TrainingRound,
    divide_budget,
    estimate_duration,
    estimate_round_seconds,
    keep_better_half,
)
from semi_nnunet.automatic.state import AutoState, RoundForecast
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED
from semi_nnunet.planning.budget import CPU_LENGTH
from semi_nnunet.raw.description import RawDataset, find_cases
from semi_nnunet.raw.layout import UNLABELLED_IMAGES
from semi_nnunet.raw.readers import (
    BrokenFileError,
    choose_reader,
    read_with_nnunet,
    with_spacing_files,
)
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import JobLauncher, find_resources
from semi_nnunet.runs.local import Resources
from semi_nnunet.util.command import typed
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import file_in_the_way, read_csv, write_text, writing
from semi_nnunet.util.lock import held
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import not_above_zero, unique
from semi_nnunet.workflows.pieces import describe_pieces, keep_largest_pieces

logger = logging.getLogger(__name__)

CANDIDATES = (  # in the order of preference, by gains in the same time: docs/results/equal_time.md
    RECOMMENDED,
    "SemiFixMatchTrainer",
    "SemiMeanTeacherTrainer",
    "SemiDistillationTrainer",
)
SHARE_SPENT = 0.92  # of the hours, by trainings; the rest is for the report and wrong estimates
MOST_STEPS = 250_000  # nnU-Net's
SMALLEST_BATCH = 2  # nnU-Net's, assumed before it plans
OWN_PAGE, PREDICTIONS = "README.md", "predictions"  # among the results
LATER = "next: repeat this command when the cluster's queue is empty"


@dataclass(frozen=True)
class ExportedModel:
    """The result of an ``auto``.

    Args:
        trainer: of the exported model.
        answer: whether unlabelled images helped, as a sentence.
        folder: with the exported model, the predictions of imagesTs and the report.
    """

    trainer: str
    answer: str
    folder: Path


def require_valid_options(hours: float, candidates: Sequence[str], out: Path, dataset: str) -> None:
    """Check the options.

    Args:
        hours, candidates, out: as in :func:`semi_nnunet.auto`.
        dataset: name of the data set, with which the page of an earlier run begins.

    Raises:
        UserError: naming all that is wrong with them.
    """
    problems = [*unknown_trainers(candidates), *not_above_zero({"--hours": hours})]
    if file := file_in_the_way(out):
        problems.append(Problem("-o", f"must be a folder, but {file} is a file", "give a folder"))
    page = out / OWN_PAGE
    is_ours = page.is_file() and page.read_text("utf-8", "replace").startswith(f"# {dataset}\n")
    theirs = [path.name for path in (page, out / PREDICTIONS) if path.exists() and not is_ours]
    if theirs:
        message = f"{out} holds other files that would be replaced: {', '.join(theirs)}"
        problems.append(Problem("-o", message, "give a new folder"))
    if not candidates:
        message = f"must name a candidate other than {BASELINE}, got none"
        problems.append(Problem("-tr", message, f"add one, such as {RECOMMENDED}"))
    facts = our_trainers()
    for name in candidates:
        if name in facts and not facts[name].segments:
            problems.append(Problem(f"-tr {name}", "segments nothing", "leave it out"))
    raise_if_any("The choice cannot start:", problems)


def find_training_resources(launcher: JobLauncher) -> Resources:
    """Return the resources of trainings, on this machine or on the nodes of a cluster.

    Raises:
        UserError: this machine has no such device; or trainings run on other machines, whose device
            is not given, and this one has no GPU either.
    """
    if not launcher.is_remote:
        return find_resources(launcher.device, launcher.jobs, launcher.threads)
    device = launcher.device or ("cuda" if torch.cuda.is_available() else None)
    if device is None:
        raise UserError(
            f"--launcher {launcher.launcher} runs trainings on other machines, and this one has no "
            "GPU, so that the device to plan for is unknown",
            fix="--device cuda (or cpu)",
        )
    return Resources(device, (), launcher.jobs or 1, launcher.threads or usable_cores())


def choose_configuration(folders: Folders, device: str) -> str:
    """Return 3d_fullres for volumes on a GPU, else 2d; on a CPU 3-D takes many times as long.

    Raises:
        UserError: there is no image, or the first one is damaged.
    """
    if device == "cpu":
        return "2d"
    raw = RawDataset.of(folders.raw)
    if not raw.cases:
        raise UserError(
            f"{raw.folder} has no image in imagesTr, imagesUn and imagesTs",
            fix="put labelled images into imagesTr, their labels into labelsTr, and the others "
            "into imagesUn",
        )
    images = raw.cases[0].images
    reader = choose_reader(raw.content, images)
    try:
        array, _, _ = read_with_nnunet(images[0], reader, is_label=False)
    except BrokenFileError as error:
        raise UserError(f"{images[0]} {error}", fix=error.fix) from error
    return "3d_fullres" if array.shape[1] > 1 else "2d"


@dataclass
class AutoRun:
    """One ``auto``, from the candidates to the exported model.

    Args:
        commands: of the data set.
        state: of earlier runs of the same command.
        candidates: the most promising first, without the baseline.
        hours: to spend.
        resources: of this machine.
    """

    commands: AutoCommands
    state: AutoState
    candidates: tuple[str, ...]
    hours: float
    resources: Resources

    @classmethod
    def of(
        cls,
        folders: Folders,
        configuration: str | None,
        candidates: Sequence[str],
        hours: float,
        launcher: JobLauncher,
        out: Path,
    ) -> AutoRun:
        """Return the run with the state of earlier ones; see :func:`semi_nnunet.auto`."""
        resources = find_training_resources(launcher)
        configuration = configuration or choose_configuration(folders, resources.device)
        commands = AutoCommands(folders, configuration, launcher, resources.device, out)
        options = {"configuration": configuration, "candidates": " ".join(candidates)}
        state = AutoState.of(folders.results / "semi_auto" / f"{configuration}.json", options)
        return cls(commands, state, tuple(candidates), hours, resources)

    def execute_alone(self) -> ExportedModel | None:
        """Do the remaining work, which counts against the hours.

        Raises:
            UserError: another process does it, the time is too short, or a stage failed.
        """
        with held(self.state.lock, from_dead=True) as holder:
            if holder:
                raise UserError(
                    f"{holder} already runs this choice ({self.state.path})",
                    fix="wait for it, or end it and run the same command again",
                )
            with self.state.running():
                return self.execute()

    def execute(self) -> ExportedModel | None:
        """Do the remaining work; return None if it was handed to a cluster."""
        folders, state = self.commands.folders, self.state
        # a folder without permission is found before hours of work
        with writing("the folder of the results", out := self.commands.out):
            out.mkdir(parents=True, exist_ok=True)
        run_stages(self.commands.build_preparation())
        if FULL not in state.rounds and not self.measure_rates():
            return None
        candidates = list(self.candidates)
        for name in (SHORT, LONGER, FULL):
            if (current := self.begin_round(name, candidates)) is None:
                continue
            run_stages(self.commands.build_trainings(current, self.steps_per_epoch))
            jobs = self.commands.list_jobs(current)
            if not self.are_done(jobs):
                return None
            if name != FULL:
                run_stages(self.commands.build_evaluations(current))
                candidates = self.choose_candidates(name, candidates, rank_trainers(jobs))
                logger.info(f"chosen for the next round: {', '.join(map(name_method, candidates))}")
        method, jobs = candidates[0], self.commands.list_jobs(state.rounds[FULL])
        checked = check_choice(jobs, method)
        choice = build_choice(method, state, self.cases, checked, self.hours)
        choice.write(self.commands.choice_file)
        self.commands.remove_outdated_export(checked.exported)
        run_stages(self.commands.build_results(checked.exported))
        self.copy_predictions(checked.exported)
        export = None
        if checked.exported != method:
            export = typed(self.commands.build_export(method, Path("FOLDER")))
        advice = describe_pieces(jobs, "test" if self.cases.has_test_labels else "validation")
        page = partial(format_answer_page, folders.raw.name, checked, choice, export, advice=advice)
        write_text(out / OWN_PAGE, page([]))
        write_text(out / OWN_PAGE, page(self.choose_next_cases(checked.exported)))
        return ExportedModel(checked.exported, checked.answer, self.commands.out)

    def choose_next_cases(self, exported: str) -> list[str]:
        """Choose the cases to annotate next; return what the page says about them.

        Args:
            exported: trainer of the exported model.
        """
        commands = self.commands
        images = commands.folders.raw / UNLABELLED_IMAGES
        if not find_cases(images, commands.folders.file_ending):
            return []
        try:
            run_stages(commands.build_choice_of_cases())
        except UserError as error:  # the model is exported: an image that cannot be read is no loss
            logger.warning(str(error))
            return []
        rows = read_csv(commands.next_cases / TABLE)[1]
        return describe_next_cases(
            [(row["case"], row["reason"]) for row in rows],
            (commands.next_cases / PAGE).relative_to(commands.out).as_posix(),
            typed(commands.build_proposals(exported)),
        )

    def show_commands(self) -> None:
        """Print the schedule, from assumed rates where none are measured, and the commands."""
        inputs, assumed = self.forecast_inputs()
        if assumed:
            logger.info(
                f"Training times of {', '.join(map(name_method, assumed))} are assumed (baseline: "
                f"{inputs.rates[BASELINE].step:.2g} s a step). Without --dry-run, a few steps are "
                "timed first, and the schedule is made again."
            )
        rounds = list(self.state.rounds.values()) or divide_budget(
            inputs, self.candidates, self.seconds_left
        )
        logger.info(format_schedule(rounds, inputs))
        run_stages(self.commands.build_preparation(), dry_run=True)
        if not self.state.rates:
            trainers = self.add_baseline_and_teachers(self.candidates)
            benchmark = self.commands.build_benchmark(trainers, self.resources.threads)
            timing = self.commands.build_timing(trainers, "0")
            run_stages(benchmark if self.commands.runs_locally else timing, dry_run=True)
            return
        for current in rounds:
            trainings = self.commands.build_trainings(current, self.steps_per_epoch)
            run_stages(trainings, dry_run=True)

    def forecast_inputs(self) -> tuple[ScheduleInputs, list[str]]:
        """Return the inputs of a schedule before anything is measured.

        Returns:
            The inputs, from kept rates as far as possible; and the trainers with assumed rates.
        """
        commands, device = self.commands, self.resources.device
        trainers = self.add_baseline_and_teachers(self.candidates)
        is_planned = (commands.folders.preprocessed / f"{PLANS}.json").is_file()
        cases = self.cases if is_planned else self.count_raw_cases()
        known = self.state.rates
        if not known and is_planned and commands.runs_locally:
            known = find_kept_rates(commands, trainers, self.resources, cases)
        assumed = [name for name in trainers if name not in known]
        patches = commands.read_batch_size() if is_planned else SMALLEST_BATCH
        rates = {**assume_rates(assumed, device, patches, known.get(BASELINE)), **known}
        usual = (CPU_LENGTH if device == "cpu" else USUAL)["steps_per_epoch"]
        steps_per_epoch = self.steps_per_epoch if is_planned else usual
        return self.make_inputs(rates, cases, steps_per_epoch), assumed

    def count_raw_cases(self) -> CaseCounts:
        """Count the cases of the raw data set, before it is preprocessed."""
        folders = self.commands.folders
        return CaseCounts.of_raw(folders, RawDataset.of(folders.raw))

    def add_baseline_and_teachers(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """Return the baseline and the candidates, after all of their teachers."""
        teachers = self.teachers
        names = [BASELINE, *candidates]
        names += [teachers[name] for name in candidates if name in teachers]
        return tuple(sorted(unique(names), key=lambda name: name in teachers))

    @property
    def teachers(self) -> dict[str, str]:
        """Candidate -> the trainer that must be trained before it."""
        facts = our_trainers()
        taught_by = {name: facts[name].taught_by for name in self.candidates if name in facts}
        return {name: teacher for name, teacher in taught_by.items() if teacher}

    def measure_rates(self) -> bool:
        """Measure how long trainings take; return False if a cluster will."""
        compares = self.cases.choosing_folds
        candidates = self.candidates if compares else self.candidates[:1]
        trainers = self.add_baseline_and_teachers(candidates)
        commands, rates = self.commands, self.state.rates
        if commands.runs_locally:
            self.state.rates = measure_rates_locally(commands, trainers, self.resources, self.cases)
        elif missing := [name for name in trainers if name not in rates]:
            if (measured := measure_rates_on_cluster(commands, missing, self.cases)) is None:
                logger.info(LATER)
                return False
            self.state.rates = {**rates, **measured}
            durations = [rate.besides + TIMED_STEPS * rate.step for rate in measured.values()]
            self.state.add_seconds(estimate_duration(durations, self.resources.jobs))
        self.state.save()
        return True

    def begin_round(self, name: str, candidates: Sequence[str]) -> TrainingRound | None:
        """Return the round of this name, as it was begun or as the remaining time allows.

        Returns:
            None if the round is dropped.
        """
        rounds = self.state.rounds
        if name not in rounds:
            finished = [*rounds]
            if FULL in finished:
                return None
            remaining = divide_budget(self.schedule_inputs, candidates, self.seconds_left, finished)
            if remaining[0].name != name:
                return None
            logger.info(format_schedule(remaining, self.schedule_inputs, finished))
            self.note_schedule(remaining)
            rounds[name] = remaining[0]
            self.state.save()
        if not all(job.is_done for job in self.commands.list_jobs(rounds[name])):
            self.write_progress()
        return rounds[name]

    def are_done(self, jobs: Sequence[Job]) -> bool:
        """Return whether the trainings of a round are done; else a cluster has them in its queue.

        The time that they take on a cluster counts when they are done.
        """
        state = self.state
        if unfinished := [str(job) for job in jobs if not job.is_done]:
            state.queued = unique([*state.queued, *unfinished])
            state.save()
            logger.info(LATER)
            return False
        if durations := [read_training_seconds(job) for job in jobs if str(job) in state.queued]:
            state.add_seconds(estimate_duration(durations, self.resources.jobs))
            state.queued = []
            state.save()
        return True

    def choose_candidates(
        self, name: str, candidates: Sequence[str], dice: dict[str, float]
    ) -> list[str]:
        """Return the better half of the candidates after a round, the best first.

        Later rounds that trained others are forgotten: data that were corrected since may have
        changed the ranking.

        Args:
            name: of the round.
            candidates: of the round.
            dice: trainer -> mean Dice, the best first.
        """
        state = self.state
        earlier, ranked = state.ranked.get(name), [*dice]
        chosen = keep_better_half([trainer for trainer in ranked if trainer in candidates])
        names = [*state.rounds]
        later = names[names.index(name) + 1 :]
        if earlier and later and earlier != ranked:
            needed = chosen[:1] if later[0] == FULL else chosen
            if not {*needed} <= {*state.rounds[later[0]].trainers}:
                state.forget(later)
                note = (
                    f"The {name} round chose {', '.join(map(name_method, needed))} after its data "
                    f"had changed. What was trained in later rounds is not used."
                )
                logger.warning(note)
                state.notes.append(note)
        state.dice[name], state.ranked[name] = dice, ranked
        state.save()
        ranking = format_ranking(ranked, dice)
        logger.info(f"best first (Dice in points, validation cases): {ranking}")
        self.write_progress()
        return chosen

    def note_schedule(self, remaining: Sequence[TrainingRound]) -> None:
        """Log why rounds are short, or shorter than in the last schedule, and remember this one."""
        state = self.state
        changes = explain_changes(state, remaining)
        if not state.forecast:
            changes += warn_of_short_training(remaining)
        for sentence in changes:
            logger.warning(sentence)
        state.notes += changes
        state.begun[remaining[0].name] = state.seconds
        seconds = estimate_round_seconds(self.schedule_inputs, remaining)
        for current, expected in zip(remaining, seconds, strict=True):
            state.forecast[current.name] = RoundForecast(current.steps, expected)

    def write_progress(self) -> None:
        """Write the page of the unfinished choice."""
        name = self.commands.folders.raw.name
        page = format_progress_page(name, self.state, self.cases, self.hours)
        write_text(self.commands.out / OWN_PAGE, page)

    @cached_property
    def cases(self) -> CaseCounts:
        """The numbers of preprocessed cases."""
        return CaseCounts.of(self.commands.folders)

    @property
    def steps_per_epoch(self) -> int:
        return int(self.commands.read_planned("steps_per_epoch"))

    @property
    def schedule_inputs(self) -> ScheduleInputs:
        """The inputs of the schedule, from the rates of this choice."""
        return self.make_inputs(self.state.rates, self.cases, self.steps_per_epoch)

    def make_inputs(
        self, rates: Mapping[str, TrainingRate], cases: CaseCounts, steps_per_epoch: int
    ) -> ScheduleInputs:
        """Return the inputs of a schedule.

        Args:
            rates: of the baseline, the candidates and their teachers.
            cases: of the data set.
            steps_per_epoch: of all trainings.
        """
        return ScheduleInputs(
            rates=rates,
            teachers=self.teachers,
            baseline=BASELINE,
            cases=cases,
            steps_per_epoch=steps_per_epoch,
            most_steps=MOST_STEPS,
            at_a_time=self.resources.jobs,
        )

    @property
    def seconds_left(self) -> float:
        return self.hours * 3600 * SHARE_SPENT - self.state.seconds

    def copy_predictions(self, trainer: str) -> None:
        """Copy the predictions of imagesTs, if there are any, next to the exported model."""
        ending = self.commands.folders.file_ending
        job = self.commands.find_last_job(trainer)
        target = self.commands.out / PREDICTIONS
        shutil.rmtree(target, ignore_errors=True)  # of a model or of images that are gone
        if not job.test.is_dir():
            return
        target.mkdir(parents=True)
        for case in sorted(job.predicted_cases("test")):
            label = job.test / f"{case}{ending}"
            for path in with_spacing_files([label], is_label=True):
                shutil.copyfile(path, target / path.name)
        keep_largest_pieces(target, find_model(str(job.folder.parent)))
