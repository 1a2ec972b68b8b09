"""Check the arguments of a call against the types that the function declares."""

from __future__ import annotations

import math
import numbers
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from semi_nnunet.util.errors import Problem
from semi_nnunet.util.names import unknown

REFUSED = object()  # no value


@dataclass(frozen=True)
class AlsoInPython:
    """A type that an argument may have besides that of the command line; part of its annotation.

    Args:
        hint: the type.
    """

    hint: Any


def check_argument(name: str, hint: Any, value: Any) -> tuple[Any, list[Problem]]:
    """Return a value as the function expects it, and its problems.

    Paths may be strings and the reverse, strings may be whole numbers (of folds and data sets), and
    numbers may be NumPy's. Nothing else is converted.

    >>> check_argument("folds", Sequence[str] | None, [0, "all"])
    (['0', 'all'], [])
    >>> print(*check_argument("epochs", int, 1.5)[1])
    epochs: must be a whole number, got 1.5. Fix: correct it
    >>> print(*check_argument("folds", Sequence[str] | None, "all")[1])
    folds: must be a list of strings or None, got 'all'. Fix: folds=['all']

    Args:
        name: of the argument.
        hint: its type.
        value: from the user.
    """
    converted = _convert(hint, value)
    if converted is not REFUSED:
        return converted, [*_find_wrong_fields(name, value)]
    choices = [choice for choice in _leaves(hint) if get_origin(choice) is Literal]
    listed = _convert(hint, [value])
    fix = "correct it" if listed is REFUSED or value is None else f"{name}={listed!r}"
    if choices and isinstance(value, str):
        fix = next(unknown(name, [value], get_args(choices[0]))).fix
    return value, [Problem(name, f"must be {_describe(hint)}, got {value!r}", fix)]


def _find_wrong_fields(name: str, value: Any) -> Iterator[Problem]:
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value), include_extras=True)
        for field in fields(value):
            given = getattr(value, field.name)
            if given != field.default:
                yield from check_argument(f"{name}.{field.name}", hints[field.name], given)[1]


def _leaves(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, or the type itself."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _leaves(get_args(hint)[0])
        for metadata in get_args(hint)[1:]:
            if isinstance(metadata, AlsoInPython):
                yield metadata.hint
    elif origin in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _leaves(member)
    else:
        yield hint


def _convert(hint: Any, value: Any) -> Any:
    results = (_convert_to(leaf, value) for leaf in _leaves(hint))
    return next((result for result in results if result is not REFUSED), REFUSED)


def _convert_to(leaf: Any, value: Any) -> Any:
    origin, inner = get_origin(leaf), get_args(leaf)
    if leaf in LEAVES:
        return LEAVES[leaf][1](value)
    if origin is Literal:
        return value if isinstance(value, str) and value in inner else REFUSED
    if origin is Sequence:
        is_array = hasattr(value, "__array__") and getattr(value, "shape", None) != ()
        if not (isinstance(value, (list, tuple)) or is_array):  # NumPy's numbers are arrays, too
            return REFUSED
        items = [_convert(inner[0], item) for item in value]
        return REFUSED if any(item is REFUSED for item in items) else items
    kind = origin or leaf  # such as Mapping, or a dataclass
    return value if isinstance(value, kind) else REFUSED


def _describe(hint: Any) -> str:
    return " or ".join(dict.fromkeys(map(_describe_leaf, _leaves(hint))))


def _describe_leaf(leaf: Any) -> str:
    if leaf in LEAVES:
        return LEAVES[leaf][0]
    if get_origin(leaf) is Literal:
        return " or ".join(map(repr, get_args(leaf)))
    if get_origin(leaf) is Sequence:
        kinds = [_describe_leaf(inner) for inner in _leaves(get_args(leaf)[0])]
        return f"a list of {' or '.join(PLURALS.get(kind, kind) for kind in kinds)}"
    return "a dictionary" if leaf is Mapping else f"a {leaf.__name__}"


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value if value else REFUSED
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return str(value) if is_number or isinstance(value, os.PathLike) else REFUSED


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, (str, os.PathLike)) and str(value) else REFUSED


def _as_whole_number(value: Any) -> Any:
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if is_number else REFUSED


def _as_number(value: Any) -> Any:
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) and math.isfinite(value)):
        return REFUSED
    return int(value) if isinstance(value, numbers.Integral) else float(value)


LEAVES: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    Any: ("anything", lambda value: value),
    types.NoneType: ("None", lambda value: value if value is None else REFUSED),
    bool: ("True or False", lambda value: value if isinstance(value, bool) else REFUSED),
    int: ("a whole number", _as_whole_number),
    float: ("a number", _as_number),
    str: ("a string", _as_text),
    Path: ("a path", _as_path),
}
PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "a string": "strings",
    "a path": "paths",
}
