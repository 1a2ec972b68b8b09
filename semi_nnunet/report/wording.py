"""How numbers and names are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from semi_nnunet.evaluation.comparison import readable_p
from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import OVERLAPS, SIGNED, Model

FRACTIONS = (*OVERLAPS, "relative")  # their differences are told in points
TITLES = {"dice": "Dice", "iou": "IoU"}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def short_name(trainer: str) -> str:
    """ "SemiMeanTeacherTrainer" as "MeanTeacher"; other trainers keep their names."""
    if trainer.startswith("Semi") and trainer.endswith("Trainer"):
        return trainer.removeprefix("Semi").removesuffix("Trainer") or trainer
    return trainer


def model_name(model: Model, models: Sequence[Model]) -> str:
    """Name a model, with its configuration if there are several."""
    name = short_name(model.trainer)
    several = len({other.configuration for other in models}) > 1
    return f"{name} {model.configuration}" if several else name


def breakable(name: str) -> Markup:
    """May go on in the next line before the capital of a word within: MeanTeacher."""
    return Markup(re.sub("(?<=[a-z])(?=[A-Z])", "<wbr>", escape(name)))


def metric_title(metric: str) -> str:
    """ "hd95_edge_mm" as "HD95 (edge, mm)"."""
    if metric.startswith(SIGNED):  # they are compared without their sign
        return f"absolute {metric.replace('_', ' ')}"
    if metric in TITLES:
        return TITLES[metric]
    first, *more = metric.split("_")
    if first in ("hd95", "asd", "assd", "nsd") and more:
        return f"{first.upper()} ({', '.join(more)})"
    return metric.replace("_", " ")


def digits(metric: str) -> int:
    """Behind the point."""
    return 3 if metric.startswith(FRACTIONS) else 2


def number(value: float, metric: str, more_digits: int = 0) -> str:
    """A value of the metric; a dash where it is not defined."""
    if math.isnan(value):
        return DASH
    return true_minus(f"{value:.{digits(metric) + more_digits}f}")


def true_minus(text: str) -> str:
    """A true minus, and none before zero."""
    if text.startswith("-"):
        return MINUS + text[1:] if text.strip("-0.") else text[1:]
    return text


def with_sign(value: float, behind: int) -> str:
    """ "+1.5", "−0.3"; "0.0" has none."""
    if math.isnan(value):
        return DASH
    text = true_minus(f"{value:.{behind}f}")
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def in_points(value: float, metric: str) -> str:
    """A difference in hundredths of an overlap, or in the unit of the metric."""
    return with_sign(100 * value, 1) if metric.startswith(FRACTIONS) else with_sign(value, 2)


def unit_of_difference(metric: str) -> str:
    """The unit that :func:`in_points` counts."""
    if metric.startswith(FRACTIONS):
        return "points"
    return next((unit for unit in ("mm", "ml", "voxels") if metric.endswith(unit)), "")


def interval(difference: Difference, metric: str) -> str:
    """ "+0.9 to +2.1": in the unit of :func:`in_points`."""
    if math.isnan(difference.low):
        return "only one"
    return f"{in_points(difference.low, metric)} to {in_points(difference.high, metric)}"


def p_value(p: float) -> str:
    """ "p < 0.001" or "p = 0.034"."""
    shown = readable_p(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def count(number_of: int, noun: str) -> str:
    """ "1 case", "3 cases"."""
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
