"""Charts with a scale of their own: curves over epochs, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from semi_nnunet.report.charts import Axis, choose_axis, format_series_style, wrap_series_number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 320, 168, 40, 20, 6
MAX_POINTS = 160  # of a curve
Curve = tuple[Sequence[float], Sequence[float]]  # x and y


def draw_curve_panel(
    lines: Sequence[tuple[int, Curve]], label: str, log: bool = False, also: Sequence[float] = ()
) -> Markup:
    """A panel of curves over epochs.

    Args:
        lines: number of the colour, and the points.
        label: for readers that do not see.
        log: a logarithmic axis, if all values are positive.
        also: values that the axis must show.
    """
    ys = [y for _, (_, values) in lines for y in values if math.isfinite(y)]
    log = log and bool(ys) and min(ys) > 0
    vertical = choose_log_axis(ys) if log else choose_axis(ys, also)
    last = max((x for _, (xs, _) in lines for x in xs), default=1)
    parts = []
    for tick in vertical.ticks:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - vertical.percent(tick) / 100)
        text = f"{10**tick:.4g}" if log else vertical.written(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 5}" y="{y + 3.5:.1f}">{text}</text>')
    for epoch in sorted({1, round((1 + last) / 2), int(last)}):
        x = LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(1, last - 1)
        parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 5}">{epoch}</text>')
    for colour, (xs, values) in lines:
        parts.append(draw_polyline(colour, thin_out(xs), thin_out(values), last, vertical, log))
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def choose_log_axis(values: Sequence[float]) -> Axis:
    """Around the logarithms of positive numbers, with ticks at 1, 2 and 5 times powers of ten."""
    plain = choose_axis([math.log10(value) for value in values])
    powers = range(math.floor(plain.low), math.ceil(plain.high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        every = sorted(power + math.log10(factor) for power in powers for factor in factors)
        ticks = tuple(tick for tick in every if plain.low <= tick <= plain.high)
        if len(ticks) >= 3:
            break
    return Axis(plain.low, plain.high, ticks[:: -(-len(ticks) // 6)] if ticks else plain.ticks)


def draw_polyline(
    colour: int,
    xs: Sequence[float],
    ys: Sequence[float],
    last: float,
    vertical: Axis,
    log: bool,
) -> str:
    """Draw one curve, or a dot where there is but one point."""
    points = []
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            share = vertical.percent(math.log10(y) if log else y) / 100
            across = LEFT + (WIDTH - LEFT - 8) * (x - 1) / max(1, last - 1)
            points.append(f"{across:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (1 - share):.1f}")
    style = format_series_style(colour)
    if len(points) == 1:
        left, top = points[0].split(",")
        return f'<circle class="alone" {style} cx="{left}" cy="{top}" r="3"/>'
    dashed = f"curve dash-{wrap_series_number(colour)}"
    return f'<polyline class="{dashed}" {style} points="{" ".join(points)}"/>'


def thin_out(values: Sequence[float]) -> list[float]:
    """At most MAX_POINTS of them, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).round().astype(int)
    return [values[place] for place in places]


def draw_histogram(kept: Sequence[float], dropped: Sequence[float], bins: int = 24) -> Markup:
    """Draw how many cases have which uncertainty, kept ones below and dropped ones above."""
    everything = [*kept, *dropped]
    axis = choose_axis(everything)
    edges = np.linspace(min(everything), max(everything) + 1e-9, bins + 1)
    below, above = (np.histogram(values, edges)[0] for values in (kept, dropped))
    tallest, floor = max(1, int((below + above).max())), HEIGHT - BOTTOM
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>']
    parts.append(f'<text class="y" x="{LEFT - 5}" y="{TOP + 8}">{tallest}</text>')
    parts.append(f'<text class="y" x="{LEFT - 5}" y="{floor}">0</text>')
    for i in range(bins):
        left, right = (
            LEFT + (WIDTH - LEFT) * axis.percent(float(edge)) / 100 for edge in edges[i : i + 2]
        )
        bottom = float(floor)
        for name, amount in (("kept", int(below[i])), ("dropped", int(above[i]))):
            height = (floor - TOP) * amount / tallest
            bottom -= height
            if amount:
                parts.append(
                    f'<rect class="{name}" x="{left:.1f}" width="{max(1, right - left - 1):.1f}" '
                    f'y="{bottom:.1f}" height="{height:.1f}"/>'
                )
    for tick in axis.ticks:
        x = LEFT + (WIDTH - LEFT) * axis.percent(tick) / 100
        parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 5}">{axis.written(tick)}</text>')
    label = f"Histogram of the uncertainty of {len(kept)} kept and {len(dropped)} dropped cases"
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
