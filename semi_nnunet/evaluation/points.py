"""Numbers of a metric as text: overlaps in points (hundredths), others in their own unit."""

from __future__ import annotations

import math

from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import OVERLAPS

FRACTIONS = (*OVERLAPS, "relative")  # shown in points


def get_shown_factor(metric: str) -> float:
    """Return 100 for metrics that are shown in points, else 1."""
    return 100.0 if metric.startswith(FRACTIONS) else 1.0


def format_mean(value: float, metric: str) -> str:
    """Return a value with two decimals, in points if it is an overlap.

    >>> format_mean(0.84123, "dice"), format_mean(3.14159, "hd95_edge_mm")
    ('84.12', '3.14')
    """
    return f"{get_shown_factor(metric) * value:.2f}"


def format_difference(difference: float, metric: str) -> str:
    """Return a signed difference with two decimals.

    >>> format_difference(0.0142, "dice"), format_difference(-0.00001, "dice")
    ('+1.42', '0.00')
    """
    text = f"{get_shown_factor(metric) * difference:+.2f}"
    return text if text.strip("+-0.") else text[1:]


def format_interval(difference: Difference, metric: str) -> str:
    """Return an interval such as "+1.00 to +2.00"."""
    if math.isnan(difference.low):
        return "one case only"
    low, high = (format_difference(end, metric) for end in (difference.low, difference.high))
    return f"{low} to {high}"


def find_difference_unit(metric: str) -> str:
    """Return "points", the unit in the metric's name, or ""."""
    if metric.startswith(FRACTIONS):
        return "points"
    units = "mm", "ml", "mm2", "voxels", "pixels"
    return next((unit for unit in units if metric.endswith(f"_{unit}")), "")
