"""Check that values from users and files have the types that fields declare."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

STRICT = ConfigDict(strict=True)
T = TypeVar("T")


def fits(hint: Any, value: Any) -> bool:
    """Return whether ``value`` has the type ``hint`` without conversion.

    >>> fits(int, 1), fits(int, "1"), fits(int, True), fits(tuple[float, ...] | None, [0.5])
    (True, False, False, True)

    Args:
        hint: a type, such as ``tuple[float, ...] | None``.
        value: from a JSON file or the command line; lists count as tuples.
    """
    try:
        _adapter(hint, strict=True).validate_python(_convert_lists(value))
    except ValidationError:
        return False
    return True


def read_as(kind: type[T], path: str | Path, written_by: str, fix: str) -> T:
    """Read a dataclass from the JSON file it was written to.

    Args:
        kind: the dataclass.
        path: of the file.
        written_by: the command that writes such files, for the error message.
        fix: what to do if the file has another content.

    Raises:
        UserError: the file does not exist, or has another content.
    """
    try:
        content: T = _adapter(cast(Any, kind)).validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path} must be what {written_by} wrote, got another content", fix=fix
        ) from error
    return content


def line_as(kind: type[T], line: str) -> T | None:
    """Read a dataclass from a line of JSON, or return ``None`` if it is something else.

    The last line of a killed process may be incomplete.
    """
    try:
        content: T = _adapter(cast(Any, kind)).validate_python(json.loads(line))
    except (ValueError, RecursionError):  # of JSON and of pydantic; nested lists
        return None
    return content


@cache
def _adapter(hint: Any, strict: bool = False) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=STRICT) if strict else TypeAdapter(hint)


def _convert_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _convert_lists(item) for key, item in value.items()}
    return tuple(map(_convert_lists, value)) if isinstance(value, (list, tuple)) else value
