"""Random numbers as a function of (seed, what for, step, rank): resuming needs no state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*keys: int | str) -> int:
    """A 63-bit seed from integers and words; other keys give unrelated seeds."""
    words = repr([key if isinstance(key, str) else int(key) for key in keys])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*keys: int | str) -> Iterator[None]:
    """Inside the block, python's, numpy's and torch's CPU generators follow from ``keys``.

    Afterwards they are as before.
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
