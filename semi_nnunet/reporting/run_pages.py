"""Curves of each training, and its filterings of unlabelled images, for the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.curves import Curve, draw_curve_panel, draw_histogram
from semi_nnunet.reporting.wording import format_value, name_model
from semi_nnunet.runs.folders import ALL
from semi_nnunet.runs.job import Job
from semi_nnunet.training.history import DICE, LOG_SCALE, History, group_into_panels
from semi_nnunet.util.files import read_csv
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import format_count
from semi_nnunet.util.progress import readable_time

MOST_UNCERTAIN = 10
FILTERING = re.compile(r"filter_epoch_\d+\.csv$")
TRAINING_DICE = "Dice on patches of training cases"  # fold "all" has no other cases


@dataclass(frozen=True)
class Panel:
    """A chart and its legend: number of the colour, and name."""

    title: str
    legend: list[tuple[int, str]]
    chart: Markup


@dataclass(frozen=True)
class Run:
    """The curves of one training; without a history, only a sentence."""

    name: str
    summary: str
    panels: list[Panel]


@dataclass(frozen=True)
class Pool:
    """One filtering of the unlabelled images: (case, uncertainty, kept) and a chart."""

    name: str
    summary: str
    chart: Markup
    most_uncertain: list[tuple[str, float, bool]]


def name_run(job: Job) -> str:
    name = name_method(job.trainer)
    return f"{name} {job.configuration}, fold {job.fold}, seed {job.seed}"


def build_run(job: Job) -> Run:
    """Draw the curves of a training."""
    history = job.history()
    if not history.rows:
        return Run(name_run(job), "no semi_history.csv: only our trainers write one", [])
    panels = []
    for title, columns in group_into_panels(history):
        curves = enumerate(map(history.series, columns), 1)
        lines = [(n, in_points(curve) if title == DICE else curve) for n, curve in curves]
        legend = [
            (number, column.split("/", 1)[-1].replace("_", " "))
            for number, column in enumerate(columns, 1)
        ]
        label = f"{title} of {name_run(job)} over the epochs"
        log = title in LOG_SCALE
        if title == DICE:
            chart = draw_curve_panel(lines, label, include=(0.0, 100.0), limit=100.0)
        else:
            chart = draw_curve_panel(lines, label, log=log, include=() if log else (0.0,))
        panels.append(Panel(title_dice(job.fold) if title == DICE else title, legend, chart))
    return Run(name_run(job), summarise_training(history, job.fold), panels)


def in_points(curve: Curve) -> Curve:
    """Return a curve of Dice in points."""
    return curve[0], [100 * dice for dice in curve[1]]


def title_dice(fold: str) -> str:
    """Return the title of the Dice of patches; fold "all" takes them from training cases."""
    return TRAINING_DICE if fold == ALL else DICE


def summarise_training(history: History, fold: str) -> str:
    """Return epochs, time and the last Dice."""
    facts = [format_count(len(history.rows), "epoch")]
    seconds = sum(history.series("seconds")[1])
    if seconds:
        facts.append(readable_time(seconds))
    if dice := history.series("dice/deployed")[1]:
        facts.append(f"{title_dice(fold)} {format_value(dice[-1], 'dice')}")
    return ", ".join(facts)


def draw_dice_panels(jobs: Sequence[Job], baseline: str) -> list[Panel]:
    """Draw the Dice of the deployed network: a panel for each method, with its baseline."""
    trainings: dict[Model, list[tuple[bool, Curve]]] = {}
    for job in jobs:
        if (series := job.history().series("dice/deployed"))[0]:
            model, on_training_cases = Model(job.trainer, job.configuration), job.fold == ALL
            trainings.setdefault(model, []).append((on_training_cases, in_points(series)))
    methods = [model for model in trainings if model.trainer != baseline] or list(trainings)
    return [draw_dice_panel(m, trainings, baseline, name_model(m, methods)) for m in methods]


def draw_dice_panel(
    model: Model, trainings: Mapping[Model, Sequence[tuple[bool, Curve]]], baseline: str, name: str
) -> Panel:
    """Draw the trainings of one method over those of the baseline; flags mark training cases."""
    base = Model(baseline, model.configuration)
    groups = [((1, 3), name, trainings[model])]
    if base in trainings and base != model:
        groups.insert(0, ((0, 2), name_method(baseline), trainings[base]))
    lines, legend = [], []
    for colours, group_name, curves in groups:
        for on_training_cases, colour in zip((False, True), colours, strict=True):
            group_lines = [(colour, curve) for flag, curve in curves if flag == on_training_cases]
            lines += group_lines
            if group_lines:
                suffix = ", training cases" if on_training_cases else ""
                legend.append((colour, f"{group_name}{suffix}"))
    chart = draw_curve_panel(lines, f"{DICE} of {name}", include=(0.0, 100.0), limit=100.0)
    return Panel(name, legend, chart)


def read_pools(job: Job) -> list[Pool]:
    """Read every filtering of a training, in the order of the epochs."""
    paths = [path for path in job.folder.glob("filter_epoch_*.csv") if FILTERING.match(path.name)]
    return [read_pool(job, path) for path in sorted(paths, key=parse_epoch)]


def parse_epoch(path: Path) -> int:
    return int(path.stem.rsplit("_", 1)[-1])


def read_pool(job: Job, path: Path) -> Pool:
    """Read one filtering."""
    rows = [
        (row["case"], float(row.get("score") or row["uncertainty"]), row["kept"] == "1")
        for row in read_csv(path)[1]
    ]
    kept_scores = [uncertainty for _, uncertainty, is_kept in rows if is_kept]
    dropped_scores = [uncertainty for _, uncertainty, is_kept in rows if not is_kept]
    summary = f"{len(kept_scores)} of {format_count(len(rows), 'unlabelled image')} kept"
    most_uncertain = sorted(rows, key=lambda row: -row[1])[:MOST_UNCERTAIN]
    name = f"{name_run(job)}, epoch {parse_epoch(path)}"
    chart = draw_histogram(kept_scores, dropped_scores) if rows else Markup("")
    return Pool(name, summary, chart, most_uncertain)
