"""Distil a trained model into a small network that keeps to a goal, and say what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.layout import read_plans
from semi_nnunet.deploy.trained import CHECKPOINT, TrainedModel, find_model, require_models_of
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.values import Model, Table, crediting_absence, read_values
from semi_nnunet.planning.architecture import size_of
from semi_nnunet.planning.checks import require_own_network, require_plans_name
from semi_nnunet.planning.slim import Slim, largest_within, seconds_of_image, slim_networks
from semi_nnunet.runs.crossval import crossval, make_jobs
from semi_nnunet.runs.folders import ALL, Folders, folders_of, patients_of
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import Launcher, find_resources
from semi_nnunet.runs.plan import plan
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import given_settings
from semi_nnunet.training.checkpoints import plain
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import optional_json, read_json, undone_on_failure, write_json

STUDENT, TEACHER, METRIC = "SemiDistillationTrainer", "the teacher", "dice"
MEASURED = ("predict", "evaluate")  # what is done with the teacher
SHARE = 1 / 8  # of the teacher's operations, where nobody says more
KEY = "semi_slim"  # of plans: which network was asked for


@dataclass(frozen=True)
class Chosen:
    """A small network and the one that teaches it.

    Args:
        model: that teaches.
        teacher, student: the networks.
        teacher_seconds, student_seconds: of the median image, network passes alone.
        plans: identifier of the plans that were written.
        dataset: name of the data set that they are of.
    """

    model: TrainedModel
    teacher: Slim
    student: Slim
    teacher_seconds: float
    student_seconds: float
    plans: str
    dataset: str

    def __str__(self) -> str:
        def one(name: str, slim: Slim, seconds: float) -> str:
            return (
                f"{name:<12}{' '.join(map(str, slim.features))} features, "
                f"{slim.parameters / 1e6:.3g} million parameters, "
                f"{slim.operations / 1e9:.3g} GFLOPs a patch, {seconds:.3g} s an image"
            )

        share = self.teacher.operations / self.student.operations
        return "\n".join(
            [
                one("teacher", self.teacher, self.teacher_seconds),
                one("student", self.student, self.student_seconds),
                f"the student has 1/{share:.1f} of the operations (the median image, without "
                f"mirrored ones; reading, resampling and writing come on top)",
            ]
        )


@dataclass(frozen=True)
class Slimmed:
    """A small network, and what it costs beside its teacher.

    Args:
        chosen: the networks, and the plans that were written.
        told: what it costs in Dice, in a sentence; None: nothing was trained.
    """

    chosen: Chosen
    told: str | None = None


def slim(
    model: str,
    *,
    dataset: str | None = None,
    folds: Sequence[str] | None = None,
    share: float = SHARE,
    seconds: float | None = None,
    name: str | None = None,
    settings: Sequence[str] = (),
    plan_only: bool = False,
    launcher: Launcher | None = None,
    say: Callable[[str], None] = print,
) -> Slimmed:
    """Distil a trained model into a small network that keeps to a goal of cost.

    What is done is kept, so that calling it again goes on, with the network that was chosen first.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION of a trained model, as it is or below
            nnUNet_results.
        dataset: number or name of the data set to learn from, which has the model's plans and is
            prepared here; None: that of the model.
        folds: numbers, or "all"; None: those of the model.
        share: of the model's operations that the network may have at most.
        seconds: that the median image may take on the launcher's device; None: any.
        name: of the plans; None: those of the model with "_slim".
        settings: of the training, such as "epochs=300".
        plan_only: write the plans, train nothing.
        launcher: where the trainings run, and the device that the seconds are of; None: here.
        say: gets what was chosen, before anything is trained.

    Returns:
        The networks, and what the small one costs.

    Raises:
        UserError: naming all that is wrong: there is no such model, fold or data set, the model's
            network is none of nnU-Net's, no network keeps to the goal, or a training failed.
    """
    launcher = launcher or Launcher()
    chosen = choose(
        model, dataset=dataset, folds=folds, share=share, seconds=seconds, name=name,
        device=launcher.device, settings=settings,
    )  # fmt: skip
    say(f"{chosen}\nwrote {chosen.plans}")
    return Slimmed(chosen, None if plan_only else train(chosen, folds, launcher))


def choose(
    model: str,
    *,
    dataset: str | None = None,
    folds: Sequence[str] | None = None,
    share: float = SHARE,
    seconds: float | None = None,
    name: str | None = None,
    device: str | None = None,
    settings: Sequence[str] = (),
) -> Chosen:
    """Choose a small network by its cost, and write plans in which a model teaches it.

    Args:
        device: that the seconds are of.
        model, dataset, folds, share, seconds, name, settings: see :func:`slim`.

    Raises:
        UserError: as :func:`slim`.
    """
    wrong = [*goal_problems(share, seconds)]
    with collect_errors(wrong, "--device"):
        resources = find_resources(device)
    with collect_errors(wrong, "-m"):
        teacher = find_model(model)
        own_plans = str(teacher.plans["plans_name"])
        plans = name or f"{own_plans}_slim"
        with collect_errors(wrong, "--name"):
            require_plans_name(plans)
        wrong += fold_problems(teacher, folds)
        asked = {"plans": plans, "model": teacher.name, "share": share, "seconds": seconds}
        asked |= {"device": None if seconds is None else device}
        with collect_errors(wrong, "-d"):
            folders = folders_of(dataset or teacher.folder.parent.name)
            content = read_plans(folders.preprocessed, own_plans)
            require_own_network(content, own_plans)
            there = optional_json(folders.preprocessed / f"{plans}.json")
            wrong += plans_problems(there, asked, teacher, folders)
    raise_if_any("no small network can be made:", wrong)
    description = read_json(folders.preprocessed / "dataset.json")
    require_models_of([teacher], description, folders.preprocessed.name)
    configuration = teacher.configuration
    torch.set_num_threads(resources.threads)
    manager = PlansManager(teacher.plans)
    channels = determine_num_input_channels(
        manager, manager.get_configuration(configuration), teacher.dataset_json
    )
    heads = manager.get_label_manager(teacher.dataset_json).num_segmentation_heads
    own = manager.get_configuration(configuration).configuration
    slices = int(teacher.plans["original_median_shape_after_transp"][0])

    @cache
    def takes(one: Slim) -> float:
        return seconds_of_image(one, channels, heads, torch.device(resources.device), slices)

    networks = slim_networks(own, channels, heads)
    if there.get(KEY) == asked:  # measured again, seconds could choose another
        kept = PlansManager(there).get_configuration(configuration).configuration
        parameters, operations = size_of(kept, channels, heads)
        student = Slim(kept, operations, parameters)
    else:
        student = largest_within(networks, share, seconds, takes)
    teaching = [f"{STUDENT}.models={teacher_of_folds(teacher, folders)}"]
    if not any("initial_lr=" in one for one in settings):
        teaching += learning_rate(content, configuration, networks[0], student)
    with undone_on_failure([folders.preprocessed / f"{plans}.json"]):
        write_plans(folders, {**content, KEY: asked}, plans, configuration, student)
        plan(folders.raw.name, plans=plans, configurations=[configuration],
             settings=[*teaching, *settings])  # fmt: skip
    costs = takes(networks[0]), takes(student)
    return Chosen(teacher, networks[0], student, *costs, plans, folders.preprocessed.name)


def goal_problems(share: float, seconds: float | None) -> Iterator[Problem]:
    """A goal that no network could have."""
    if not 0 < share <= 1:
        what = f"must be above 0 and at most 1, got {share:g}"
        yield Problem("--share", what, "such as 0.125")
    if seconds is not None and not 0 < seconds < math.inf:
        yield Problem("--seconds", f"must be above 0, got {seconds:g}", "correct it")


def fold_problems(teacher: TrainedModel, folds: Sequence[str] | None) -> Iterator[Problem]:
    """Folds that the model does not have."""
    there = {path.parent.name[5:] for path in teacher.folder.glob(f"fold_*/{CHECKPOINT}")}
    if missing := sorted({*(folds or ())} - {*teacher.folds, *there}):
        has = ", ".join(sorted({*teacher.folds, *there}))
        what = f"must name folds of {teacher.name}, which has {has}, got {', '.join(missing)}"
        yield Problem("-f", what, "train them, or leave them out")


def plans_problems(
    there: Mapping[str, Any], asked: Mapping[str, Any], teacher: TrainedModel, folders: Folders
) -> Iterator[Problem]:
    """Plans of that name that are others, or that a training of another network has begun with.

    Args:
        there: content of the file of that name; {}: there is none.
        asked: what :data:`KEY` of these plans is to be.
        teacher: the model.
        folders: of the data set that is learned from.
    """
    name, before = str(asked["plans"]), there.get(KEY, {})
    if name == teacher.plans["plans_name"]:
        what = f"must differ from {name}, the teacher's plans"
        yield Problem("--name", what, "choose another name")
    elif there and (before.get("plans"), before.get("model")) != (name, teacher.name):
        path = folders.preprocessed / f"{name}.json"
        what = f"must be of new plans, got {name}, which would be lost: {path}"
        yield Problem("--name", what, "choose another name")
    elif there and before != asked:
        results = folders.results / f"{STUDENT}__{name}__{teacher.configuration}"
        if any(results.glob("fold_*/checkpoint_*.pth")):
            goal = f"--share {before['share']:g}"
            goal += f" --seconds {before['seconds']:g}" if before["seconds"] is not None else ""
            what = f"{name} are the plans with which a network for {goal} is trained: {results}"
            yield Problem("--name", what, "choose another name, or give the same goal to go on")


def learning_rate(
    plans: Mapping[str, Any], configuration: str, teacher: Slim, student: Slim
) -> list[str]:
    """The setting by which Adam's learning rate grows as the network becomes narrower.

    Adam's steps are as long whatever the gradient's length, so that the output of a layer changes
    by the learning rate times its width: networks of other widths learn alike at rates in inverse
    proportion to it (Yang et al. 2021, arXiv:2203.03466). On Hippocampus (2d, 600 steps) a network
    of 6 features reached almost nothing at the rate of its teacher, which has 16.

    Returns:
        Nothing with another optimizer, or where the plans do not give a rate.
    """
    classes = settings_classes()
    given = given_settings(
        plans.get("semi", {}), SemiSettings, classes[STUDENT], STUDENT, configuration,
        list(plans["configurations"]), classes,
    )  # fmt: skip
    if given.get("optimizer", ("", ""))[0] != "adam" or "initial_lr" not in given:
        return []
    rate = given["initial_lr"][0] * teacher.features[0] / student.features[0]
    return [f"{STUDENT}.initial_lr={rate:.3g}"]


def write_plans(
    folders: Folders, content: dict[str, Any], name: str, configuration: str, student: Slim
) -> None:
    """Plans with the small network, of the data that are there."""
    content["plans_name"] = name
    content["configurations"][configuration] |= {
        key: student.configuration[key] for key in ("architecture", "patch_size")
    }
    write_json(folders.preprocessed / f"{name}.json", plain(content))


def teacher_of_folds(teacher: TrainedModel, folders: Folders) -> str:
    """The setting by which each fold is taught by the model of the same fold."""
    inside = folders.results.parent in teacher.folder.parents
    place = teacher.folder.relative_to(folders.results.parent) if inside else teacher.folder
    return f'["{(place / "fold_{fold}").as_posix()}"]'


def train(chosen: Chosen, folds: Sequence[str] | None, launcher: Launcher) -> str:
    """Train the small network of every fold that the model has, and compare it with the model.

    Args:
        chosen: what :func:`choose` returned.
        folds: numbers, or "all"; None: those of the model.
        launcher: where the trainings run.

    Returns:
        What it costs in Dice, in a sentence.

    Raises:
        UserError: a training failed, or nothing could be compared.
    """
    teacher, plans = chosen.model, chosen.plans
    configuration = teacher.configuration
    folds = list(folds or teacher.folds)
    trainer, own = teacher.parts[0], teacher.plans["plans_name"]
    of_teacher, which = teacher.folder.parent.name, (plans, [configuration], [STUDENT], folds)
    if not crossval(
        chosen.dataset, [configuration], [STUDENT], plans=plans, folds=folds, launcher=launcher
    ):
        return "the jobs were handed to the cluster; the same command goes on when they are done"
    crossval(
        of_teacher, [configuration], [trainer], plans=own, folds=folds, steps=MEASURED,
        launcher=launcher,
    )  # fmt: skip
    students = make_jobs(folders_of(chosen.dataset), *which, 1)
    which = (own, [configuration], [trainer], folds)
    teachers = make_jobs(folders_of(of_teacher), *which, 1, steps=MEASURED)
    return difference(students, teachers)


def difference(students: Sequence[Job], teachers: Sequence[Job]) -> str:
    """What the students' Dice is beside their teachers', on cases that neither trained on."""
    subset = "validation" if ALL not in {job.fold for job in students} else "test"
    tables: list[Table] = [
        (Model(name, job.configuration), job.fold, job.seed, found[subset])
        for name, jobs in ((STUDENT, students), (TEACHER, teachers))
        for job in jobs
        if subset in (found := job.current_tables())
    ]
    if len({model for model, *_ in tables}) < 2:
        return (
            f"nothing tells what that costs in Dice: there is no labelled {subset} case. Fix: "
            f"train on numbered folds, or put test cases into imagesTs and labelsTs"
        )
    values, _ = read_values(tables, METRIC, patients_of(students[0].folders))
    (found_difference,) = comparison.compare(crediting_absence(values, METRIC), TEACHER, METRIC)
    one = found_difference.overall
    return (
        f"Dice {found_difference.mean:.4f}, the teacher's {found_difference.baseline_mean:.4f}: "
        f"{100 * one.mean:+.2f} points ({100 * one.low:+.2f} to {100 * one.high:+.2f}) on "
        f"{one.cases} {subset} cases"
    )
