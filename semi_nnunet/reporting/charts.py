"""Charts as SVG that fits any width: positions along x are per cent, texts keep their size.

Colours are CSS classes and variables of the page, so charts follow light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup, escape

STRIP = 30  # height of a row of intervals or boxes, in pixels
SERIES = 11  # colours of the page: grey for the baseline, and ten for methods


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from border to border, with a few round numbers between.

    >>> axis = choose_axis([0.61, 0.94])
    >>> axis.ticks
    (0.6, 0.7, 0.8, 0.9)
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        """Return the position of a value."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def format_tick(self, tick: float) -> str:
        """Return a number with as many decimals as the finest tick needs."""
        is_close = partial(math.isclose, rel_tol=1e-6, abs_tol=1e-12)
        decimals = next(
            n for n in range(13) if n == 12 or all(is_close(t, round(t, n)) for t in self.ticks)
        )
        return f"{tick:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def choose_axis(
    values: Sequence[float],
    include: Sequence[float] = (),
    tick_count: int = 4,
    limit: float = math.inf,
) -> Axis:
    """Return an axis a little wider than all finite numbers, with about ``tick_count`` ticks.

    It ends at zero if no number is negative, and at ``limit``, the largest possible number.
    """
    numbers = [value for value in (*values, *include) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low = low - room if low < 0 else max(0.0, low - room)
    high = min(high + room, max(high, limit))
    rough = (high - low) / tick_count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.7 * rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    if last <= first:
        return choose_axis(values, include, tick_count + 1, limit)
    return Axis(low, high, tuple(round(n * step, 12) for n in range(first, last + 1)))


def wrap_series_number(index: int) -> int:
    """Return the number of a method's colour: 0 is the baseline's, the other ten repeat."""
    return 1 + (index - 1) % (SERIES - 1) if index else 0


def format_series_style(index: int) -> str:
    """Return the attribute that gives a mark the colour of a method."""
    return f'style="--c:var(--series-{wrap_series_number(index)})"'


def draw_strip(content: Sequence[str], label: str, axis: Axis, zero: bool = False) -> Markup:
    """Draw SVG elements in a row with its grid; ``zero`` emphasises the line at 0."""
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
    """Draw the numbers below the rows."""
    texts = [
        f'<text x="{axis.percent(tick)}%" y="12">{axis.format_tick(tick)}</text>'
        for tick in axis.ticks
    ]
    return Markup(f'<svg class="ticks" height="16" aria-hidden="true">{"".join(texts)}</svg>')


def draw_interval_row(
    axis: Axis, mean: float, low: float, high: float, verdict: str, label: str
) -> Markup:
    """Draw a mean and its interval, coloured by the verdict ("better", "WORSE", ...)."""
    middle, colour = STRIP // 2, {"better": "better", "WORSE": "worse"}.get(verdict, "open")
    content = []
    if not math.isnan(low):
        content.append(
            f'<line class="bar {colour}" x1="{axis.percent(low)}%" x2="{axis.percent(high)}%" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    content.append(f'<circle class="dot {colour}" cx="{axis.percent(mean)}%" cy="{middle}" r="5"/>')
    return draw_strip(content, label, axis, zero=True)


def draw_box_row(axis: Axis, values: Mapping[str, float], index: int, label: str) -> Markup:
    """Draw median, quartiles, whiskers of 1.5 quartile ranges, and a dot for every case."""
    defined = {case: value for case, value in values.items() if not math.isnan(value)}
    if not defined:
        return draw_strip([], label, axis)
    numbers = np.array(list(defined.values()))
    first, median, third = np.percentile(numbers, (25, 50, 75))
    reach = 1.5 * (third - first)
    low, high = numbers[numbers >= first - reach].min(), numbers[numbers <= third + reach].max()
    middle, style = STRIP // 2, format_series_style(index)
    start, end = axis.percent(float(first)), axis.percent(float(third))
    content = [
        f'<line class="whisker" x1="{axis.percent(float(low))}%" x2="{axis.percent(float(high))}%" '
        f'y1="{middle}" y2="{middle}"/>',
        f'<rect class="box" {style} x="{start}%" width="{round(end - start, 2)}%" y="6" '
        f'height="{STRIP - 12}"/>',
    ]
    for number, (case, value) in enumerate(sorted(defined.items())):
        y = middle + 3 * (number % 5 - 2)  # separates dots, reproducibly
        content.append(
            f'<circle class="case" {style} cx="{axis.percent(value)}%" cy="{y}" r="2.5">'
            f"<title>{escape(case)}: {value:.2f}</title></circle>"
        )
    x = axis.percent(float(median))
    content.append(f'<line class="median" {style} x1="{x}%" x2="{x}%" y1="4" y2="{STRIP - 4}"/>')
    return draw_strip(content, label, axis)


def draw_change_row(axis: Axis, start: float, end: float, better: bool, label: str) -> Markup:
    """Draw a line from the baseline's value (hollow) to the method's (filled)."""
    if math.isnan(start) or math.isnan(end):
        return Markup("")
    colour = "better" if better else "worse"
    a, b = axis.percent(start), axis.percent(end)
    return Markup(
        f'<svg class="change" height="16" role="img" aria-label="{escape(label)}">'
        f'<line class="bar {colour}" x1="{a}%" x2="{b}%" y1="8" y2="8"/>'
        f'<circle class="hollow" cx="{a}%" cy="8" r="3.5"/>'
        f'<circle class="dot {colour}" cx="{b}%" cy="8" r="4"/></svg>'
    )
