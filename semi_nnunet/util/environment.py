"""Environment variables for a while: many switches of nnU-Net exist only as variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable inside the block; ``None`` removes it.

    >>> with variable("nnUNet_compile", "f"):
    ...     os.environ["nnUNet_compile"]
    'f'
    """
    previous = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, previous)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
