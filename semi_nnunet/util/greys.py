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


def find_grey_window(image: np.ndarray, labels: np.ndarray | None = None) -> tuple[float, float]:
    """Return the intensities to show black and white, without the outermost 0.5 %.

    With labels, the window is that of the foreground and as much again on each side: between the
    air and the bone of a whole CT, an organ and its lesion would have the same grey.

    >>> image = np.array([-1000.0, 40.0, 100.0, 3000.0])
    >>> low, high = find_grey_window(image, labels=np.array([0, 1, 1, 0]))
    >>> round(low), round(high)
    (-19, 159)

    Args:
        image: intensities.
        labels: of the same shape; above zero in the foreground.
    """
    low, high = np.percentile(image, (0.5, 99.5))
    foreground = image[labels > 0] if labels is not None else image[:0]
    if len(foreground):
        first, last = np.percentile(foreground, (0.5, 99.5))
        if last > first:
            low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    return float(low), float(high)
