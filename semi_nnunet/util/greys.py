"""Intensities as greys."""

from __future__ import annotations

import numpy as np


def greys(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Any values as 0 (black, up to ``low``) to 1 (white, from ``high`` on)."""
    stretched: np.ndarray = np.clip((image - low) / max(high - low, 1e-8), 0, 1)
    return stretched
