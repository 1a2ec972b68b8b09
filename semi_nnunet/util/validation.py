"""Whether a value that a user gave is of the type that a field declares."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True)


def fits(hint: Any, value: Any) -> bool:
    """Whether ``value`` is of the type ``hint``, as it is: "1" is no number, True is none either.

    Args:
        hint: a type, such as ``tuple[float, ...] | None``.
        value: from a JSON file or the command line; its lists are taken for tuples.
    """
    try:
        _adapter(hint).validate_python(_with_tuples(value))
    except ValidationError:
        return False
    return True


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=STRICT)


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value
