"""Distil a trained model into a smaller network within a cost limit, and measure the loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.trained import TrainedModel, find_model, require_same_data
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.points import format_difference, format_interval
from semi_nnunet.evaluation.values import Model, Table, credit_absence, read_values
from semi_nnunet.planning.architecture import measure_network_size
from semi_nnunet.planning.checks import require_own_network, require_plans_name
from semi_nnunet.planning.slim import (
    SlimNetwork,
    find_largest_within,
    list_slim_networks,
    measure_image_seconds,
)
from semi_nnunet.raw.layout import DATASET_JSON, FINAL_CHECKPOINT, find_fold_folders
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import ALL, Folders, find_folders, load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import JobLauncher, find_resources
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import collect_given_settings
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import optional_json, read_json, undone_on_failure, write_json
from semi_nnunet.util.machine import torch_threads
from semi_nnunet.util.names import format_count, not_above_zero
from semi_nnunet.workflows.crossval import make_jobs, run_crossval
from semi_nnunet.workflows.plan import plan_dataset

logger = logging.getLogger(__name__)

STUDENT, TEACHER, METRIC = "SemiDistillationTrainer", "the teacher", "dice"
MEASURED = ("predict", "evaluate")  # steps of the teacher
KEY = "semi_slim"  # of plans: the options that chose the network


@dataclass(frozen=True)
class SlimNetworks:
    """A small network and the model that teaches it.

    Args:
        model: the teacher.
        teacher, student: the networks.
        teacher_seconds, student_seconds: for the median image, network passes only.
        plans: identifier of the plans that were written.
        dataset: name of the data set of the plans.
    """

    model: TrainedModel
    teacher: SlimNetwork
    student: SlimNetwork
    teacher_seconds: float
    student_seconds: float
    plans: str
    dataset: str

    def __str__(self) -> str:
        def line(name: str, slim: SlimNetwork, seconds: float) -> str:
            return (
                f"{name:<12}{' '.join(map(str, slim.features))} features, "
                f"{slim.parameters / 1e6:.3g} million parameters, "
                f"{slim.operations / 1e9:.3g} GFLOPs a patch, {seconds:.3g} s an image"
            )

        ratio = self.teacher.operations / self.student.operations
        return "\n".join(
            [
                line("teacher", self.teacher, self.teacher_seconds),
                line("student", self.student, self.student_seconds),
                f"the student has 1/{ratio:.1f} of the operations (the median image, without "
                f"mirroring; reading, resampling and writing are not included)",
            ]
        )


@dataclass(frozen=True)
class SlimResult:
    """A small network, and its loss against its teacher.

    Args:
        networks: and the plans that were written.
        conclusion: the loss in Dice, as a sentence; None if nothing was trained.
    """

    networks: SlimNetworks
    conclusion: str | None = None


def choose_slim_network(
    model: str,
    dataset: str | None,
    folds: Sequence[str] | None,
    share: float,
    seconds: float | None,
    name: str | None,
    settings: Sequence[str],
    device: str | None,
) -> SlimNetworks:
    """Choose a small network by its cost, and write plans in which a model teaches it.

    The network that was chosen first is kept. See :func:`semi_nnunet.distil`.

    Raises:
        UserError: all problems at once: the model, a fold or the data set does not exist, the
            model's network is not nnU-Net's, or no network is within the limit.
    """
    problems = [*find_goal_problems(share, seconds)]
    with collect_errors(problems, "--device"):
        resources = find_resources(device)
    with collect_errors(problems, "-m"):
        teacher = find_model(model)
        teacher_plans = str(teacher.plans["plans_name"])
        plans = name or f"{teacher_plans}_slim"
        with collect_errors(problems, "--new-plans"):
            require_plans_name(plans)
        problems += find_teacher_fold_problems(teacher, folds)
        goal = {"plans": plans, "model": teacher.name, "share": share, "seconds": seconds}
        goal |= {"device": None if seconds is None else device}
        with collect_errors(problems, "-d"):
            folders = find_folders(dataset or teacher.folder.parent.name)
            content = read_plans(folders.preprocessed, teacher_plans)
            require_own_network(content, teacher_plans)
            existing = optional_json(folders.preprocessed / f"{plans}.json")
            problems += find_slim_plans_problems(existing, goal, teacher, folders)
    raise_if_any("no small network can be made:", problems)
    load_model(teacher)  # checks that it can teach
    description = read_json(folders.preprocessed / DATASET_JSON)
    require_same_data([teacher], description, folders.preprocessed.name)
    configuration = teacher.configuration
    manager = PlansManager(teacher.plans)
    channels = determine_num_input_channels(
        manager, manager.get_configuration(configuration), teacher.dataset_json
    )
    heads = manager.get_label_manager(teacher.dataset_json).num_segmentation_heads
    teacher_plan = manager.get_configuration(configuration).configuration
    slices = int(teacher.plans["original_median_shape_after_transp"][0])

    @cache
    def measure_seconds(network: SlimNetwork) -> float:
        with torch_threads(resources.threads):
            return measure_image_seconds(
                network, channels, heads, torch.device(resources.device), slices
            )

    networks = list_slim_networks(teacher_plan, channels, heads)
    if existing.get(KEY) == goal:  # measuring again could choose another network
        kept_plan = PlansManager(existing).get_configuration(configuration).configuration
        parameters, operations = measure_network_size(kept_plan, channels, heads)
        student = SlimNetwork(kept_plan, operations, parameters)
    else:
        student = find_largest_within(networks, share, seconds, measure_seconds)
    teaching = [f"{STUDENT}.models={format_teacher_setting(teacher, folders)}"]
    if not any("initial_lr=" in setting for setting in settings):
        teaching += scale_learning_rate(content, configuration, networks[0], student)
    with undone_on_failure([folders.preprocessed / f"{plans}.json"]):
        write_slim_plans(folders, {**content, KEY: goal}, plans, configuration, student)
        plan_dataset(folders.raw.name, plans=plans, configurations=[configuration],
             settings=[*teaching, *settings])  # fmt: skip
    costs = measure_seconds(networks[0]), measure_seconds(student)
    return SlimNetworks(teacher, networks[0], student, *costs, plans, folders.preprocessed.name)


def find_goal_problems(share: float, seconds: float | None) -> Iterator[Problem]:
    """Yield a problem for each impossible limit."""
    if not 0 < share <= 1:
        message = f"must be above 0 and at most 1, got {share:g}"
        yield Problem("--share", message, "such as 0.125")
    yield from not_above_zero({"--seconds": seconds})


def find_teacher_fold_problems(
    teacher: TrainedModel, folds: Sequence[str] | None
) -> Iterator[Problem]:
    """Yield a problem for folds that the model does not have."""
    folders = find_fold_folders(teacher.folder)
    trained = {fold for fold, folder in folders.items() if (folder / FINAL_CHECKPOINT).is_file()}
    existing = sorted({*teacher.folds, *trained})
    if missing := sorted({*(folds or ())} - {*existing}):
        message = (
            f"must name folds of {teacher.name}, which has {', '.join(existing)}, got "
            f"{', '.join(missing)}"
        )
        yield Problem("-f", message, "train them, or leave them out")


def find_slim_plans_problems(
    existing: Mapping[str, Any],
    goal: Mapping[str, Any],
    teacher: TrainedModel,
    folders: Folders,
) -> Iterator[Problem]:
    """Yield a problem if existing plans would be lost, or a training uses another network.

    Args:
        existing: content of the plans of that name; {} if there are none.
        goal: new value of :data:`KEY` in these plans.
    """
    name, earlier = str(goal["plans"]), existing.get(KEY, {})
    if name == teacher.plans["plans_name"]:
        message = f"must differ from {name}, the teacher's plans"
        yield Problem("--new-plans", message, "choose another name")
    elif existing and (earlier.get("plans"), earlier.get("model")) != (name, teacher.name):
        path = folders.preprocessed / f"{name}.json"
        message = f"must be of new plans, got {name}, which would be lost: {path}"
        yield Problem("--new-plans", message, "choose another name")
    elif existing and earlier != goal:
        results = folders.results / f"{STUDENT}__{name}__{teacher.configuration}"
        if any(results.glob("fold_*/checkpoint_*.pth")):
            limits = f"--share {earlier['share']:g}"
            if earlier["seconds"] is not None:
                limits += f" --seconds {earlier['seconds']:g}"
            message = (
                f"{name} are the plans with which a network for {limits} is trained: {results}"
            )
            fix = "choose another name, or give the same limits to continue"
            yield Problem("--new-plans", message, fix)


def scale_learning_rate(
    plans: Mapping[str, Any], configuration: str, teacher: SlimNetwork, student: SlimNetwork
) -> list[str]:
    """Return the setting that raises Adam's learning rate for a narrower network.

    The length of Adam's steps does not depend on the gradient's, so that the output of a layer
    changes by the learning rate times its width: networks of different widths learn alike at rates
    in inverse proportion to the width (Yang et al. 2021, arXiv:2203.03466). On Hippocampus (2d, 600
    steps) a network of 6 features reached almost nothing at the rate of its teacher, which has 16.

    Returns:
        [] with another optimizer, or if the plans do not give a rate.
    """
    classes = settings_classes()
    settings = collect_given_settings(
        plans.get("semi", {}), SemiSettings, classes[STUDENT], STUDENT, configuration,
        list(plans["configurations"]), classes,
    )  # fmt: skip
    if settings.get("optimizer", ("", ""))[0] != "adam" or "initial_lr" not in settings:
        return []
    rate = settings["initial_lr"][0] * teacher.features[0] / student.features[0]
    return [f"{STUDENT}.initial_lr={rate:.3g}"]


def write_slim_plans(
    folders: Folders, content: dict[str, Any], name: str, configuration: str, student: SlimNetwork
) -> None:
    """Write plans with the small network, for the data that are preprocessed."""
    content["plans_name"] = name
    content["configurations"][configuration] |= {
        key: student.configuration[key] for key in ("architecture", "patch_size")
    }
    write_json(folders.preprocessed / f"{name}.json", to_plain_values(content))


def format_teacher_setting(teacher: TrainedModel, folders: Folders) -> str:
    """Return the value of the setting with which the model of a fold teaches the same fold."""
    root = folders.results.parent
    is_inside = root in teacher.folder.parents
    folder = teacher.folder.relative_to(root) if is_inside else teacher.folder
    return f'["{(folder / "fold_{fold}").as_posix()}"]'


def train_slim_network(
    networks: SlimNetworks, folds: Sequence[str] | None, launcher: JobLauncher
) -> str:
    """Train the small network in every fold of the model, and compare it with the model.

    Returns:
        The loss in Dice, as a sentence.

    Raises:
        UserError: a training failed, or nothing could be compared.
    """
    teacher = networks.model
    configurations, folds = [teacher.configuration], list(folds or teacher.folds)
    student_set, teacher_set = networks.dataset, teacher.folder.parent.name
    teacher_plans = teacher.plans["plans_name"]
    if not run_crossval(
        student_set, configurations, [STUDENT], plans=networks.plans, folds=folds,
        launcher=launcher,
    ):  # fmt: skip
        return "the jobs were handed to the cluster; run the same command again when they are done"
    trainers = [teacher.parts[0]]
    run_crossval(
        teacher_set, configurations, trainers, plans=teacher_plans, folds=folds, steps=MEASURED,
        launcher=launcher,
    )  # fmt: skip
    students = make_jobs(
        find_folders(student_set), networks.plans, configurations, [STUDENT], folds, 1
    )
    teachers = make_jobs(
        find_folders(teacher_set), teacher_plans, configurations, trainers, folds, 1, steps=MEASURED
    )
    return compare_with_teacher(students, teachers)


def compare_with_teacher(students: Sequence[Job], teachers: Sequence[Job]) -> str:
    """Return the students' Dice against their teachers', on cases that neither trained on."""
    subset = "validation" if ALL not in {job.fold for job in students} else "test"
    tables: list[Table] = [
        (Model(name, job.configuration), job.fold, job.seed, paths[subset])
        for name, jobs in ((STUDENT, students), (TEACHER, teachers))
        for job in jobs
        if subset in (paths := job.current_tables())
    ]
    if len({model for model, *_ in tables}) < 2:
        return (
            f"the loss in Dice is unknown: there is no labelled {subset} case. Fix: train on "
            f"numbered folds, or put test cases into imagesTs and labelsTs"
        )
    values, _ = read_values(tables, METRIC, load_patient_finder(students[0].folders))
    (compared,) = comparison.compare_with_baseline(credit_absence(values, METRIC), TEACHER, METRIC)
    gain = compared.overall
    return (
        f"Dice {compared.mean:.4f}, the teacher's {compared.baseline_mean:.4f}: "
        f"{format_difference(gain.mean, METRIC)} points ({format_interval(gain, METRIC)}) on "
        f"{format_count(gain.cases, f'{subset} case')}"
    )
