"""Whether ``dataset.json`` says that the foreground of every image is one connected piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from semi_nnunet.raw.lesion_rules import LESIONS_KEY
from semi_nnunet.util.errors import Problem

ONE_PIECE_KEY = "one_piece"  # of dataset.json: only the largest piece of a prediction counts


def is_one_piece(description: Mapping[str, Any]) -> bool:
    """Return whether a valid ``dataset.json`` says that the foreground is one piece.

    >>> is_one_piece({"one_piece": True}), is_one_piece({})
    (True, False)
    """
    return description.get(ONE_PIECE_KEY) is True


def find_one_piece_problems(description: Mapping[str, Any], file_name: str) -> Iterator[Problem]:
    """Yield everything that is wrong with the key in ``dataset.json``."""
    value = description.get(ONE_PIECE_KEY, False)
    if not isinstance(value, bool):
        defect = f"{ONE_PIECE_KEY!r} must be true or false, got {value!r}"
        yield Problem(file_name, defect, "correct it, or remove it")
    elif value and LESIONS_KEY in description:
        defect = f"{ONE_PIECE_KEY!r} is true, and {LESIONS_KEY!r} asks to count several pieces"
        yield Problem(file_name, defect, "remove one of them")
