"""Make the page of a :class:`~semi_nnunet.report.report_data.Report`: one file, all inside."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from semi_nnunet.evaluation.comparison import Compared, in_words
from semi_nnunet.evaluation.statistics import Difference, verdict
from semi_nnunet.evaluation.values import higher_is_better
from semi_nnunet.report import wording
from semi_nnunet.report.charts import (
    Axis,
    axis_of,
    box_row,
    change_row,
    interval_row,
    series_number,
    ticks,
)
from semi_nnunet.report.choice import COLUMNS as CHOICE_COLUMNS
from semi_nnunet.report.contours import BROKEN, MENDED, WRONG, colour_of
from semi_nnunet.report.costs import COLUMNS
from semi_nnunet.report.measured import ALL_CLASSES, Measured
from semi_nnunet.report.report_data import CaseRow, Report
from semi_nnunet.report.shown_cases import Viewer
from semi_nnunet.report.wording import in_points, model_name, number, short_name

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


def page_of(template: str, folder: Path, **values: object) -> str:
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


def render(report: Report) -> str:
    """The whole page."""
    metric, shown = report.metric, report.trained.viewers if report.trained else []
    return page_of(
        "report.html.j2",
        TEMPLATES,
        report=report,
        counts=counts(report),
        worst_first="ascending" if higher_is_better(metric) else "descending",
        today=f"{datetime.now():%d %B %Y}",
        metric_title=wording.metric_title(metric),
        baseline_name=short_name(report.baseline.trainer) if report.baseline else "",
        intervals=intervals(report),
        boxes={item.subset: boxes(item) for item in report.measured},
        changes={item.subset: changes(report, item) for item in report.measured},
        frames=[frames_for_script(viewer) for viewer in shown],
        frame_of_case=frames_of_cases(shown),
        legend=[(name, colour_of(n)) for n, name in enumerate(classes_of(report))],
        errors=(MENDED, BROKEN, WRONG),
        series_number=series_number,
        cost_columns=COLUMNS,
        choice_columns=CHOICE_COLUMNS,
        all_classes=ALL_CLASSES,
        isnan=math.isnan,
    )


def counts(report: Report) -> str:
    """Count the cases of each kind."""
    facts = dict(report.trained.background.data) if report.trained else {}
    kinds = ("labelled", "unlabelled", "test")
    return ", ".join(f"{facts[f'{k} cases']} {k}" for k in kinds if f"{k} cases" in facts)


def classes_of(report: Report) -> list[str]:
    """The classes that the pictures show."""
    if report.trained is None:
        return []
    subset = report.trained.viewers_subset
    return next(item.classes for item in report.measured if item.subset == subset)


def intervals(report: Report) -> list[Chart]:
    """The differences from the baseline: of the method by class, and of all methods."""
    found = []
    if (item := report.answer.compared) is None:
        return []
    measured = next(m for m in report.measured if m.subset == report.answer.subset)
    title = f"{model_name(item.model, measured.models)}, by class"
    rows = [(ALL_CLASSES, item.overall, item.p_holm)]
    rows += [(name, *item.classes[name]) for name in measured.classes if name in item.classes]
    found.append(interval_chart(title, rows, measured))
    if len(measured.compared) > 1:
        sign = -1 if higher_is_better(measured.metric) else 1
        ranked = sorted(measured.compared, key=lambda other: sign * other.overall.mean)
        rows = [of_method(other, measured) for other in ranked]
        found.append(interval_chart("Every method, all classes", rows, measured))
    return found


def of_method(item: Compared, measured: Measured) -> tuple[str, Difference, float]:
    return model_name(item.model, measured.models), item.overall, item.p_holm


def interval_chart(
    title: str, rows: list[tuple[str, Difference, float]], measured: Measured
) -> Chart:
    """A row for each difference, in points where the metric is an overlap."""
    metric = measured.metric
    factor = 100.0 if wording.unit_of_difference(metric) == "points" else 1.0
    ends = [factor * end for _, d, _ in rows for end in (d.low, d.high, d.mean)]
    axis = axis_of(ends, (0.0,))
    made = []
    for name, d, p in rows:
        said = in_words(verdict(d, p), higher_is_better(metric))
        text = f"{in_points(d.mean, metric)}"
        span = "only one"
        if not math.isnan(d.low):
            span = f"{in_points(d.low, metric)} to {in_points(d.high, metric)}"
        label = f"{name}: {text}, 95 % interval {span}"
        mean, low, high = factor * d.mean, factor * d.low, factor * d.high
        chart = interval_row(axis, mean, low, high, said, label)
        made.append(ChartRow(name, chart, text))
    return Chart(title, made, ticks(axis))


def boxes(measured: Measured) -> list[Chart]:
    """Draw for each class a box for each method over the axis of that class."""
    means = measured.of_cases()
    names = [ALL_CLASSES, *measured.classes]
    found = []
    for name in names:
        shown = [row[name] for cases in means.values() for row in cases.values() if name in row]
        axis, rows = axis_of(shown, wanted=3), []
        for place, model in enumerate(measured.models):
            of_cases = {case: row[name] for case, row in means[model].items() if name in row}
            title = model_name(model, measured.models)
            known = [value for value in of_cases.values() if not math.isnan(value)]
            text = number(median(known) if known else math.nan, measured.metric)
            label = f"{title}, {name}: {len(known)} cases, median {text}"
            rows.append(ChartRow(title, box_row(axis, of_cases, place, label), text))
        found.append(Chart(name, rows, ticks(axis)))
    return found


def changes(report: Report, measured: Measured) -> list[tuple[CaseRow, Markup]]:
    """Draw beside every row of cases the change from the baseline to the method."""
    rows = report.cases[measured.subset]
    places = [
        measured.models.index(m) for m in (report.baseline, report.method) if m in measured.models
    ]
    if len(places) < 2:
        return [(row, Markup("")) for row in rows]
    before, after = places
    axis = axis_of([row.values[place] for row in rows for place in places])
    return [(row, change(axis, row, before, after, measured.metric)) for row in rows]


def change(axis: Axis, row: CaseRow, before: int, after: int, metric: str) -> Markup:
    sign = 1 if higher_is_better(metric) else -1
    label = f"from {number(row.values[before], metric)} to {number(row.values[after], metric)}"
    better = sign * row.difference >= 0
    return change_row(axis, row.values[before], row.values[after], better, label)


def frames_for_script(viewer: Viewer) -> list[dict[str, object]]:
    """The frames of the slider, as the page's script reads them."""
    return [asdict(frame) for frame in viewer.frames]


def frames_of_cases(viewers: list[Viewer]) -> dict[str, tuple[int, int]]:
    """Case -> its first viewer, and the frame in it to begin with."""
    found: dict[str, tuple[int, int]] = {}
    for place, viewer in enumerate(viewers):
        several = len(set(viewer.cases)) > 1
        for frame, case in enumerate(viewer.cases):
            found.setdefault(case, (place, frame if several else viewer.start))
    return found
