"""Make the page of a :class:`~semi_nnunet.report.report_data.Report`: one file, all inside."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from semi_nnunet.evaluation.comparison import ModelComparison, describe_verdict
from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import higher_is_better
from semi_nnunet.report import wording
from semi_nnunet.report.charts import (
    Axis,
    choose_axis,
    draw_box_row,
    draw_change_row,
    draw_interval_row,
    draw_ticks,
    wrap_series_number,
)
from semi_nnunet.report.choice import COLUMNS as CHOICE_COLUMNS
from semi_nnunet.report.contours import BROKEN, FIXED, WRONG, get_class_colour
from semi_nnunet.report.costs import COLUMNS
from semi_nnunet.report.measured import ALL_CLASSES, SubsetResults
from semi_nnunet.report.report_data import CaseRow, Report
from semi_nnunet.report.shown_cases import Viewer
from semi_nnunet.report.wording import format_points, format_value, name_model, shorten_trainer_name

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ChartRow:
    """A row of a chart, and what stands beside it."""

    name: str
    chart: Markup
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """Rows over a common axis."""

    title: str
    rows: list[ChartRow]
    ticks: Markup


def fill_page_template(template: str, folder: Path, **values: object) -> str:
    """Fill a template that has the style, the script and the parts of the report.

    Args:
        template: name of the file.
        folder: that it lies in.
        values: what it shows.
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
    """The whole page."""
    metric, shown = report.metric, report.trained.viewers if report.trained else []
    return fill_page_template(
        "report.html.j2",
        TEMPLATES,
        report=report,
        counts=format_case_counts(report),
        worst_first="ascending" if higher_is_better(metric) else "descending",
        today=f"{datetime.now():%d %B %Y}",
        metric_title=wording.format_metric(metric),
        baseline_name=shorten_trainer_name(report.baseline.trainer) if report.baseline else "",
        intervals=draw_interval_charts(report),
        boxes={item.subset: draw_box_charts(item) for item in report.measured},
        changes={item.subset: draw_changes(report, item) for item in report.measured},
        frames=[list_script_frames(viewer) for viewer in shown],
        frame_of_case=find_case_frames(shown),
        legend=[(name, get_class_colour(n)) for n, name in enumerate(list_drawn_classes(report))],
        errors=(FIXED, BROKEN, WRONG),
        wrap_series_number=wrap_series_number,
        cost_columns=COLUMNS,
        choice_columns=CHOICE_COLUMNS,
        all_classes=ALL_CLASSES,
        isnan=math.isnan,
    )


def format_case_counts(report: Report) -> str:
    """Count the cases of each kind."""
    facts = dict(report.trained.background.data) if report.trained else {}
    kinds = ("labelled", "unlabelled", "test")
    return ", ".join(f"{facts[f'{k} cases']} {k}" for k in kinds if f"{k} cases" in facts)


def list_drawn_classes(report: Report) -> list[str]:
    """The classes that the pictures show."""
    if report.trained is None:
        return []
    subset = report.trained.viewers_subset
    return next(item.classes for item in report.measured if item.subset == subset)


def draw_interval_charts(report: Report) -> list[Chart]:
    """The differences from the baseline: of the method by class, and of all methods."""
    found = []
    if (item := report.answer.compared) is None:
        return []
    measured = next(m for m in report.measured if m.subset == report.answer.subset)
    title = f"{name_model(item.model, measured.models)}, by class"
    rows = [(ALL_CLASSES, item.overall, item.p_holm)]
    rows += [(name, *item.classes[name]) for name in measured.classes if name in item.classes]
    found.append(draw_interval_chart(title, rows, measured))
    if len(measured.compared) > 1:
        sign = -1 if higher_is_better(measured.metric) else 1
        ranked = sorted(measured.compared, key=lambda other: sign * other.overall.mean)
        rows = [list_interval_row(other, measured) for other in ranked]
        found.append(draw_interval_chart("Every method, all classes", rows, measured))
    return found


def list_interval_row(
    item: ModelComparison, measured: SubsetResults
) -> tuple[str, Difference, float]:
    return name_model(item.model, measured.models), item.overall, item.p_holm


def draw_interval_chart(
    title: str, rows: list[tuple[str, Difference, float]], measured: SubsetResults
) -> Chart:
    """A row for each difference, in points where the metric is an overlap."""
    metric = measured.metric
    factor = 100.0 if wording.find_difference_unit(metric) == "points" else 1.0
    ends = [factor * end for _, d, _ in rows for end in (d.low, d.high, d.mean)]
    axis = choose_axis(ends, (0.0,))
    made = []
    for name, d, p in rows:
        said = describe_verdict(d, p, metric)
        text = f"{format_points(d.mean, metric)}"
        span = "only one"
        if not math.isnan(d.low):
            span = f"{format_points(d.low, metric)} to {format_points(d.high, metric)}"
        label = f"{name}: {text}, 95 % interval {span}"
        mean, low, high = factor * d.mean, factor * d.low, factor * d.high
        chart = draw_interval_row(axis, mean, low, high, said, label)
        made.append(ChartRow(name, chart, text))
    return Chart(title, made, draw_ticks(axis))


def draw_box_charts(measured: SubsetResults) -> list[Chart]:
    """Draw for each class a box for each method over the axis of that class."""
    means = measured.of_cases()
    names = [ALL_CLASSES, *measured.classes]
    found = []
    for name in names:
        shown = [row[name] for cases in means.values() for row in cases.values() if name in row]
        axis, rows = choose_axis(shown, wanted=3), []
        for place, model in enumerate(measured.models):
            of_cases = {case: row[name] for case, row in means[model].items() if name in row}
            title = name_model(model, measured.models)
            known = [value for value in of_cases.values() if not math.isnan(value)]
            text = format_value(median(known) if known else math.nan, measured.metric)
            label = f"{title}, {name}: {len(known)} cases, median {text}"
            rows.append(ChartRow(title, draw_box_row(axis, of_cases, place, label), text))
        found.append(Chart(name, rows, draw_ticks(axis)))
    return found


def draw_changes(report: Report, measured: SubsetResults) -> list[tuple[CaseRow, Markup]]:
    """Draw beside every row of cases the change from the baseline to the method."""
    rows = report.cases[measured.subset]
    places = [
        measured.models.index(m) for m in (report.baseline, report.method) if m in measured.models
    ]
    if len(places) < 2:
        return [(row, Markup("")) for row in rows]
    before, after = places
    axis = choose_axis([row.values[place] for row in rows for place in places])
    return [(row, draw_change(axis, row, before, after, measured.metric)) for row in rows]


def draw_change(axis: Axis, row: CaseRow, before: int, after: int, metric: str) -> Markup:
    sign = 1 if higher_is_better(metric) else -1
    start, end = (format_value(row.values[name], metric) for name in (before, after))
    label = f"from {start} to {end}"
    better = sign * row.difference >= 0
    return draw_change_row(axis, row.values[before], row.values[after], better, label)


def list_script_frames(viewer: Viewer) -> list[dict[str, object]]:
    """The frames of the slider, as the page's script reads them."""
    return [asdict(frame) for frame in viewer.frames]


def find_case_frames(viewers: list[Viewer]) -> dict[str, tuple[int, int]]:
    """Case -> its first viewer, and the frame in it to begin with."""
    found: dict[str, tuple[int, int]] = {}
    for place, viewer in enumerate(viewers):
        several = len(set(viewer.cases)) > 1
        for frame, case in enumerate(viewer.cases):
            found.setdefault(case, (place, frame if several else viewer.start))
    return found
