"""Numbers and names as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from semi_nnunet.evaluation.comparison import format_p
from semi_nnunet.evaluation.points import FRACTIONS, get_shown_factor
from semi_nnunet.evaluation.points import find_difference_unit as find_difference_unit
from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import SIGNED, Model
from semi_nnunet.util.method_names import name_method

TITLES = {"dice": "Dice", "iou": "IoU"}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def name_model(model: Model, models: Sequence[Model]) -> str:
    """Return the short name of a model, with its configuration if ``models`` have several."""
    name = name_method(model.trainer)
    several = len({other.configuration for other in models}) > 1
    return f"{name} {model.configuration}" if several else name


def add_break_points(name: str) -> Markup:
    """Allow line breaks before the capitals inside a name such as MeanTeacher."""
    return Markup(re.sub("(?<=[a-z])(?=[A-Z])", "<wbr>", escape(name)))


def format_metric(metric: str) -> str:
    """Return the title of a metric.

    >>> format_metric("hd95_edge_mm")
    'HD95 (edge, mm)'
    """
    if metric.startswith(SIGNED):  # they are compared without their sign
        return f"absolute {metric.replace('_', ' ')}"
    if metric in TITLES:
        return TITLES[metric]
    first, *more = metric.split("_")
    if first in ("hd95", "asd", "assd", "nsd") and more:
        return f"{first.upper()} ({', '.join(more)})"
    return metric.replace("_", " ")


def count_decimals(metric: str) -> int:
    """Return the number of decimals of a metric's values."""
    return 1 if metric.startswith(FRACTIONS) else 2


def format_value(value: float, metric: str, more_digits: int = 0) -> str:
    """Return a value of the metric, an overlap in points, or a dash for NaN.

    >>> format_value(0.8412, "dice"), format_value(3.14159, "hd95_edge_mm")
    ('84.1', '3.14')
    """
    if math.isnan(value):
        return DASH
    shown = get_shown_factor(metric) * value
    return replace_hyphen(f"{shown:.{count_decimals(metric) + more_digits}f}")


def replace_hyphen(text: str) -> str:
    """Replace a leading hyphen by a minus sign, or drop it before zero."""
    if text.startswith("-"):
        return MINUS + text[1:] if text.strip("-0.") else text[1:]
    return text


def format_signed(value: float, decimals: int) -> str:
    """Return "+1.5" or "-0.3"; zero has no sign."""
    if math.isnan(value):
        return DASH
    text = replace_hyphen(f"{value:.{decimals}f}")
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def format_points(value: float, metric: str) -> str:
    """Return a difference in points (hundredths) of an overlap, or in the unit of the metric.

    >>> format_points(0.0142, "dice"), format_points(0.25, "hd95_edge_mm")
    ('+1.4', '+0.25')
    """
    return (
        format_signed(100 * value, 1) if metric.startswith(FRACTIONS) else format_signed(value, 2)
    )


def format_points_interval(difference: Difference, metric: str) -> str:
    """Return an interval such as "+0.9 to +2.1", in the unit of :func:`format_points`."""
    if math.isnan(difference.low):
        return "one case only"
    return f"{format_points(difference.low, metric)} to {format_points(difference.high, metric)}"


def format_p_value(p: float) -> str:
    """Return "p < 0.001" or "p = 0.034"."""
    text = format_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def join_words(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
