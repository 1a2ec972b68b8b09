"""Build the command line of a verb from its signature, with the option names that it declares."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from cyclopts import Parameter

import semi_nnunet
from semi_nnunet.util.command import Command, typed


def build_command(verb: str, *by_place: str | Path, **arguments: Any) -> Command:
    """Return the command on which a verb gets these arguments, in this order, without defaults.

    >>> build_command("plan", dataset="42", settings=["epochs=3"], budget=None, reset=True)
    ('semi_nnunet', 'plan', '-d', '42', '--set', 'epochs=3', '--reset')

    Args:
        verb: as typed.
        by_place: arguments without an option.
        arguments: of the function; the fields of a launcher stand for themselves.

    Raises:
        TypeError: the function has no such argument.
    """
    words: list[str | Path] = ["semi_nnunet", verb, *by_place]
    options = list_verb_options(getattr(semi_nnunet, verb.replace("-", "_")))
    for name, value in arguments.items():
        if name not in options and "options" not in options:  # those of converters vary
            raise TypeError(f"semi_nnunet {verb} has no argument {name!r}")
        option, default = options.get(name, (f"--{name.replace('_', '-')}", None))
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if value is None or value is False or values in ([], [default]) or value == default:
            continue
        words += format_option(option, values)
    return tuple(words)


def extend_command(command: Command, **arguments: Any) -> Command:
    """Return a command of a verb with more arguments.

    >>> extend_command(("semi_nnunet", "plan", "-d", "42"), reset=True)
    ('semi_nnunet', 'plan', '-d', '42', '--reset')
    """
    return (*command, *build_command(str(command[1]), **arguments)[2:])


def suggest_command(verb: str, *by_place: str | Path, **arguments: Any) -> str:
    """Return the command of :func:`build_command` as a user would type it.

    >>> suggest_command("preprocess", dataset="42", configurations=["2d"])
    'semi_nnunet preprocess -d 42 -c 2d'
    """
    return typed(build_command(verb, *by_place, **arguments))


def format_option(option: str, values: list[Any]) -> list[str | Path]:
    """Return an option with its values as words.

    >>> format_option("--keep", [1.0, 0.5]), format_option("--sbatch", ["--gres=gpu:1"])
    (['--keep', '1', '0.5'], ['--sbatch=--gres=gpu:1'])
    """
    if values[0] is True:
        return [option]
    words = [value if isinstance(value, Path) else _format_value(value) for value in values]
    if str(words[0]).startswith("-"):
        return [f"{option}={words[0]}"]
    return [option, *words]


def _format_value(value: Any) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def list_verb_options(function: Callable[..., Any]) -> dict[str, tuple[str, Any]]:
    """Return argument -> (first spelling of its option, default) of a verb's function."""
    return dict(_list_options(parameter_types(function), inspect.signature(function).parameters))


def _list_options(hints: dict[str, Any], defaults: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    for name, hint in hints.items():
        declared = [p.name[0] for p in getattr(hint, "__metadata__", ()) if _is_named(p)]
        spelling = declared[0] if declared else f"--{name.replace('_', '-')}"
        yield name, (spelling, defaults[name].default)
        kinds = [kind for kind in get_args(hint) if isinstance(kind, type) and is_dataclass(kind)]
        for kind in kinds:  # a launcher, whose fields are options
            own = {field.name: field for field in fields(kind)}
            yield from _list_options(get_type_hints(kind, include_extras=True), own)


def _is_named(metadata: object) -> bool:
    return isinstance(metadata, Parameter) and bool(metadata.name)


def parameter_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters, without that of the result, whose import takes long."""
    annotations = {k: v for k, v in function.__annotations__.items() if k != "return"}
    holder = type("Holder", (), {"__annotations__": annotations})
    module = vars(sys.modules[function.__module__])
    return get_type_hints(holder, globalns=module, localns={}, include_extras=True)
