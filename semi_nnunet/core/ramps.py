"""How the weight of an unlabelled term grows."""

from __future__ import annotations

import math


def gaussian_ramp(step: float, length: float) -> float:
    """exp(-5 (1 - t)^2), t = step / length in [0, 1] (Tarvainen & Valpola 2017); length 0: 1."""
    if length <= 0:
        return 1.0
    t = min(max(step / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)


def linear_ramp(step: float, length: float) -> float:
    """step / length, clipped to [0, 1] (MixMatch, Berthelot et al. 2019)."""
    return 1.0 if length <= 0 else min(max(step / length, 0.0), 1.0)


def ramp(kind: str, step: float, length: float) -> float:
    """The factor of the unlabelled terms at ``step``.

    Args:
        kind: "gaussian", "linear" or "constant".
        step: from 0.
        length: in steps.

    Raises:
        ValueError: another kind.
    """
    if kind == "gaussian":
        return gaussian_ramp(step, length)
    if kind == "linear":
        return linear_ramp(step, length)
    if kind == "constant":
        return 1.0
    raise ValueError(f"ramp must be gaussian, linear or constant, got {kind!r}")
