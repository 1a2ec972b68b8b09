"""The verbs as functions of ``import semi_nnunet``: arguments are checked as on the command line.

Messages are written for the command line. For Python users, options become arguments and commands
become calls.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from cyclopts import Parameter
from cyclopts.validators import LimitedChoice

from semi_nnunet.util.arguments import check_argument
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.names import unknown
from semi_nnunet.util.verb_commands import parameter_types

Result = TypeVar("Result")
COMMAND = re.compile(r"semi_nnunet ([a-z-]+)((?: [^\s]+)*)")
VALUE = re.compile(r"[\w./=+\[\]-]*[\d_=/A-Z][\w./=+\[\]-]*")  # not a word of a sentence
ENDS = ",;:.)"


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
            write_for_python(function, error)
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


def write_for_python(function: Callable[..., Any], error: UserError) -> None:
    """Replace options and commands in the texts of an error by arguments and calls."""
    options = dict(_list_spellings(function))
    problems = [
        Problem(
            _replace(problem.where, options), _replace(problem.what, options),
            _replace(problem.fix, options),
        )
        for problem in error.problems
    ]  # fmt: skip
    fix = None if error.fix is None else _replace(error.fix, options)
    exit_code = vars(error).get("exit_code")
    UserError.__init__(error, _replace(error.what, options), problems, fix=fix)
    if exit_code is not None:
        error.exit_code = exit_code  # type: ignore[attr-defined]


def _list_spellings(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield the spellings of each option, with the argument."""
    for name, hint in parameter_types(function).items():
        if get_origin(hint) is Annotated:
            yield f"--{name.replace('_', '-')}", name
            for parameter in get_args(hint)[1:]:
                for spelling in (isinstance(parameter, Parameter) and parameter.name) or ():
                    yield spelling, name


def _replace(text: str, options: Mapping[str, str]) -> str:
    text = COMMAND.sub(_as_call, text)
    words = sorted(options, key=len, reverse=True)
    if not words:
        return text
    spelled = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])")
    return spelled.sub(lambda match: options[match[1]], text)


def _as_call(match: re.Match[str]) -> str:
    """Return the call for a command within a sentence, or the same text if there is none."""
    import semi_nnunet
    from semi_nnunet.cli.main import VERBS, parse, verb_function

    verb, words = match[1], match[2].split()
    if verb.rstrip(ENDS) not in VERBS:
        return match[0]
    name = verb_function(verb.rstrip(ENDS)).__name__
    if name not in semi_nnunet.__all__:
        return match[0]
    taken = next((i for i, word in enumerate(words) if not _continues(words, i)), len(words))
    command, rest = [word.rstrip(ENDS) for word in words[:taken]], words[taken:]
    end = words[taken - 1][len(command[-1]) :] if command else ""
    try:
        arguments = parse([verb, *command])[1]
    except UserError:
        if command:
            return match[0]
        arguments = {}
    values = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return " ".join([f"semi_nnunet.{name}({values}){end}", *rest])


def _continues(words: list[str], index: int) -> bool:
    """Return whether a word still belongs to the command that the words begin with."""
    if index and words[index - 1][-1] in ENDS:
        return False
    word, before = words[index].rstrip(ENDS), words[index - 1] if index else ""
    return word.startswith("-") or before.startswith("-") or bool(VALUE.fullmatch(word))
