"""Settings as words of a command line: ``2d.epochs=10``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from semi_nnunet.settings.overrides import merge_layers, use_current_names
from semi_nnunet.util.errors import UserError


def format_assignment(key: str, value: Any) -> str:
    """Format a setting for ``semi_nnunet plan --set``; :func:`parse_assignments` reads it.

    >>> format_assignment("2d.class_weights", [1, 2])
    '2d.class_weights=[1, 2]'
    """
    return f"{key}={value if isinstance(value, str) else json.dumps(value, default=_to_plain)}"


def _to_plain(value: Any) -> Any:
    """Return a value of NumPy or PyTorch as plain numbers, and others, such as paths, as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse the words of ``--set`` into layers of ``plans["semi"]``.

    >>> parse_assignments(["seed=1", "2d.epochs=10"])
    {'seed': 1, '2d': {'epochs': 10}}

    Raises:
        UserError: an assignment has no "=", or a name is both a setting and a section.
    """
    semi: dict[str, Any] = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not (separator and all(path.split("."))):
            raise UserError(
                f"--set needs KEY=VALUE, TRAINER.KEY=VALUE or CONFIG.KEY=VALUE, got {assignment!r}"
            )
        *sections, key = path.split(".")
        layer = semi
        for section in sections:
            layer = layer.setdefault(section, {})
            if not isinstance(layer, dict):
                raise UserError(
                    f"--set uses {section!r} both as a setting and, in {assignment!r}, as a section"
                )
        layer.update(merge_layers(layer, {key: _parse_value(text)}))
    return use_current_names(semi)


def _parse_value(text: str) -> Any:
    """Parse JSON, or True, False and None of Python; anything else is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
