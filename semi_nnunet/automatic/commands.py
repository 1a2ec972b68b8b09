"""The commands of an ``auto``, each as a user could type it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.automatic.schedule import FULL, Round
from semi_nnunet.automatic.settings import settings_of_device, settings_of_steps
from semi_nnunet.data.layout import read_plans
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import STEPS, Job
from semi_nnunet.runs.launching import Launcher
from semi_nnunet.util.command import Command

PLANS = "nnUNetPlans_auto"
ROUNDS = 3  # of a benchmark, in which every trainer has a step
CHOOSING = ("train",)  # steps of the trainings that choose: their validation is one of them
RATE = "rate"  # the round in which a few steps are timed
USUAL = {"steps_per_epoch": 250, "validation_steps_per_epoch": 50}  # nnU-Net's
RATE_SETTINGS = ("epochs=2", "steps_per_epoch=10", "validation_steps_per_epoch=1")


@dataclass(frozen=True)
class Commands:
    """The commands for one data set and configuration.

    Args:
        folders: of the data set.
        configuration: that is trained.
        launcher: where the trainings run.
        device: that they run on.
        out: folder for what ships.
    """

    folders: Folders
    configuration: str
    launcher: Launcher
    device: str
    out: Path

    @property
    def _which(self) -> tuple[str, ...]:
        return "-d", self.folders.raw.name

    @property
    def choice(self) -> Path:
        """The file that tells how the model was chosen."""
        return self.out / "choice.json"

    def planned(self, setting: str) -> int:
        """A number of steps, as the plans have it that all rounds begin with."""
        semi = read_plans(self.folders.preprocessed, PLANS).get("semi", {})
        return int(semi.get(setting, USUAL[setting]))

    def plans_of(self, name: str) -> str:
        """The identifier of a round's plans."""
        return f"{PLANS}_{name}"

    def preparing(self) -> Iterator[tuple[str, Command]]:
        """Verify, plan and preprocess; on a CPU for the network that fits one."""
        configuration = ("-c", self.configuration)
        preprocess = ("semi_nnunet", "preprocess", *self._which, *configuration)
        yield "verify and preprocess", preprocess
        budget = ("--budget", "cpu") if self.device == "cpu" else ()
        named = ("--name", PLANS, *configuration)
        settings = settings_of_device(self.device)
        asked = ("--set", *settings) if settings else ()
        yield "plan", ("semi_nnunet", "plan", *self._which, *named, *budget, *asked)
        if budget:  # its spacing may be another
            yield "preprocess as planned", (*preprocess, "-p", PLANS)

    @property
    def are_here(self) -> bool:
        """Whether trainings run on this machine, on a device whose steps a benchmark can time."""
        return self.launcher.launcher == "local" and self.device in ("cpu", "cuda")

    def timing(self, trainers: Sequence[str], threads: int) -> Iterator[tuple[str, Command]]:
        """Time a few steps of every trainer, here."""
        where = ("-c", self.configuration, "-p", PLANS, "--device", self.device)
        how = ("--threads", str(threads), "--rounds", str(ROUNDS), "--quick")
        words = (*self._which, *where, *how, "-tr", *trainers)
        yield "time a few steps", ("semi_nnunet", "benchmark", *words)

    def measuring(self, trainers: Sequence[str], fold: str) -> Iterator[tuple[str, Command]]:
        """Time a few steps of every trainer where its trainings will run: on a cluster."""
        yield "plan a few steps", self._plan(RATE, RATE_SETTINGS)
        train = self._crossval(RATE, trainers, [fold])
        yield "time a few steps", (*train, "--steps", *CHOOSING, *self._launching)

    def trainings(self, one: Round, steps_per_epoch: int) -> Iterator[tuple[str, Command]]:
        """Plan a round, and train it; what is in the last one is also predicted and measured."""
        length = (f"epochs={one.steps // steps_per_epoch}", f"steps_per_epoch={steps_per_epoch}")
        settings = (*length, *settings_of_steps(one.steps))
        yield f"plan the {one.name} trainings", self._plan(one.name, settings)
        train = self._crossval(one.name, one.trainers, one.folds)
        steps = steps_of(one)
        asked = () if steps == STEPS else ("--steps", *steps)
        yield f"the {one.name} trainings", (*train, *asked, *self._launching)

    def validating(self, one: Round) -> Iterator[tuple[str, Command]]:
        """Measure the validation cases of a round that chooses; it has no others."""
        for job in self.jobs_of(one):
            if "validation" in job.unmeasured():
                yield (
                    f"measure {job}",
                    self.folders.evaluation(job.validation, self.folders.references, processes=1),
                )

    def shipping(self, trainer: str) -> Iterator[tuple[str, Command]]:
        """Export the model, if that was not done before, and write the report."""
        plans, folder = ("-p", self.plans_of(FULL)), self.out / "exported"
        if not any(folder.glob(f"*__{trainer}__{plans[1]}__{self.configuration}.zip")):
            yield "export", self.exporting(trainer, folder)
        page = ("--choice", self.choice, "-o", self.out / "report.html")
        yield "report", ("semi_nnunet", "report", *self._which, *plans, *page)

    def exporting(self, trainer: str, folder: Path) -> Command:
        """Export a model of the last round into a folder."""
        plans = ("-p", self.plans_of(FULL), "-c", self.configuration)
        model = (*plans, "-tr", trainer, "-f", ALL)
        return ("semi_nnunet", "export", *self._which, *model, "-o", folder)

    def jobs_of(self, one: Round) -> list[Job]:
        """The trainings of a round."""
        plans, steps = self.plans_of(one.name), steps_of(one)
        return [
            Job(self.folders, trainer, self.configuration, fold, 0, plans, steps=steps)
            for trainer in one.trainers
            for fold in one.folds
        ]

    def rate_job(self, trainer: str, fold: str) -> Job:
        """The training whose steps are timed."""
        return Job(
            self.folders, trainer, self.configuration, fold, 0, self.plans_of(RATE),
            steps=CHOOSING,
        )  # fmt: skip

    def _plan(self, name: str, settings: Sequence[str]) -> Command:
        plans = ("-p", PLANS, "--name", self.plans_of(name), "-c", self.configuration)
        return ("semi_nnunet", "plan", *self._which, *plans, "--set", *settings)

    def _crossval(self, name: str, trainers: Sequence[str], folds: Sequence[str]) -> Command:
        what = ("-c", self.configuration, "-f", *folds, "-tr", *trainers)
        return ("semi_nnunet", "crossval", *self._which, "-p", self.plans_of(name), *what)

    @property
    def _launching(self) -> list[str]:
        """The options that say where trainings run; a cluster's nodes know their devices."""
        here = self.launcher.launcher == "local"
        return (replace(self.launcher, device=self.device) if here else self.launcher).options()


def steps_of(one: Round) -> tuple[str, ...]:
    """What is done in a round: only the last one predicts test cases and measures them."""
    return STEPS if one.name == FULL else CHOOSING
