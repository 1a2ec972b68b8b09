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
SERIES = 11  # colours of the page: grey for the baseline, and those of ten methods


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from border to border, with a few round numbers between."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def written(self, tick: float) -> str:
        """Write a number with as many digits as the finest tick needs."""
        behind = next(
            n for n in range(13) if n == 12 or all(is_close(t, round(t, n)) for t in self.ticks)
        )
        return f"{tick:.{behind}f}".replace("-", "\N{MINUS SIGN}")


def is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)


def choose_axis(values: Sequence[float], also: Sequence[float] = (), wanted: int = 4) -> Axis:
    """Around all numbers of ``values`` and ``also``, a little wider; with two ticks at least."""
    known = [value for value in (*values, *also) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or max(abs(high), 1e-3) * 0.1
    low, high = low - room, high + room
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.7 * rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    if last <= first:
        return choose_axis(values, also, wanted + 1)
    return Axis(low, high, tuple(round(n * step, 12) for n in range(first, last + 1)))


def wrap_series_number(place: int) -> int:
    """The number of the colour of a method: 0 is the baseline's alone; they repeat after ten."""
    return 1 + (place - 1) % (SERIES - 1) if place else 0


def format_series_style(place: int) -> str:
    """The attribute that gives a mark the colour of a method."""
    return f'style="--c:var(--series-{wrap_series_number(place)})"'


def draw_strip(content: Sequence[str], label: str, axis: Axis, zero: bool = False) -> Markup:
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


def draw_ticks(axis: Axis) -> Markup:
    """The numbers below the rows."""
    texts = [
        f'<text x="{axis.percent(tick)}%" y="12">{axis.written(tick)}</text>' for tick in axis.ticks
    ]
    return Markup(f'<svg class="ticks" height="16" aria-hidden="true">{"".join(texts)}</svg>')


def draw_interval_row(
    axis: Axis, mean: float, low: float, high: float, said: str, label: str
) -> Markup:
    """A mean and its interval; ``said`` ("better", "WORSE", ...) colours it."""
    middle, kind = STRIP // 2, {"better": "better", "WORSE": "worse"}.get(said, "open")
    content = []
    if not math.isnan(low):
        content.append(
            f'<line class="bar {kind}" x1="{axis.percent(low)}%" x2="{axis.percent(high)}%" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    content.append(f'<circle class="dot {kind}" cx="{axis.percent(mean)}%" cy="{middle}" r="5"/>')
    return draw_strip(content, label, axis, zero=True)


def draw_box_row(axis: Axis, values: Mapping[str, float], place: int, label: str) -> Markup:
    """Median, quartiles, whiskers of 1.5 quartile ranges, and a dot for every case."""
    known = {case: value for case, value in values.items() if not math.isnan(value)}
    if not known:
        return draw_strip([], label, axis)
    numbers = np.array(list(known.values()))
    first, median, third = np.percentile(numbers, (25, 50, 75))
    reach = 1.5 * (third - first)
    low, high = numbers[numbers >= first - reach].min(), numbers[numbers <= third + reach].max()
    middle, style = STRIP // 2, format_series_style(place)
    left, right = axis.percent(float(first)), axis.percent(float(third))
    content = [
        f'<line class="whisker" x1="{axis.percent(float(low))}%" x2="{axis.percent(float(high))}%" '
        f'y1="{middle}" y2="{middle}"/>',
        f'<rect class="box" {style} x="{left}%" width="{round(right - left, 2)}%" y="6" '
        f'height="{STRIP - 12}"/>',
    ]
    for number, (case, value) in enumerate(sorted(known.items())):
        y = middle + 3 * (number % 5 - 2)  # apart from each other, the same every time
        content.append(
            f'<circle class="case" {style} cx="{axis.percent(value)}%" cy="{y}" r="2.5">'
            f"<title>{escape(case)}: {value:.3f}</title></circle>"
        )
    x = axis.percent(float(median))
    content.append(f'<line class="median" {style} x1="{x}%" x2="{x}%" y1="4" y2="{STRIP - 4}"/>')
    return draw_strip(content, label, axis)


def draw_change_row(axis: Axis, before: float, after: float, better: bool, label: str) -> Markup:
    """Draw a line from the baseline's value (hollow) to the method's (filled)."""
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
