"""A volume with an organ and a tumour in it."""

from __future__ import annotations

import numpy as np

CLASSES = {"liver": (1,), "tumour": (2,)}
REGIONS = {"whole": (1, 2), "core": (2,)}


def volume(depth: int = 12) -> np.ndarray:
    label = np.zeros((depth, 40, 60), int)
    label[2:9, 10:20, 20:40] = 1
    label[4:6, 12:16, 30:36] = 2
    return label
