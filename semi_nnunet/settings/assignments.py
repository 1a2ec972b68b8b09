"""Settings as words of a command line: ``2d.epochs=10``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from semi_nnunet.util.errors import UserError


def assignment_of(key: str, value: Any) -> str:
    """A setting as ``semi_nnunet plan --set`` takes it, which :func:`parse_assignments` reads."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``["seed=1", "2d.epochs=10"]`` as the layers of ``plans["semi"]``.

    Raises:
        UserError: an assignment has no "=", or a name stands for both a value and a section.
    """
    semi: dict[str, Any] = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise UserError(
                f"--set wants KEY=VALUE, TRAINER.KEY=VALUE or CONFIG.KEY=VALUE, got {assignment!r}"
            )
        value = _value_of(text)
        *sections, key = path.split(".")
        layer = semi
        for section in sections:
            layer = layer.setdefault(section, {})
            if not isinstance(layer, dict):
                raise UserError(f"--set gives {section!r} a value and, in {assignment!r}, a part")
        layer[key] = value
    return semi


def _value_of(text: str) -> Any:
    """JSON, or Python's three words, or else a word."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
