"""Intensities as grey levels."""

from __future__ import annotations

import numpy as np


def greys(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale intensities to grey levels, 0 (black) at ``low`` or below to 1 (white) at ``high``.

    >>> greys(np.array([-1000.0, 0.0, 100.0]), low=-100, high=100).tolist()
    [0.0, 0.5, 1.0]
    """
    scaled: np.ndarray = np.clip((image - low) / max(high - low, 1e-8), 0, 1)
    return scaled
