"""Write a :class:`~semi_nnunet.reporting.report_data.Report` as one HTML file to open offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from semi_nnunet.discovery.names import BASELINE, DEFAULT_PLANS
from semi_nnunet.evaluation.comparison import ModelComparison, find_most_seeds, rank_comparisons
from semi_nnunet.evaluation.points import find_difference_unit, get_shown_factor
from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import OVERLAPS, Model, higher_is_better
from semi_nnunet.reporting import wording
from semi_nnunet.reporting.charts import (
    choose_axis,
    draw_box_row,
    draw_change_row,
    draw_interval_row,
    draw_ticks,
    wrap_series_number,
)
from semi_nnunet.reporting.choice import COLUMNS as CHOICE_COLUMNS
from semi_nnunet.reporting.choice import read_choice
from semi_nnunet.reporting.contours import BROKEN, FIXED, WRONG, get_class_colour
from semi_nnunet.reporting.costs import COLUMNS
from semi_nnunet.reporting.measured import ALL_CLASSES, SubsetResults
from semi_nnunet.reporting.report_data import (
    CaseRow,
    Report,
    build_report_from_trainings,
    build_report_from_values,
)
from semi_nnunet.reporting.rounds import POINT_COLUMNS, ROUND_COLUMNS
from semi_nnunet.reporting.shown_cases import Viewer
from semi_nnunet.reporting.submissions import read_submissions
from semi_nnunet.reporting.wording import format_points, format_value, name_model
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import require_other, require_place, write_text
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import format_count
from semi_nnunet.util.progress import readable_time
from semi_nnunet.workflows.compare import require_default_plans

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ChartRow:
    """A row of a chart with its name on the left and a text on the right."""

    name: str
    chart: Markup
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """Rows over a common axis, with the unit of its numbers."""

    title: str
    rows: list[ChartRow]
    ticks: Markup
    unit: str


def fill_page_template(template: str, folder: Path, **values: object) -> str:
    """Fill a template that uses the style, the script and the macros of the report.

    Args:
        template: file name of the template.
        folder: of the template.
        values: variables of the template.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    css, javascript = (
        Markup((TEMPLATES / name).read_text(encoding="utf-8"))
        for name in ("report.css", "report.js")
    )
    page = environment.get_template(template)
    return page.render(say=wording, css=css, javascript=javascript, **values)


def render_report(report: Report) -> str:
    """Return the whole page."""
    metric, viewers = report.metric, report.trained.viewers if report.trained else []
    return fill_page_template(
        "report.html.j2",
        TEMPLATES,
        report=report,
        counts=format_case_counts(report),
        worst_first="ascending" if higher_is_better(metric) else "descending",
        today=f"{datetime.now():%d %B %Y}",
        metric_title=wording.format_metric(metric),
        baseline_name=name_method(report.baseline.trainer) if report.baseline else "",
        intervals=draw_interval_charts(report),
        boxes={item.subset: draw_box_charts(item, report.baseline) for item in report.measured},
        changes={item.subset: draw_changes(report, item) for item in report.measured},
        frames=[list_script_frames(viewer) for viewer in viewers],
        frame_of_case=find_case_frames(viewers),
        legend=[(name, get_class_colour(n)) for n, name in enumerate(list_drawn_classes(report))],
        errors=(FIXED, BROKEN, WRONG),
        wrap_series_number=wrap_series_number,
        cost_columns=COLUMNS,
        choice_columns=CHOICE_COLUMNS,
        round_columns=ROUND_COLUMNS,
        point_columns=POINT_COLUMNS,
        all_classes=ALL_CLASSES,
        isnan=math.isnan,
        readable_time=readable_time,
    )


def format_case_counts(report: Report) -> str:
    """Return the numbers of labelled, unlabelled and test cases, as far as they are recorded."""
    facts = dict(report.trained.background.data) if report.trained else {}
    subsets = ("labelled", "unlabelled", "test")
    return ", ".join(f"{facts[f'{s} cases']} {s}" for s in subsets if f"{s} cases" in facts)


def list_drawn_classes(report: Report) -> list[str]:
    """Return the classes in the pictures."""
    if report.trained is None:
        return []
    subset = report.trained.viewers_subset
    return next(item.classes for item in report.measured if item.subset == subset)


def draw_interval_charts(report: Report) -> list[Chart]:
    """Draw the differences from the baseline: of the method by class, and of all methods."""
    if (item := report.answer.compared) is None:
        return []
    measured = next(m for m in report.measured if m.subset == report.answer.subset)
    title = f"{name_model(item.model, measured.models)}, by class"
    metric = measured.metric
    rows = [(ALL_CLASSES, item.overall, item.verdict(metric))]
    rows += [
        (name, item.classes[name][0], item.class_verdict(name, metric))
        for name in measured.classes
        if name in item.classes
    ]
    charts = [draw_interval_chart(title, rows, measured)]
    if len(measured.compared) > 1:
        rows = [
            (name_with_seeds(other, measured), other.overall, other.verdict(metric))
            for other in rank_comparisons(measured.compared, metric)
        ]
        charts.append(draw_interval_chart("Every method, all classes", rows, measured))
    return charts


