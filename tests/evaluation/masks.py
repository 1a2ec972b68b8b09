"""Random masks that overlap partly."""

import numpy as np
from scipy.ndimage import gaussian_filter

SPACINGS = {2: (1.2, 0.7), 3: (3.0, 1.0, 0.8)}


def blobs(dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks that overlap partly, of several components, some at the image's border."""
    rng, shape = np.random.default_rng(seed), (30, 26) if dimensions == 2 else (14, 20, 18)
    common = rng.normal(size=shape)
    fields = [gaussian_filter(common + 0.7 * rng.normal(size=shape), 2) for _ in range(2)]
    return fields[0] > 0.05, fields[1] > 0.04
