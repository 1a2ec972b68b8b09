"""Suggest the next command: to plan for this machine, to train, or to measure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.raw.layout import (
    MODEL,
    PLANS_JSON,
    PREDICTED_FROM,
    get_preprocessed_dataset,
)
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs import longer_baseline
from semi_nnunet.runs.folders import ALL, Folders, find_folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json
from semi_nnunet.util.verb_commands import suggest_command


def suggest_training(dataset: str, plans: str, configuration: str, fold: str = "0") -> list[str]:
    """Return the commands that train a preprocessed configuration on this machine, in order."""
    option = "" if plans == DEFAULT_PLANS else f" -p {plans}"
    train = f"nnUNetv2_train {dataset} {configuration} {fold} -tr {RECOMMENDED}"
    planned = "semi_planned" in read_plans(get_preprocessed_dataset(dataset), plans)
    if detect_device() != "cpu" or planned:
        return [" ".join([f"{train}{option}", *map(str, format_device_option())])]
    smaller = f"{plans}_cpu"
    return [
        suggest_command("plan", dataset=dataset, plans=plans, budget="cpu"),
        suggest_preprocessing(dataset, smaller, [configuration]),
        f"{train} -p {smaller} -device cpu",
    ]


def suggest_preprocessing(dataset: str, plans: str, configurations: Sequence[str]) -> str:
    """Return the command that preprocesses configurations of plans.

    >>> suggest_preprocessing("42", "nnUNetPlans", ["2d", "3d_fullres"])
    'semi_nnunet preprocess -d 42 -p nnUNetPlans -c 2d 3d_fullres'
    """
    return suggest_command(
        "preprocess", dataset=dataset, plans=plans, configurations=configurations
    )


def detect_device() -> str:
    """Return the device that this machine trains on: "cuda", "mps" or "cpu"."""
    import torch  # takes seconds, and few callers need it

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def format_device_option(device: str | None = None) -> Command:
    """Return the option that selects a device in nnU-Net's commands; () for CUDA, their default.

    >>> format_device_option("cpu")
    ('-device', 'cpu')

    Args:
        device: None: this machine's.
    """
    device = device or detect_device()
    return () if device == "cuda" else ("-device", device)


def suggest_measuring(jobs: Sequence[Job], plans: str) -> list[str]:
    """Return the commands that predict and measure trainings where ``compare`` looks for them.

    Args:
        jobs: of one data set, with these plans or plans of their seeds.

    Returns:
        A command for all trainings that share folds and seeds; [] if all is measured or nothing is
        trained. If a training can only be measured on labelled test cases, and there are none, the
        first line asks for them.
    """
    open_jobs = [job for job in jobs if job.is_trained and job.segments and not job.is_measured]
    if not open_jobs:
        return []
    folders, lines = open_jobs[0].folders, []
    if folders.test_labels is None and any(job.fold == ALL for job in open_jobs):
        lines.append(
            f"put labelled test images into imagesTs and labelsTs of {folders.raw}: fold 'all' "
            f"validates on its training cases"
        )
    runs = defaultdict[tuple[str, str], set[tuple[str, int]]](set)  # trainer, configuration
    for job in open_jobs:
        runs[job.trainer, job.configuration].add((job.fold, job.seed))
    trainers_of = defaultdict[tuple[str, frozenset[tuple[str, int]]], list[str]](list)
    for (trainer, configuration), folds_and_seeds in runs.items():
        trainers_of[configuration, frozenset(folds_and_seeds)].append(trainer)
    for (configuration, pairs), trainers in trainers_of.items():
        lines.append(_format_crossval(folders.results.name, plans, configuration, trainers, pairs))
    return lines


def _format_crossval(
    dataset: str,
    plans: str,
    configuration: str,
    trainers: Sequence[str],
    pairs: Collection[tuple[str, int]],
) -> str:
    """Return the command that trains, predicts and measures pairs of fold and seed."""
    return suggest_command(
        "crossval", dataset=dataset, plans=plans, configurations=[configuration],
        trainers=trainers, folds=sorted({fold for fold, _ in pairs}),
        seeds=max(seed for _, seed in pairs) + 1, device=detect_device(),
    )  # fmt: skip


def suggest_baseline(jobs: Sequence[Job], plans: str) -> list[str]:
    """Return the commands that train the baseline of each method's training that has none.

    Args:
        jobs: of one data set, with these plans or plans of their seeds.
    """
    missing = defaultdict[str, set[tuple[str, int]]](set)  # configuration -> fold and seed
    for job in jobs:
        if job.trainer != BASELINE and job.is_trained and job.segments:
            missing[job.configuration].add((job.fold, job.seed))
    for job in jobs:
        if job.trainer == BASELINE:
            missing[job.configuration].discard((job.fold, job.seed))
    return [
        _format_crossval(jobs[0].folders.results.name, plans, configuration, [BASELINE], pairs)
        for configuration, pairs in missing.items()
        if pairs
    ]


def suggest_after_training(jobs: Sequence[Job], plans: str) -> list[str]:
    """Return the commands that come after trainings: measure, train the baseline, or compare.

    Args:
        jobs: of one data set, with these plans or plans of their seeds.

    Returns:
        [] if nothing is trained.
    """
    if not any(job.is_trained and job.segments for job in jobs):
        return []
    compare, report = (
        suggest_command(verb, dataset=jobs[0].folders.results.name, plans=plans)
        for verb in ("compare", "report")
    )
    open_steps = [*suggest_measuring(jobs, plans), *suggest_baseline(jobs, plans)]
    return [*open_steps, compare] if open_steps else [compare, report]


def suggest_for_dataset(folders: Folders, plans: str | None = None) -> list[str]:
    """Return the commands that come after the trainings of a data set, for all plans or some."""
    groups = defaultdict[str, list[Job]](list)
    for job in find_jobs(folders, plans):
        name = plans or split_seed_name(job.plans)[0]
        if longer_baseline.MARK not in name:  # it is compared with the method's plans
            groups[name].append(job)
    return [line for name in sorted(groups) for line in suggest_after_training(groups[name], name)]


def suggest_after_measuring(measured: Path) -> list[str]:
    """Return the commands that compare the trainings that predictions may come from.

    ``nnUNetv2_predict`` copies plans and data set next to its predictions, but not the trainer's
    name, so that predictions in a user's folder belong to no known training. ``semi_nnunet
    predict`` names the model there.

    Returns:
        The commands that measure the trainings with these plans, then the comparison; [] if this
        machine lacks the data set or a training with these plans.
    """
    copied = optional_json(measured / PLANS_JSON)
    name, plans = copied.get("dataset_name"), copied.get("plans_name")
    model = str(optional_json(measured / PREDICTED_FROM).get(MODEL, ""))
    if not name and model.count("/") == 1 and model.count("__") == 2:
        name, plans = model.split("/")[0], split_seed_name(model.split("__")[1])[0]
    if not (name and plans):
        return []
    try:
        folders = find_folders(str(name))
    except UserError:  # such as predictions of another machine
        return []
    return suggest_after_training(find_jobs(folders, str(plans)), str(plans))


def format_next_lines(commands: Iterable[str]) -> str:
    r"""Return commands on lines of their own, for the end of a verb's output.

    >>> format_next_lines(["semi_nnunet plan -d 42", "semi_nnunet status -d 42"])
    'next: semi_nnunet plan -d 42\n      semi_nnunet status -d 42'
    """
    return "next: " + "\n      ".join(commands)
