"""Ramps of the weight of unlabelled terms."""

from __future__ import annotations

import math


def gaussian_ramp(step: float, length: float) -> float:
    """Return exp(-5 (1 - t)^2), t = step / length in [0, 1] (Tarvainen & Valpola 2017)."""
    if length <= 0:
        return 1.0
    t = min(max(step / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)


def linear_ramp(step: float, length: float) -> float:
    """Return step / length, clipped to [0, 1] (MixMatch, Berthelot et al. 2019)."""
    return 1.0 if length <= 0 else min(max(step / length, 0.0), 1.0)


def ramp(shape: str, step: float, length: float) -> float:
    """Return the factor of the unlabelled terms at a step; 1 for a length of 0.

    >>> [round(ramp("gaussian", step, 100), 3) for step in (0, 50, 100)]
    [0.007, 0.287, 1.0]

    Args:
        shape: "gaussian", "linear" or "constant".
        step: from 0.
        length: in steps.

    Raises:
        ValueError: the shape is unknown.
    """
    if shape == "gaussian":
        return gaussian_ramp(step, length)
    if shape == "linear":
        return linear_ramp(step, length)
    if shape == "constant":
        return 1.0
    raise ValueError(f"ramp must be gaussian, linear or constant, got {shape!r}")