def name_with_seeds(item: ModelComparison, measured: SubsetResults) -> str:
    """Return the name of a method, with the number of its seeds if others have more."""
    name, seeds = name_model(item.model, measured.models), len(item.seeds)
    if seeds == find_most_seeds(measured.compared):
        return name
    return f"{name} ({format_count(seeds, 'seed')})"


def draw_interval_chart(
    title: str, differences: list[tuple[str, Difference, str]], measured: SubsetResults
) -> Chart:
    """Draw a row for each difference and verdict, in points if the metric is an overlap."""
    metric = measured.metric
    factor = get_shown_factor(metric)
    ends = [factor * end for _, d, _ in differences for end in (d.low, d.high, d.mean)]
    axis = choose_axis(ends, (0.0,))
    rows = []
    for name, d, verdict in differences:
        text = format_points(d.mean, metric)
        label = f"{name}: {text}, 95 % interval {wording.format_points_interval(d, metric)}"
        mean, low, high = factor * d.mean, factor * d.low, factor * d.high
        rows.append(ChartRow(name, draw_interval_row(axis, mean, low, high, verdict, label), text))
    return Chart(title, rows, draw_ticks(axis), find_difference_unit(metric))


def draw_box_charts(measured: SubsetResults, baseline: Model | None) -> list[Chart]:
    """Draw a chart for each class, with a box for each method; the baseline's is grey."""
    means, charts, metric = measured.case_means(), [], measured.metric
    factor, unit = get_shown_factor(metric), find_difference_unit(metric)
    limit = 100.0 if metric.startswith(OVERLAPS) else math.inf
    for name in [ALL_CLASSES, *measured.classes]:
        shown = [row[name] for cases in means.values() for row in cases.values() if name in row]
        axis, rows = choose_axis([factor * value for value in shown], (), 5, limit), []
        for model in measured.models:
            cases = {case: row[name] for case, row in means[model].items() if name in row}
            colour = int(baseline is None or model.trainer != baseline.trainer)
            drawn = {case: factor * value for case, value in cases.items()}
            title = name_model(model, measured.models)
            defined = [value for value in cases.values() if not math.isnan(value)]
            text = format_value(median(defined) if defined else math.nan, metric)
            label = f"{title}, {name}: {len(defined)} cases, median {text}"
            rows.append(ChartRow(title, draw_box_row(axis, drawn, colour, label), text))
        charts.append(Chart(name, rows, draw_ticks(axis), unit))
    return charts


def draw_changes(report: Report, measured: SubsetResults) -> list[tuple[CaseRow, Markup]]:
    """Draw the change from the baseline to the method for every row of cases."""
    rows, metric = report.cases[measured.subset], measured.metric
    models = [m for m in (report.baseline, report.method) if m in measured.models]
    if len(models) < 2:
        return [(row, Markup("")) for row in rows]
    first, second = map(measured.models.index, models)
    axis = choose_axis([row.values[index] for row in rows for index in (first, second)])
    sign = 1 if higher_is_better(metric) else -1
    changes = []
    for row in rows:
        start, end = row.values[first], row.values[second]
        label = f"from {format_value(start, metric)} to {format_value(end, metric)}"
        changes.append((row, draw_change_row(axis, start, end, sign * row.difference >= 0, label)))
    return changes


def list_script_frames(viewer: Viewer) -> list[dict[str, object]]:
    """Return the frames of the slider as the script of the page reads them."""
    return [asdict(frame) for frame in viewer.frames]


def find_case_frames(viewers: list[Viewer]) -> dict[str, tuple[int, int]]:
    """Return case -> index of the first viewer that shows it, and the frame to start with."""
    frames: dict[str, tuple[int, int]] = {}
    for index, viewer in enumerate(viewers):
        several = len(set(viewer.cases)) > 1
        for frame, case in enumerate(viewer.cases):
            frames.setdefault(case, (index, frame if several else viewer.start))
    return frames


@dataclass(frozen=True)
class WrittenReport:
    """A written report.

    Args:
        path: of the HTML file.
        size: of the file, in bytes.
        headline: the answer in a sentence.
        sentences: the evidence for it.
    """

    path: Path
    size: int
    headline: str
    sentences: tuple[str, ...]


def write_report_page(
    dataset: str | None = None,
    *,
    values: Sequence[str | Path] = (),
    plans: str = DEFAULT_PLANS,
    baseline: str = BASELINE,
    metric: str = "dice",
    choice: str | Path | None = None,
    efficiency: Sequence[str | Path] = (),
    out: str | Path = "report.html",
) -> WrittenReport:
    """Write one HTML file that answers whether the methods help, and shows their errors.

    :func:`semi_nnunet.report` documents the arguments.
    """
    path, files = Path(out), [Path(file) for file in values]
    require_place(path)
    require_default_plans(dataset, files, plans)
    method_choice = None if choice is None else read_choice(choice)
    method = "" if method_choice is None else method_choice.trainer
    submissions = read_submissions(efficiency)
    if files:
        require_other(path, files)
        report = build_report_from_values(files, baseline, metric, method)
    elif dataset:
        folders = find_folders(dataset)
        report = build_report_from_trainings(folders, plans, baseline, metric, method)
    else:
        raise UserError("there is nothing to report", fix="give a data set, or files of values")
    page = render_report(replace(report, choice=method_choice, submissions=submissions))
    write_text(path, page)
    answer = report.answer
    return WrittenReport(path, len(page.encode()), answer.headline, answer.sentences)
