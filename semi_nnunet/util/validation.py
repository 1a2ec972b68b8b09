"""Whether a value that a user gave, or a file, is of the type that a field declares."""

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


def read_as(kind: type[T], path: str | Path, written_by: str, fix: str) -> T:
    """Read a JSON file that a dataclass was written to.

    Args:
        kind: the dataclass.
        path: of the file.
        written_by: the command that writes such files, for the error.
        fix: what to do about another file.

    Raises:
        UserError: it is not there, or holds something else.
    """
    try:
        found: T = _adapter_of(cast(Any, kind)).validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path} must be what {written_by} wrote, got another content", fix=f"{fix}"
        ) from error
    return found


def line_as(kind: type[T], line: str) -> T | None:
    """Read a line of a list, each of which a dataclass was written to.

    Args:
        kind: the dataclass.
        line: JSON; of a killed process, it may be torn.

    Returns:
        None: it is something else.
    """
    try:
        found: T = _adapter_of(cast(Any, kind)).validate_python(json.loads(line))
    except (ValueError, RecursionError):  # of JSON and of pydantic; nested lists
        return None
    return found


@cache
def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=STRICT)


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value
