"""Turn the function of a verb into a command of cyclopts, and its docstring into help."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from cyclopts import Parameter, Token

from semi_nnunet.util.verb_commands import parameter_types


def command_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as the command line sees it.

    Parameters that have an option are given by its name only. Empty defaults are not shown. The
    type of the result is left out, because importing it would take seconds.
    """

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    hints = parameter_types(function)
    parameters = [
        as_parameter(parameter, hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    parameters.sort(key=lambda parameter: parameter.kind)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]
    return command


def has_option(hint: Any) -> bool:
    """Return whether a parameter of this type is declared as an option."""
    return get_origin(hint) is Annotated


def as_parameter(parameter: inspect.Parameter, hint: Any) -> inspect.Parameter:
    """Return options as keywords, with defaults that say something, and the rest by place."""
    if not has_option(hint):
        by_place = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        kind = inspect.Parameter.POSITIONAL_ONLY if by_place else parameter.kind
        if hint in _CONVERTERS:
            hint = Annotated[hint, Parameter(converter=_CONVERTERS[hint])]
        return parameter.replace(kind=kind, annotation=hint)
    default = parameter.default
    shows_default = default is not inspect.Parameter.empty and default not in (None, False, "", ())
    text = _default_text if shows_default else False
    return parameter.replace(
        kind=inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[
            hint, Parameter(show_default=text, converter=_CONVERTERS.get(get_args(hint)[0]))
        ],
    )


def _convert_whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be a whole number, got {text!r}") from None


def _convert_path(text: str) -> Path:
    if not text:
        raise ValueError("the name of a file or folder is empty")
    return Path(text)


def _convert_one(convert: Callable[[str], Any], _: Any, tokens: Sequence[Token]) -> Any:
    return convert(tokens[0].value)


def _convert_each(convert: Callable[[str], Any], _: Any, tokens: Sequence[Token]) -> list[Any]:
    return [convert(token.value) for token in tokens]


# cyclopts makes 2 of "1.5", and the current folder of "", such as an unset variable of a shell
_CONVERTERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((int, int | None), partial(_convert_one, _convert_whole_number)),
    **dict.fromkeys((Path, Path | None), partial(_convert_one, _convert_path)),
    **dict.fromkeys(
        (Sequence[int], Sequence[int] | None), partial(_convert_each, _convert_whole_number)
    ),
    **dict.fromkeys((Sequence[Path], Sequence[Path] | None), partial(_convert_each, _convert_path)),
}


def _default_text(default: Any) -> str:
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default))
    return str(default)


def help_text(function: Callable[..., Any]) -> str:
    """Return the description in the docstring: paragraphs as one line each, examples as they are.

    >>> print(help_text(help_text).splitlines()[0])
    Return the description in the docstring: paragraphs as one line each, examples as they are.
    """
    description = (inspect.getdoc(function) or "").partition("\nArgs:")[0].strip()
    summary, _, rest = description.partition("\n\n")
    if rest.startswith(" "):
        rest = f"For example:\n\n{rest}"
    return "\n".join(_reflowed([summary, "", *rest.splitlines()])).strip()


def _reflowed(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line and not line.startswith(" "):
            paragraph.append(line)
            continue
        if paragraph:
            yield " ".join(paragraph)
            paragraph = []
        yield line
