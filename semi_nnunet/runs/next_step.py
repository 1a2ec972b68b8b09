"""What to type next: to plan for this machine, to train, or to measure what is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from semi_nnunet.data.layout import preprocessed_dataset, read_plans
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.runs.folders import ALL, folders_of
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import found_jobs
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json


def to_train(dataset: str, plans: str, configuration: str, fold: str = "0") -> list[str]:
    """The commands that train on this machine, one after another.

    Args:
        dataset: number or name.
        plans: identifier of the plans.
        configuration: such as "2d"; it is preprocessed.
        fold: number, or "all".
    """
    option = "" if plans == "nnUNetPlans" else f" -p {plans}"
    train = f"nnUNetv2_train {dataset} {configuration} {fold} -tr {RECOMMENDED}"
    planned = "semi_planned" in read_plans(preprocessed_dataset(dataset), plans)
    if device_here() != "cpu" or planned:
        return [" ".join([f"{train}{option}", *map(str, device_option())])]
    return [
        f"semi_nnunet plan -d {dataset}{option} --budget cpu",
        f"{train} -p {plans}_cpu -device cpu",
    ]


def to_preprocess(dataset: str, plans: str, configurations: Sequence[str]) -> str:
    """The command that preprocesses configurations of plans."""
    return f"semi_nnunet preprocess -d {dataset} -p {plans} -c {' '.join(configurations)}"


def device_here() -> str:
    """The device that this machine trains and predicts on: "cuda", "mps" or "cpu"."""
    import torch  # takes seconds, and few ask

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_option(device: str | None = None) -> Command:
    """The option that names a device to nnU-Net's commands, which take CUDA without it.

    Args:
        device: that was asked for; None: the one of this machine.
    """
    device = device or device_here()
    return () if device == "cuda" else ("-device", device)


def to_measure(jobs: Sequence[Job], plans: str) -> list[str]:
    """The commands that predict and measure what is trained, where ``compare`` looks for it.

    Args:
        jobs: of one data set and these plans, and their seeds.
        plans: their identifier.

    Returns:
        A command for all trainings that have folds and seeds in common; none where all is measured
        or nothing is trained. A line about labelled test cases comes first, if a training has no
        others to be measured on.
    """
    open_jobs = [job for job in jobs if job.is_trained and job.segments and not job.is_measured]
    if not open_jobs:
        return []
    folders, lines = open_jobs[0].folders, []
    if folders.test_labels is None and any(job.fold == ALL for job in open_jobs):
        lines.append(
            f"put labelled test images into imagesTs and labelsTs of {folders.raw}: fold 'all' "
            f"validates on what it was trained on"
        )
    runs = defaultdict[tuple[str, str], set[tuple[str, int]]](set)  # trainer, configuration
    for job in open_jobs:
        runs[job.trainer, job.configuration].add((job.fold, job.seed))
    alike = defaultdict[tuple[str, frozenset[tuple[str, int]]], list[str]](list)
    for (trainer, configuration), of_model in runs.items():
        alike[configuration, frozenset(of_model)].append(trainer)
    for (configuration, folds_and_seeds), trainers in alike.items():
        folds = sorted({fold for fold, _ in folds_and_seeds})
        seeds = max(seed for _, seed in folds_and_seeds) + 1
        many = f" --seeds {seeds}" if seeds > 1 else ""
        lines.append(
            f"semi_nnunet crossval -d {folders.results.name} -p {plans} -c {configuration} "
            f"-tr {' '.join(trainers)} -f {' '.join(folds)}{many} --device {device_here()}"
        )
    return lines


def after_measuring(measured: Path) -> list[str]:
    """The commands that compare the trainings that predictions may be of.

    ``nnUNetv2_predict`` writes plans and data set beside its predictions, but not the trainer, so
    that predictions in a folder of the user's count for no training; the trainings themselves do.

    Args:
        measured: folder of the predictions.

    Returns:
        What is still to be measured of the trainings with these plans, then the comparison; none
        where the data set, or a training with these plans, is not on this machine.
    """
    beside = optional_json(measured / "plans.json")
    name, plans = beside.get("dataset_name"), beside.get("plans_name")
    if not (name and plans):
        return []
    try:
        folders = folders_of(str(name))
    except UserError:  # such as predictions of another machine
        return []
    jobs = found_jobs(folders, str(plans))
    if not any(job.is_trained for job in jobs):
        return []
    return [*to_measure(jobs, str(plans)), f"semi_nnunet compare -d {name} -p {plans}"]


def next_lines(commands: Iterable[str]) -> str:
    """Commands below each other, for the end of what a verb prints."""
    first, *others = commands
    return "\n".join([f"next: {first}", *(f"      {one}" for one in others)])
