"""The commands of an ``auto``, each as a user could type it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.automatic.schedule import FULL, TrainingRound
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import STEPS, Job
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.training.precision import computes_bfloat16_fast
from semi_nnunet.util.command import Command

PLANS = "nnUNetPlans_auto"
ROUNDS = 3  # of a benchmark; every trainer makes a step in each
CHOOSING_STEPS = ("train",)  # includes the validation, which chooses
RATE = "rate"  # name of the round in which a few steps are timed
USUAL = {"steps_per_epoch": 250, "validation_steps_per_epoch": 50}  # nnU-Net's
RATE_SETTINGS = ("epochs=2", "steps_per_epoch=10", "validation_steps_per_epoch=1")
ADAM_BELOW = 5000  # steps; after 4,800 SGD is behind by .3 (Hippocampus) and 4.6 points (ACDC)

NamedCommands = Iterator[tuple[str, Command]]


@dataclass(frozen=True)
class AutoCommands:
    """The commands for one data set and configuration.

    Args:
        folders: of the data set.
        configuration: to train.
        launcher: where the trainings run.
        device: of the trainings.
        out: folder for the model that ships.
    """

    folders: Folders
    configuration: str
    launcher: JobLauncher
    device: str
    out: Path

    @property
    def _dataset_option(self) -> tuple[str, ...]:
        return "-d", self.folders.raw.name

    @property
    def choice_file(self) -> Path:
        """The file that describes how the model was chosen."""
        return self.out / "choice.json"

    def read_planned_steps(self, setting: str) -> int:
        """Return a number of steps from the plans that all rounds start from."""
        semi = read_plans(self.folders.preprocessed, PLANS).get("semi", {})
        return int(semi.get(setting, USUAL[setting]))

    def name_plans(self, name: str) -> str:
        """Return the identifier of a round's plans."""
        return f"{PLANS}_{name}"

    def build_preparation(self) -> NamedCommands:
        """Verify, plan and preprocess; for a CPU with a network that fits it."""
        configuration = ("-c", self.configuration)
        preprocess = ("semi_nnunet", "preprocess", *self._dataset_option, *configuration)
        yield "verify and preprocess", preprocess
        budget = ("--budget", "cpu") if self.device == "cpu" else ()
        name = ("--name", PLANS, *configuration)
        settings = list_device_settings(self.device)
        assignments = ("--set", *settings) if settings else ()
        yield "plan", ("semi_nnunet", "plan", *self._dataset_option, *name, *budget, *assignments)
        if budget:  # its spacing may differ
            yield "preprocess as planned", (*preprocess, "-p", PLANS)

    @property
    def runs_locally(self) -> bool:
        """Whether trainings run on this machine, on a device that a benchmark can time."""
        return self.launcher.is_local and self.device in ("cpu", "cuda")

    def build_benchmark(self, trainers: Sequence[str], threads: int) -> NamedCommands:
        """Time a few steps of every trainer on this machine."""
        options = ("-c", self.configuration, "-p", PLANS, "--device", self.device)
        length = ("--threads", str(threads), "--rounds", str(ROUNDS), "--quick")
        words = (*self._dataset_option, *options, *length, "-tr", *trainers)
        yield "time a few steps", ("semi_nnunet", "benchmark", *words)

    def build_timing(self, trainers: Sequence[str], fold: str) -> NamedCommands:
        """Time a few steps of every trainer on the cluster where its trainings will run."""
        yield "plan a few steps", self._plan(RATE, RATE_SETTINGS)
        train = self._crossval(RATE, trainers, [fold])
        yield "time a few steps", (*train, "--steps", *CHOOSING_STEPS, *self._launching)

    def build_trainings(self, current: TrainingRound, steps_per_epoch: int) -> NamedCommands:
        """Plan and train a round; the last one also predicts and measures test cases."""
        epochs, baseline_epochs = (
            steps // steps_per_epoch for steps in (current.steps, current.steps_of(BASELINE))
        )
        length = [f"epochs={epochs}", f"steps_per_epoch={steps_per_epoch}"]
        if baseline_epochs != epochs:
            length.append(f"{BASELINE}.epochs={baseline_epochs}")
        settings = (*length, *list_step_settings(current.steps))
        yield f"plan the {current.name} trainings", self._plan(current.name, settings)
        train = self._crossval(current.name, current.trainers, current.folds)
        steps = list_round_steps(current)
        option = () if steps == STEPS else ("--steps", *steps)
        yield f"the {current.name} trainings", (*train, *option, *self._launching)

    def build_evaluations(self, current: TrainingRound) -> NamedCommands:
        """Measure the validation cases of a round that chooses."""
        for job in self.list_jobs(current):
            if "validation" in job.list_unmeasured():
                references = self.folders.references
                words = self.folders.evaluation_command(job.validation, references, processes=1)
                yield f"measure {job}", words

    def build_shipping(self, trainer: str) -> NamedCommands:
        """Export the model, unless it was exported before, and write the report."""
        plans, folder = ("-p", self.name_plans(FULL)), self.out / "exported"
        if not any(folder.glob(f"*__{trainer}__{plans[1]}__{self.configuration}.zip")):
            yield "export", self.build_export(trainer, folder)
        page = ("--choice", self.choice_file, "-o", self.out / "report.html")
        yield "report", ("semi_nnunet", "report", *self._dataset_option, *plans, *page)

    def build_export(self, trainer: str, folder: Path) -> Command:
        """Return the command that exports a model of the last round into a folder."""
        plans = ("-p", self.name_plans(FULL), "-c", self.configuration)
        model = (*plans, "-tr", trainer, "-f", ALL)
        return ("semi_nnunet", "export", *self._dataset_option, *model, "-o", folder)

    def list_jobs(self, current: TrainingRound) -> list[Job]:
        """Return the trainings of a round."""
        plans, steps = self.name_plans(current.name), list_round_steps(current)
        return [
            Job(self.folders, trainer, self.configuration, fold, 0, plans, steps=steps)
            for trainer in current.trainers
            for fold in current.folds
        ]

    def make_timing_job(self, trainer: str, fold: str) -> Job:
        """Return the training whose steps are timed."""
        return Job(
            self.folders, trainer, self.configuration, fold, 0, self.name_plans(RATE),
            steps=CHOOSING_STEPS,
        )  # fmt: skip

    def _plan(self, name: str, settings: Sequence[str]) -> Command:
        plans = ("-p", PLANS, "--name", self.name_plans(name), "-c", self.configuration)
        return ("semi_nnunet", "plan", *self._dataset_option, *plans, "--set", *settings)

    def _crossval(self, name: str, trainers: Sequence[str], folds: Sequence[str]) -> Command:
        trainings = ("-c", self.configuration, "-f", *folds, "-tr", *trainers)
        plans = ("-p", self.name_plans(name))
        return ("semi_nnunet", "crossval", *self._dataset_option, *plans, *trainings)

    @property
    def _launching(self) -> list[str]:
        """The options of the launcher; on a cluster, the nodes choose their devices."""
        launcher = self.launcher
        if launcher.is_local:
            launcher = replace(launcher, device=self.device)
        return launcher.options()


def list_round_steps(current: TrainingRound) -> tuple[str, ...]:
    """Return the steps of a round's jobs; only the last round predicts test cases."""
    return STEPS if current.name == FULL else CHOOSING_STEPS


def list_step_settings(steps: int) -> tuple[str, ...]:
    """Return the settings for a training of this length, as ``plan --set`` takes them.

    SGD with momentum .99 needs its first hundreds of steps to get under way: 600 steps on cardiac
    slices gave a Dice of .45 with SGD, .55 with Adam (docs/results/journal.md, "Adam or SGD").

    >>> list_step_settings(600)
    ('optimizer=adam', 'initial_lr=0.001')
    """
    return ("optimizer=adam", "initial_lr=0.001") if steps < ADAM_BELOW else ()


def list_device_settings(device: str) -> tuple[str, ...]:
    """Return the settings of all plans for a device, also those in which steps are timed.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    fast = device == "cpu" and computes_bfloat16_fast()
    return ("mixed_precision=bfloat16",) if fast else ()
