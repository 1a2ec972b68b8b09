"""Charts as SVG that fits any width: places along x are per cent, texts keep their size.

Colours are the page's (CSS classes and variables), so that charts follow light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

STRIP = 30  # height of a row of intervals or boxes, in pixels
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 320, 168, 40, 20, 6  # of a panel of curves
MAX_POINTS = 160  # of a curve
SERIES = 6  # colours of the page


@dataclass(frozen=True)
class Axis:
    """From the left to the right border, with a few round numbers between."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def written(self, tick: float) -> str:
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick) or 1
        behind = max(0, -math.floor(math.log10(step) + 1e-9))
        return f"{tick:.{behind}f}".replace("-", "\N{MINUS SIGN}")


def axis_of(values: Sequence[float], also: Sequence[float] = (), wanted: int = 4) -> Axis:
    """Around all numbers of ``values`` and ``also``, a little wider."""
    known = [value for value in (*values, *also) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or max(abs(high), 1e-3) * 0.1
    low, high = low - room, high + room
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return Axis(low, high, tuple(round(n * step, 12) for n in range(first, last + 1)))


def strip(content: Sequence[str], label: str, axis: Axis, zero: bool = False) -> Markup:
    """A row of a chart with its grid."""
    lines = [
        f'<line class="{"zero" if zero and tick == 0 else "grid"}" x1="{axis.percent(tick)}%" '
        f'x2="{axis.percent(tick)}%" y1="0" y2="{STRIP}"/>'
        for tick in axis.ticks
    ]
    return Markup(
        f'<svg class="strip" height="{STRIP}" role="img" aria-label="{escape(label)}">'
        f"{''.join([*lines, *content])}</svg>"
    )


def ticks(axis: Axis) -> Markup:
    """The numbers below the rows."""
    texts = [
        f'<text x="{axis.percent(tick)}%" y="12">{axis.written(tick)}</text>' for tick in axis.ticks
    ]
    return Markup(f'<svg class="ticks" height="16" aria-hidden="true">{"".join(texts)}</svg>')


def interval_row(axis: Axis, mean: float, low: float, high: float, said: str, label: str) -> Markup:
    """A mean and its interval; ``said`` ("better", "WORSE", ...) colours it."""
    middle, kind = STRIP // 2, {"better": "better", "WORSE": "worse"}.get(said, "open")
    content = []
    if not math.isnan(low):
        content.append(
            f'<line class="bar {kind}" x1="{axis.percent(low)}%" x2="{axis.percent(high)}%" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    content.append(f'<circle class="dot {kind}" cx="{axis.percent(mean)}%" cy="{middle}" r="5"/>')
    return strip(content, label, axis, zero=True)


def box_row(axis: Axis, values: Mapping[str, float], colour: int, label: str) -> Markup:
    """Median, quartiles, whiskers of 1.5 quartile ranges, and a dot for every case."""
    known = {case: value for case, value in values.items() if not math.isnan(value)}
    if not known:
        return strip([], label, axis)
    numbers = np.array(list(known.values()))
    first, median, third = np.percentile(numbers, (25, 50, 75))
    reach = 1.5 * (third - first)
    low, high = numbers[numbers >= first - reach].min(), numbers[numbers <= third + reach].max()
    middle, style = STRIP // 2, f'style="--c:var(--series-{colour % SERIES})"'
    left, right = axis.percent(float(first)), axis.percent(float(third))
    content = [
        f'<line class="whisker" x1="{axis.percent(float(low))}%" x2="{axis.percent(float(high))}%" '
        f'y1="{middle}" y2="{middle}"/>',
        f'<rect class="box" {style} x="{left}%" width="{round(right - left, 2)}%" y="6" '
        f'height="{STRIP - 12}"/>',
    ]
    for place, (case, value) in enumerate(sorted(known.items())):
        y = middle + 3 * (place % 5 - 2)  # apart from each other, the same every time
        content.append(
            f'<circle class="case" {style} cx="{axis.percent(value)}%" cy="{y}" r="2.5">'
            f"<title>{escape(case)}: {value:.3f}</title></circle>"
        )
    x = axis.percent(float(median))
    content.append(f'<line class="median" {style} x1="{x}%" x2="{x}%" y1="4" y2="{STRIP - 4}"/>')
    return strip(content, label, axis)


def change_row(axis: Axis, before: float, after: float, better: bool, label: str) -> Markup:
    """From the baseline's value (hollow) to the method's (filled)."""
    if math.isnan(before) or math.isnan(after):
        return Markup("")
    kind = "better" if better else "worse"
    a, b = axis.percent(before), axis.percent(after)
    return Markup(
        f'<svg class="change" height="16" role="img" aria-label="{escape(label)}">'
        f'<line class="bar {kind}" x1="{a}%" x2="{b}%" y1="8" y2="8"/>'
        f'<circle class="hollow" cx="{a}%" cy="8" r="3.5"/>'
        f'<circle class="dot {kind}" cx="{b}%" cy="8" r="4"/></svg>'
    )


Curve = tuple[Sequence[float], Sequence[float]]  # x and y


def curves(
    lines: Sequence[tuple[int, Curve]], label: str, log: bool = False, unit_range: bool = False
) -> Markup:
    """A panel of curves over epochs.

    Args:
        lines: number of the colour, and the points.
        label: for readers that do not see.
        log: a logarithmic axis, if all values are positive.
        unit_range: from 0 to 1.
    """
    ys = [y for _, (_, values) in lines for y in values if math.isfinite(y)]
    log = log and bool(ys) and min(ys) > 0
    vertical = axis_of([math.log10(y) for y in ys] if log else ys, (0, 1) if unit_range else ())
    if unit_range:
        vertical = Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))
    last = max((x for _, (xs, _) in lines for x in xs), default=1)
    parts = []
    for tick in vertical.ticks:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - vertical.percent(tick) / 100)
        text = f"{10**tick:.2g}" if log else vertical.written(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 5}" y="{y + 3.5:.1f}">{text}</text>')
    for epoch in sorted({1, round((1 + last) / 2), int(last)}):
        x = LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(1, last - 1)
        parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 5}">{epoch}</text>')
    for colour, (xs, values) in lines:
        parts.append(polyline(colour, thinned(xs), thinned(values), last, vertical, log))
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def polyline(
    colour: int,
    xs: Sequence[float],
    ys: Sequence[float],
    last: float,
    vertical: Axis,
    log: bool,
) -> str:
    """One curve; a dot where there is but one point."""
    points = []
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            share = vertical.percent(math.log10(y) if log else y) / 100
            across = LEFT + (WIDTH - LEFT - 8) * (x - 1) / max(1, last - 1)
            points.append(f"{across:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (1 - share):.1f}")
    style = f'style="--c:var(--series-{colour % SERIES})"'
    if len(points) == 1:
        x, y = points[0].split(",")
        return f'<circle class="alone" {style} cx="{x}" cy="{y}" r="3"/>'
    dashed = f"curve dash-{colour % SERIES}"
    return f'<polyline class="{dashed}" {style} points="{" ".join(points)}"/>'


def thinned(values: Sequence[float]) -> list[float]:
    """At most MAX_POINTS of them, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).round().astype(int)
    return [values[place] for place in places]


def histogram(kept: Sequence[float], dropped: Sequence[float], bins: int = 24) -> Markup:
    """How many cases have which uncertainty: kept ones below, dropped ones on top of them."""
    everything = [*kept, *dropped]
    axis = axis_of(everything)
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
