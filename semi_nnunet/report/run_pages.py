"""What each training left behind, for the report: its curves, and its filtering of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from semi_nnunet.evaluation.values import Model
from semi_nnunet.report.curves import Curve, draw_curve_panel, draw_histogram
from semi_nnunet.report.wording import format_count, name_model, shorten_trainer_name
from semi_nnunet.runs.folders import ALL
from semi_nnunet.runs.job import Job
from semi_nnunet.training.history import DICE, LOG_SCALE, History, group_into_panels
from semi_nnunet.util.files import read_csv
from semi_nnunet.util.progress import readable_time

MOST_UNCERTAIN = 10
SEEN = "Dice on patches of cases that were trained on"  # all that fold "all" can tell


@dataclass(frozen=True)
class Panel:
    """A chart and its legend: number of the colour, and name."""

    title: str
    legend: list[tuple[int, str]]
    chart: Markup


@dataclass(frozen=True)
class Run:
    """The curves of one training; none, and a sentence, where it has no history."""

    name: str
    summary: str
    panels: list[Panel]


@dataclass(frozen=True)
class Pool:
    """The unlabelled images as one filtering left them: (case, uncertainty, kept) and a chart."""

    name: str
    summary: str
    chart: Markup
    most_uncertain: list[tuple[str, float, bool]]


def name_run(job: Job) -> str:
    return (
        f"{shorten_trainer_name(job.trainer)} {job.configuration}, fold {job.fold}, seed {job.seed}"
    )


def build_run(job: Job) -> Run:
    """The curves of a training."""
    history = job.history()
    if not history.rows:
        return Run(name_run(job), "no semi_history.csv: only our trainers write one", [])
    panels = []
    for title, columns in group_into_panels(history):
        lines = [(number, history.series(column)) for number, column in enumerate(columns, 1)]
        legend = [(number, column.split("/", 1)[-1]) for number, column in enumerate(columns, 1)]
        label = f"{title} of {name_run(job)} over the epochs"
        also = (0.0, 1.0) if title == DICE else () if title in LOG_SCALE else (0.0,)
        chart = draw_curve_panel(lines, label, log=title in LOG_SCALE, also=also)
        shown = title_dice(job.fold) if title == DICE else title
        panels.append(Panel(shown, [(n, name.replace("_", " ")) for n, name in legend], chart))
    return Run(name_run(job), summarise_training(history, job.fold), panels)


def title_dice(fold: str) -> str:
    """What the Dice of patches is called: fold "all" takes them from cases that it trained on."""
    return SEEN if fold == ALL else DICE


def summarise_training(history: History, fold: str) -> str:
    """Epochs, time and the last Dice."""
    said = [format_count(len(history.rows), "epoch")]
    seconds = sum(history.series("seconds")[1])
    if seconds:
        said.append(readable_time(seconds))
    if dice := history.series("dice/deployed")[1]:
        said.append(f"{title_dice(fold)} {dice[-1]:.3f}")
    return ", ".join(said)


def draw_dice_panels(jobs: Sequence[Job], baseline: str) -> list[Panel]:
    """The Dice of the deployed network of every training: a panel a method, with its baseline."""
    found: dict[Model, list[tuple[bool, Curve]]] = {}
    for job in jobs:
        if (series := job.history().series("dice/deployed"))[0]:
            model, seen = Model(job.trainer, job.configuration), job.fold == ALL
            found.setdefault(model, []).append((seen, series))
    methods = [model for model in found if model.trainer != baseline] or list(found)
    return [
        draw_dice_panel(model, found, baseline, name_model(model, methods)) for model in methods
    ]


def draw_dice_panel(
    model: Model,
    found: Mapping[Model, Sequence[tuple[bool, Curve]]],
    baseline: str,
    name: str,
) -> Panel:
    """The trainings of one method over those of the baseline; those that saw the cases are told."""
    base = Model(baseline, model.configuration)
    shown = [((1, 3), name, found[model])]
    if base in found and base != model:
        shown.insert(0, ((0, 2), shorten_trainer_name(baseline), found[base]))
    lines, legend = [], []
    for colours, whose, trainings in shown:
        for seen, colour in zip((False, True), colours, strict=True):
            own = [(colour, series) for has_seen, series in trainings if has_seen == seen]
            lines += own
            if own:
                legend.append((colour, f"{whose}, cases it was trained on" if seen else whose))
    return Panel(name, legend, draw_curve_panel(lines, f"{DICE} of {name}", also=(0.0, 1.0)))


def read_pools(job: Job) -> list[Pool]:
    """Read every filtering of a training, in the order of the epochs."""
    paths = sorted(job.folder.glob("filter_epoch_*.csv"), key=parse_epoch)
    return [read_pool(job, path) for path in paths]


def parse_epoch(path: Path) -> int:
    return int(path.stem.rsplit("_", 1)[-1])


def read_pool(job: Job, path: Path) -> Pool:
    """Read one filtering."""
    rows = [
        (row["case"], float(row.get("score") or row["uncertainty"]), row["kept"] == "1")
        for row in read_csv(path)[1]
    ]
    kept = [uncertainty for _, uncertainty, is_kept in rows if is_kept]
    dropped = [uncertainty for _, uncertainty, is_kept in rows if not is_kept]
    summary = f"{len(kept)} of {format_count(len(rows), 'unlabelled image')} kept"
    worst = sorted(rows, key=lambda row: -row[1])[:MOST_UNCERTAIN]
    name = f"{name_run(job)}, epoch {parse_epoch(path)}"
    return Pool(name, summary, draw_histogram(kept, dropped) if rows else Markup(""), worst)
