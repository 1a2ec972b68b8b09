"""The verbs as functions of ``import semi_nnunet``: arguments are checked as on the command line.

In the errors that a function raises, the places of problems are named after arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar, get_args, get_origin

from cyclopts import Parameter
from cyclopts.validators import LimitedChoice

from semi_nnunet.util.arguments import check_argument
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.names import unknown
from semi_nnunet.util.verb_commands import parameter_types

Result = TypeVar("Result")


def check_calls(function: Callable[..., Result]) -> Callable[..., Result]:
    """Return the function of a verb for Python users."""
    parameters = inspect.signature(function).parameters.values()
    by_place = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Result:
        try:
            checked = check_arguments(function, args, named)
            return function(*(checked.pop(name) for name in by_place if name in checked), **checked)
        except UserError as error:
            name_arguments(function, error)
            raise

    return call


def check_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name, converted to their types.

    Raises:
        UserError: a name, type or choice is wrong, or arguments exclude each other.
    """
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    problems = [] if takes_all else [*unknown("argument", [*named], [*parameters])]
    by_place = [name for name, p in parameters.items() if p.kind < inspect.Parameter.KEYWORD_ONLY]
    if len(args) > len(by_place):
        what = f"must have a name, as only {len(by_place)} arguments may come without one"
        example = next((name for name in parameters if name not in by_place), "NAME")
        problems += [Problem(f"argument {args[len(by_place)]!r}", what, f"such as {example}=...")]
    given = dict(zip(by_place, args, strict=False))
    for name in given.keys() & named.keys():
        problems += [Problem(name, "is given twice", "remove one")]
    given |= named
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty and parameter.kind is not (
            inspect.Parameter.VAR_KEYWORD
        )
        if is_required and name not in given:
            problems += [Problem(name, "is missing", f"{name}=...")]
    hints = parameter_types(function)
    checked = {}
    for name, value in given.items():
        default = parameters[name].default if name in parameters else value
        if value is default or (type(value) is type(default) and value == default):
            checked[name] = value
            continue
        checked[name], wrong = check_argument(name, hints[name], value)
        problems += wrong
    if not problems:
        problems = [*_find_exclusive(hints, [name for name, value in checked.items() if value])]
    raise_if_any(f"semi_nnunet.{function.__name__} cannot start:", problems)
    return checked


def _find_exclusive(hints: Mapping[str, Any], given: list[str]) -> Iterator[Problem]:
    names_of: dict[int, list[str]] = {}
    for name in given:
        for parameter in getattr(hints.get(name), "__metadata__", ()):
            groups = parameter.group if isinstance(parameter, Parameter) else ()
            for group in groups if isinstance(groups, tuple) else (groups,):
                if any(isinstance(v, LimitedChoice) for v in getattr(group, "validator", ())):
                    names_of.setdefault(id(group), []).append(name)
    for names in names_of.values():
        if len(names) > 1:
            yield Problem(" and ".join(names), "exclude each other", "choose one of them")


def name_arguments(function: Callable[..., Any], error: UserError) -> None:
    """Name the arguments in the places of an error's problems, instead of their options."""
    names = dict(_list_spellings(function))
    problems = [
        replace(problem, where=" ".join(names.get(word, word) for word in problem.where.split(" ")))
        for problem in error.problems
    ]
    UserError.__init__(error, error.what, problems, fix=error.fix)


def _list_spellings(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield the spellings of each option, with the argument."""
    for name, hint in parameter_types(function).items():
        if get_origin(hint) is Annotated:
            yield f"--{name.replace('_', '-')}", name
            for parameter in get_args(hint)[1:]:
                for spelling in (isinstance(parameter, Parameter) and parameter.name) or ():
                    yield spelling, name
