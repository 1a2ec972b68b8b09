"""A chart of dots: the metric of methods against a cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from semi_nnunet.report.charts import choose_axis, format_series_style
from semi_nnunet.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    draw_x_tick,
    draw_y_tick,
    wrap_chart_marks,
)

INSET = 8  # between the dots at the ends and the border, in pixels


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
