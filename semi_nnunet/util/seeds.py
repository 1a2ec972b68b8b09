"""Random numbers as a function of (seed, purpose, step, rank), so that resuming needs no state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*keys: int | str) -> int:
    """Return a 63-bit seed derived from integers and words; different keys give unrelated seeds.

    >>> derived_seed(3, "step", 7)
    2858954562757830681
    """
    words = repr([key if isinstance(key, str) else int(key) for key in keys])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*keys: int | str) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside the block, then restore them.

    >>> with seeded(0, "views", 7):
    ...     first = random.random()
    >>> with seeded(0, "views", 7):
    ...     random.random() == first
    True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = derived_seed(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
