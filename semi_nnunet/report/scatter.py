"""A chart of dots: what methods reach against what they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from semi_nnunet.report.charts import choose_axis, format_series_style
from semi_nnunet.report.curves import BOTTOM, HEIGHT, LEFT, TOP, WIDTH

INSET = 8  # between the dots at the ends and the border, in pixels


@dataclass(frozen=True)
class Dot:
    """A method: the place of its colour, its name, and where it lies."""

    place: int
    name: str
    x: float
    y: float


def draw_scatter(dots: Sequence[Dot], label: str, digits: int = 3) -> Markup:
    """Draw a dot for each method over a horizontal axis that begins at zero.

    Args:
        dots: those without a number are left out.
        label: for readers that do not see.
        digits: behind the point, of the vertical number that a dot tells.
    """
    known = [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    across, upward = (
        choose_axis([dot.x for dot in known], (0.0,)),
        choose_axis([dot.y for dot in known]),
    )
    width, height, parts = WIDTH - LEFT - INSET, HEIGHT - TOP - BOTTOM, []
    for tick in upward.ticks:
        y = TOP + height * (1 - upward.percent(tick) / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="y" x="{LEFT - 5}" y="{y + 3.5:.1f}">{upward.written(tick)}</text>'
        )
    for tick in across.ticks:
        x = LEFT + width * across.percent(tick) / 100
        parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 5}">{across.written(tick)}</text>')
    for dot in known:
        x = LEFT + width * across.percent(dot.x) / 100
        y = TOP + height * (1 - upward.percent(dot.y) / 100)
        title = f"{escape(dot.name)}: {dot.y:.{digits}f} at {dot.x:.3g}"
        parts.append(
            f'<circle class="alone" {format_series_style(dot.place)} '
            f'cx="{x:.1f}" cy="{y:.1f}" r="5">'
            f"<title>{title}</title></circle>"
        )
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
