"""Charts with their own scale: curves over epochs, dots of methods, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from semi_nnunet.reporting.charts import Axis, choose_axis, format_series_style, wrap_series_number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 320, 168, 40, 20, 6
MAX_POINTS = 160  # of a curve
INSET = 8  # between the dots at the ends and the border, in pixels
Curve = tuple[Sequence[float], Sequence[float]]  # x and y


def wrap_chart_marks(marks: Sequence[str], label: str) -> Markup:
    """Return a chart of SVG elements; the label is for screen readers."""
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(marks)}</svg>'
    )


def draw_y_tick(y: float, text: str) -> list[str]:
    """Return a horizontal grid line and its number."""
    return [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="y" x="{LEFT - 5}" y="{y + 3.5:.1f}">{text}</text>',
    ]


def draw_x_tick(x: float, text: object) -> str:
    """Return a number below the horizontal axis."""
    return f'<text class="x" x="{x:.1f}" y="{HEIGHT - 5}">{text}</text>'


def draw_curve_panel(
    lines: Sequence[tuple[int, Curve]],
    label: str,
    log: bool = False,
    include: Sequence[float] = (),
    limit: float = math.inf,
    start: float = 1,
    unit: str = "epoch",
) -> Markup:
    """Draw curves over epochs, or over another count.

    Args:
        lines: number of the colour, and the points.
        label: for screen readers.
        log: use a logarithmic axis, if all values are positive.
        include: values that the axis must show.
        limit: the largest possible value.
        start: where the horizontal axis begins.
        unit: what the horizontal axis counts.
    """
    ys = [y for _, (_, values) in lines for y in values if math.isfinite(y)]
    log = log and bool(ys) and min(ys) > 0
    vertical = choose_log_axis(ys) if log else choose_axis(ys, include, limit=limit)
    last = max((x for _, (xs, _) in lines for x in xs), default=start)
    marks = []
    for tick in vertical.ticks:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - vertical.percent(tick) / 100)
        marks += draw_y_tick(y, f"{10**tick:.4g}" if log else vertical.format_tick(tick))

    def place(x: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * (x - start) / max(1, last - start)

    for count in sorted({int(start), round((start + last) / 2), int(last)}):
        marks.append(draw_x_tick(place(count), f"{unit} {count}" if count == start else count))
    for colour, (xs, values) in lines:
        across = list(map(place, thin_out(xs)))
        marks.append(draw_polyline(colour, across, thin_out(values), vertical, log))
    return wrap_chart_marks(marks, label)


def choose_log_axis(values: Sequence[float]) -> Axis:
    """Return an axis of logarithms, with ticks at 1, 2 and 5 times powers of ten."""
    plain = choose_axis([math.log10(value) for value in values])
    powers = range(math.floor(plain.low), math.ceil(plain.high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        candidates = sorted(power + math.log10(factor) for power in powers for factor in factors)
        ticks = tuple(tick for tick in candidates if plain.low <= tick <= plain.high)
        if len(ticks) >= 3:
            break
    return Axis(plain.low, plain.high, ticks[:: -(-len(ticks) // 6)] if ticks else plain.ticks)


def draw_polyline(
    colour: int, across: Sequence[float], ys: Sequence[float], vertical: Axis, log: bool
) -> str:
    """Draw one curve, or a dot if it has only one point.

    Args:
        colour: its number.
        across: horizontal positions, in pixels.
        ys: values.
        vertical: axis of the values, or of their logarithms.
        log: whether the axis is logarithmic.
    """
    points = []
    for x, y in zip(across, ys, strict=True):
        if math.isfinite(y):
            share = vertical.percent(math.log10(y) if log else y) / 100
            points.append(f"{x:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (1 - share):.1f}")
    style = format_series_style(colour)
    if len(points) == 1:
        x_text, y_text = points[0].split(",")
        return f'<circle class="alone" {style} cx="{x_text}" cy="{y_text}" r="3"/>'
    dashed = f"curve dash-{wrap_series_number(colour)}"
    return f'<polyline class="{dashed}" {style} points="{" ".join(points)}"/>'


def thin_out(values: Sequence[float]) -> list[float]:
    """Return at most MAX_POINTS of the values, including the first and the last."""
    indices = np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).round().astype(int)
    return [values[index] for index in indices]


@dataclass(frozen=True)
class Dot:
    """A method in a chart: index of its colour, name, and position."""

    index: int
    name: str
    x: float
    y: float


def draw_scatter(dots: Sequence[Dot], label: str, decimals: int = 3) -> Markup:
    """Draw a dot for each method over a horizontal axis that begins at zero.

    Args:
        dots: of the methods; undefined ones are left out.
        label: for screen readers.
        decimals: of the vertical number in the title of a dot.
    """
    finite = [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    across = choose_axis([dot.x for dot in finite], (0.0,))
    upward = choose_axis([dot.y for dot in finite])
    width, height, marks = WIDTH - LEFT - INSET, HEIGHT - TOP - BOTTOM, list[str]()
    for tick in upward.ticks:
        y = TOP + height * (1 - upward.percent(tick) / 100)
        marks += draw_y_tick(y, upward.format_tick(tick))
    for tick in across.ticks:
        x = LEFT + width * across.percent(tick) / 100
        marks.append(draw_x_tick(x, across.format_tick(tick)))
    for dot in finite:
        x = LEFT + width * across.percent(dot.x) / 100
        y = TOP + height * (1 - upward.percent(dot.y) / 100)
        title = f"{escape(dot.name)}: {dot.y:.{decimals}f} at {dot.x:.3g}"
        marks.append(
            f'<circle class="alone" {format_series_style(dot.index)} cx="{x:.1f}" cy="{y:.1f}" '
            f'r="5"><title>{title}</title></circle>'
        )
    return wrap_chart_marks(marks, label)


def draw_histogram(
    kept_values: Sequence[float], dropped_values: Sequence[float], bins: int = 24
) -> Markup:
    """Draw a histogram of the uncertainties of cases, kept cases below dropped ones."""
    everything = [*kept_values, *dropped_values]
    axis = choose_axis(everything)
    edges = np.linspace(min(everything), max(everything) + 1e-9, bins + 1)
    kept_counts, dropped_counts = (
        np.histogram(values, edges)[0] for values in (kept_values, dropped_values)
    )
    tallest, floor = max(1, int((kept_counts + dropped_counts).max())), HEIGHT - BOTTOM
    marks = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>']
    marks.append(f'<text class="y" x="{LEFT - 5}" y="{TOP + 8}">{tallest}</text>')
    marks.append(f'<text class="y" x="{LEFT - 5}" y="{floor}">0</text>')
    for i in range(bins):
        start, end = (
            LEFT + (WIDTH - LEFT) * axis.percent(float(edge)) / 100 for edge in edges[i : i + 2]
        )
        bottom = float(floor)
        for name, amount in (("kept", int(kept_counts[i])), ("dropped", int(dropped_counts[i]))):
            height = (floor - TOP) * amount / tallest
            bottom -= height
            if amount:
                marks.append(
                    f'<rect class="{name}" x="{start:.1f}" width="{max(1, end - start - 1):.1f}" '
                    f'y="{bottom:.1f}" height="{height:.1f}"/>'
                )
    for tick in axis.ticks:
        x = LEFT + (WIDTH - LEFT) * axis.percent(tick) / 100
        marks.append(draw_x_tick(x, axis.format_tick(tick)))
    counts = f"{len(kept_values)} kept and {len(dropped_values)} dropped cases"
    label = f"Histogram of the uncertainty of {counts}"
    return wrap_chart_marks(marks, label)
