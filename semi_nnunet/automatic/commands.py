"""The commands of an ``auto``, each as a user could type it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semi_nnunet.automatic.schedule import FULL, TrainingRound
from semi_nnunet.deploy.export import is_exported_from
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.raw.plans import read_plans, resolve_configuration
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import STEPS, Job
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.settings.assignments import format_assignment
from semi_nnunet.training.precision import computes_bfloat16_fast
from semi_nnunet.util.command import Command
from semi_nnunet.util.verb_commands import build_command

PLANS = "nnUNetPlans_auto"
NEXT_CASES = 5  # to annotate
ROUNDS = 3  # of a benchmark; every trainer makes a step in each
CHOOSING_STEPS = ("train",)  # includes the validation, which chooses
RATE = "rate"  # name of the round in which a few steps are timed
USUAL: dict[str, Any] = {  # nnU-Net's
    "steps_per_epoch": 250, "validation_steps_per_epoch": 50, "optimizer": "sgd", "initial_lr": 0.01
}  # fmt: skip
RATE_EPOCHS, RATE_STEPS = 2, 10  # steps of each epoch
TIMED_STEPS = RATE_EPOCHS * RATE_STEPS
RATE_LENGTH = (
    f"epochs={RATE_EPOCHS}", f"steps_per_epoch={RATE_STEPS}", "validation_steps_per_epoch=1"
)  # fmt: skip
ADAM_BELOW = 5000  # steps; after 4,800 SGD is behind by .3 (Hippocampus) and 4.6 points (ACDC)
# SGD with momentum .99 needs its first hundreds of steps to get under way: 600 steps on cardiac
# slices gave a Dice of .45 with SGD, .55 with Adam (docs/results/journal.md, "Adam or SGD")
OPTIMISER, OF_SHORT_TRAININGS = ("optimizer", "initial_lr"), ("adam", 0.001)

NamedCommands = Iterator[tuple[str, Command]]


@dataclass(frozen=True)
class AutoCommands:
    """The commands for one data set and configuration.

    Args:
        folders: of the data set.
        configuration: to train.
        launcher: where the trainings run.
        device: of the trainings.
        out: folder for the exported model.
    """

    folders: Folders
    configuration: str
    launcher: JobLauncher
    device: str
    out: Path

    @property
    def choice_file(self) -> Path:
        """The file that describes how the model was chosen."""
        return self.out / "choice.json"

    @property
    def exported(self) -> Path:
        """Folder of the exported model, for stock nnU-Net."""
        return self.out / "exported"

    @property
    def next_cases(self) -> Path:
        """Folder of the cases to annotate next."""
        return self.out / "next_cases"

    def read_planned(self, setting: str) -> Any:
        """Return the value of a setting in the plans that all rounds start from."""
        semi = read_plans(self.folders.preprocessed, PLANS).get("semi", {})
        return {**USUAL, **semi, **semi.get(self.configuration, {})}[setting]

    def read_batch_size(self) -> int:
        """Return the patches of a batch in the plans that all rounds start from."""
        plans = read_plans(self.folders.preprocessed, PLANS)
        configuration = resolve_configuration(plans, self.configuration) or {}
        return int(configuration["batch_size"])

    def list_optimiser_settings(self, steps: int) -> list[str]:
        """Return the settings of the optimizer for a training of this length.

        All are given, as the plans of the round may have those of an earlier, shorter choice.
        """
        values = OF_SHORT_TRAININGS if steps < ADAM_BELOW else map(self.read_planned, OPTIMISER)
        return [
            f"{self.configuration}.{format_assignment(setting, value)}"
            for setting, value in zip(OPTIMISER, values, strict=True)
        ]

    def name_plans(self, name: str) -> str:
        """Return the identifier of a round's plans."""
        return f"{PLANS}_{name}"

    def build_preparation(self) -> NamedCommands:
        """Verify, plan and preprocess; for a CPU with a network that fits it."""
        preprocess = self._build("preprocess", configurations=[self.configuration])
        yield "verify and preprocess", preprocess
        budget = "cpu" if self.device == "cpu" else None
        yield "plan", self._build(
            "plan", new_plans=PLANS, configurations=[self.configuration], budget=budget,
            settings=list_device_settings(self.device),
        )  # fmt: skip
        if budget:  # its spacing may differ
            yield "preprocess as planned", (*preprocess, "-p", PLANS)

    @property
    def runs_locally(self) -> bool:
        """Whether trainings run on this machine, on a device that a benchmark can time."""
        return self.launcher.is_local and self.device in ("cpu", "cuda")

    def build_benchmark(self, trainers: Sequence[str], threads: int) -> NamedCommands:
        """Time a few steps of every trainer on this machine."""
        yield "time a few steps", self._build(
            "benchmark", configuration=self.configuration, plans=PLANS, device=self.device,
            threads=threads, steps=ROUNDS, quick=True, trainers=trainers,
        )  # fmt: skip

    def build_timing(self, trainers: Sequence[str], fold: str) -> NamedCommands:
        """Time a few steps of every trainer on the cluster where its trainings will run."""
        own = [value for name in trainers for value in self._set_innermost(name, RATE_LENGTH)]
        yield "plan a few steps", self._plan(RATE, [*RATE_LENGTH, *own])
        yield "time a few steps", self._crossval(RATE, trainers, [fold], CHOOSING_STEPS)

    def build_trainings(self, current: TrainingRound, steps_per_epoch: int) -> NamedCommands:
        """Plan and train a round; the last one also predicts and measures test cases."""
        per_epoch = f"steps_per_epoch={steps_per_epoch}"
        length = [f"epochs={current.steps // steps_per_epoch}", per_epoch]
        for trainer in current.trainers:  # the user may have set another length there
            epochs = f"epochs={current.steps_of(trainer) // steps_per_epoch}"
            length += self._set_innermost(trainer, (epochs, per_epoch))
        settings = (*length, *self.list_optimiser_settings(current.steps))
        yield f"plan the {current.name} trainings", self._plan(current.name, settings)
        train = self._crossval(
            current.name, current.trainers, current.folds, list_round_steps(current)
        )
        yield f"the {current.name} trainings", train

    def build_evaluations(self, current: TrainingRound) -> NamedCommands:
        """Measure the validation cases of a round that chooses."""
        for job in self.list_jobs(current):
            if "validation" in job.list_unmeasured():
                references = self.folders.references
                words = self.folders.evaluation_command(job.validation, references, processes=1)
                yield f"measure {job}", words

    def build_results(self, trainer: str) -> NamedCommands:
        """Export the model, unless it was exported before, and write the report."""
        if not self.list_archives(trainer):
            yield "export", self.build_export(trainer, self.exported)
        plans = self.name_plans(FULL)
        report = {"plans": plans, "choice": self.choice_file, "out": self.out / "report.html"}
        yield "report", self._build("report", **report)

    def list_archives(self, trainer: str) -> list[Path]:
        """Return the zip of the exported model, if there is one."""
        name = f"*__{trainer}__{self.name_plans(FULL)}__{self.configuration}.zip"
        return [*self.exported.glob(name)]

    def remove_outdated_export(self, trainer: str) -> None:
        """Remove exported models of other trainers, and this one if it was trained again since.

        Args:
            trainer: whose model is exported.
        """
        checkpoint = self.find_last_job(trainer).folder / FINAL_CHECKPOINT
        if not checkpoint.is_file():
            return
        plans, is_kept = self.name_plans(FULL), False
        for model in self.exported.glob(f"*/*__{plans}_*__{self.configuration}"):
            is_wanted = model.name.endswith(f"__{plans}_{trainer}__{self.configuration}")
            if is_wanted and is_exported_from(model, checkpoint):
                is_kept = True
            else:
                shutil.rmtree(model)
        kept = self.list_archives(trainer) if is_kept else []
        for archive in self.list_archives("*"):
            if archive not in kept:
                archive.unlink()

    def build_export(self, trainer: str, folder: Path) -> Command:
        """Return the command that exports a model of the last round into a folder."""
        return self._build(
            "export", plans=self.name_plans(FULL), configuration=self.configuration,
            trainer=trainer, folds=[ALL], out=folder,
        )  # fmt: skip

    def build_choice_of_cases(self) -> NamedCommands:
        """Choose the unlabelled cases to annotate next. Only their images are compared."""
        choose = self._build("next", number=NEXT_CASES, out=self.next_cases)
        yield "choose the cases to annotate next", choose

    def build_proposals(self, trainer: str) -> Command:
        """Return the command that lets a model of the last round choose and propose labels."""
        model = self.find_last_job(trainer).folder.parent.relative_to(self.folders.results.parent)
        return self._build("next", number=NEXT_CASES, models=[model], proposals=True)

    def find_last_job(self, trainer: str) -> Job:
        """Return the training of the last round."""
        return Job(self.folders, trainer, self.configuration, ALL, 0, self.name_plans(FULL))

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

    def _build(self, verb: str, **arguments: Any) -> Command:
        return build_command(verb, dataset=self.folders.raw.name, **arguments)

    def _set_innermost(self, trainer: str, values: Sequence[str]) -> list[str]:
        """Return settings of a trainer and configuration, which override those of other layers."""
        return [f"{trainer}.{self.configuration}.{value}" for value in values]

    def _plan(self, name: str, settings: Sequence[str]) -> Command:
        return self._build(
            "plan", plans=PLANS, new_plans=self.name_plans(name),
            configurations=[self.configuration], settings=settings,
        )  # fmt: skip

    def _crossval(
        self, name: str, trainers: Sequence[str], folds: Sequence[str], steps: Sequence[str]
    ) -> Command:
        launcher = self.launcher
        if launcher.is_local:  # on a cluster, the nodes choose their devices
            launcher = replace(launcher, device=self.device)
        return self._build(
            "crossval", plans=self.name_plans(name), configurations=[self.configuration],
            folds=folds, trainers=trainers, stages=steps, **asdict(launcher),
        )  # fmt: skip


def list_round_steps(current: TrainingRound) -> tuple[str, ...]:
    """Return the steps of a round's jobs; only the last round predicts test cases."""
    return STEPS if current.name == FULL else CHOOSING_STEPS


def list_device_settings(device: str) -> tuple[str, ...]:
    """Return the settings for a device, which all plans have, also those for timing steps.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    fast = device == "cpu" and computes_bfloat16_fast()
    return ("mixed_precision=bfloat16",) if fast else ()
