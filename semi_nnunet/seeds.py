"""Random numbers that are a function of (seed, what for, step, rank), so that resuming needs no generator state."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*keys: int | str) -> int:
    """A 63-bit seed from integers and words; other keys give unrelated seeds."""
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(*keys: int | str) -> Iterator[None]:
    """Inside the block, python's, numpy's and torch's CPU generators follow from ``keys``; afterwards they are as before."""
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
