"""Write the page of all commands, docs/commands.md, from the functions behind the verbs.

python docs/generate_commands.py            writes the page
python docs/generate_commands.py --check    fails if the page is outdated
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from semi_nnunet.cli.commands import help_text
from semi_nnunet.cli.main import TASKS, build_app, verb_function
from semi_nnunet.datasets.converters import CONVERTERS
from semi_nnunet.verbs.options import Launcher

PAGE = Path(__file__).with_name("commands.md")
JOBS_HEADING = "Where it runs"
JOBS_OPTIONS = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Launcher)}
VERB = "|".join(verb for verbs in TASKS.values() for verb in verbs)
# Words of a docstring that are code: commands, options, names with underscores, files.
CODE = re.compile(
    rf"(?<![\w`/-])(semi_nnunet (?:{VERB})\b(?: --[a-z-]+)?"
    r"|--?[a-z][\w-]*(?:=\S*[\w'])?|[\w*]*_[\w*]+(?:\.\w+)*"
    r"|[\w*]+\.(?:json|csv|md|html|pth|zip)|imagesTr|imagesTs|imagesUn|labelsTr|labelsTs)(?![\w`])"
)

HEAD = """# Commands

<!-- written by docs/generate_commands.py: change the docstrings of the verbs, not this page -->

`semi_nnunet VERB --help` prints the same in a terminal. Most commands are also functions of
`import semi_nnunet` ([Python](python.md)). A command that ends without an error has exit
status 0. A mistake in the command or the data gives 2, and a command that could not do everything
gives 1. An interruption with Ctrl-C gives 130.

"""


class Row(NamedTuple):
    """An option of a command: its spellings, and its meaning with choices and default."""

    names: str
    meaning: str


def page() -> str:
    """Return the whole page."""
    app = build_app()
    parts = [HEAD, *overview(), ""]
    for task, verbs in TASKS.items():
        parts.append(f"## {task[:1].upper()}{task[1:]}\n")
        for verb in verbs:
            parts += [f"### {verb}\n", *describe(verb, app)]
    parts += [
        f"## {JOBS_HEADING}\n",
        "These options are the same for every command that has them.\n",
    ]
    parts.append(table(launcher_rows(app)))
    parts += ["## Options of the program\n", table(program_rows())]
    return "\n".join(parts)


def overview() -> Iterator[str]:
    """Yield a table of all verbs by task."""
    yield from ("| task | commands |", "|---|---|")
    for task, verbs in TASKS.items():
        yield f"| {task} | {', '.join(f'[`{verb}`](#{verb})' for verb in verbs)} |"


def describe(verb: str, app: Any) -> Iterator[str]:
    """Yield summary, example, details and options of a verb."""
    function = verb_function(verb)
    summary, _, rest = help_text(function).partition("\n\n")
    yield f"{as_code(summary)}\n"
    yield f"```bash\n{example(verb, function)}\n```\n"
    for paragraph in rest.split("\n\n"):
        if paragraph[:1].isupper() and not paragraph.endswith(":"):  # no part of an example
            yield f"{as_code(paragraph)}\n"
    if verb == "convert":
        yield from converter_tables()
        return
    arguments = visible_arguments(app[verb])
    shares_options = any("--launcher" in argument.names for argument in arguments)
    rows = [row_of(a) for a in arguments if not (shares_options and JOBS_OPTIONS & {*a.names})]
    if rows:
        yield table(rows)
    if shares_options:
        anchor = JOBS_HEADING.lower().replace(" ", "-")
        yield f"`--launcher`, `--device`, `--jobs` and others: [{JOBS_HEADING}](#{anchor}).\n"
    name = function.__name__
    if name != verb.replace("-", "_"):
        yield f"In Python: `semi_nnunet.{name}`.\n"


def example(verb: str, function: Any) -> str:
    """Return the first example of a docstring, or the verb alone."""
    lines = (inspect.getdoc(function) or "").partition("\nArgs:")[0].splitlines()
    for number, line in enumerate(lines):
        if re.match(rf"\s+semi_nnunet {verb}\b", line):
            taken = [line.strip()]
            while taken[-1].endswith("\\"):
                number += 1
                taken.append(f"    {lines[number].strip()}")
            return "\n".join(taken)
    return f"semi_nnunet {verb}"


def visible_arguments(app: Any) -> list[Any]:
    """Return the arguments that ``--help`` shows: by place, then options by their group."""
    shown = [a for a in app.assemble_argument_collection(parse_docstring=True) if a.show]
    return sorted(shown, key=sort_key)


def sort_key(argument: Any) -> tuple[int, bool]:
    """Return where an argument stands in the table: required options first in each group."""
    by_place = not argument.names[0].startswith("-")
    return (-1 if by_place else groups_of(argument)[0].sort_key, not argument.required)


def groups_of(argument: Any) -> tuple[Any, ...]:
    """Return the groups of an argument."""
    groups = argument.parameter.group
    return groups if isinstance(groups, tuple) else (groups,)


def row_of(argument: Any) -> Row:
    """Return the row of an argument."""
    names = ", ".join(f"`{name}`" for name in argument.names if not name.startswith("--empty-"))
    meaning = as_code(" ".join((argument.parameter.help or "").split()))
    if choices := argument.get_choices():
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if argument.required and names.startswith("`-"):
        meaning += " Required."
    default = argument.field_info.default
    is_named = "default:" in meaning
    if not argument.required and default not in (None, False, "", ()) and not is_named:
        words = default if isinstance(default, (list, tuple)) else [default]
        meaning += f" Default: `{' '.join(map(str, words))}`."
    return Row(names, meaning.strip())


def launcher_rows(app: Any) -> list[Row]:
    """Return the options of :class:`Launcher`, which several verbs share."""
    return [row_of(a) for a in visible_arguments(app["crossval"]) if JOBS_OPTIONS & {*a.names}]


def program_rows() -> list[Row]:
    """Return the options without a verb."""
    return [
        Row("`--help`, `-h`", "Print the commands, or with a command its options."),
        Row("`--version`", "Print the version."),
        Row("`--install-completion`", "Let the Tab key complete commands in this shell."),
    ]


def converter_tables() -> Iterator[str]:
    """Yield the options of ``convert`` and the names of the converters."""
    kvasir = build_app(["convert", "kvasir"])["convert"]["kvasir"]
    common = {"SOURCE", "--new-id", "--new-name", "-np"}
    rows = [row_of(a) for a in visible_arguments(kvasir) if common & {*a.names}]
    yield table([Row("`NAME`", "A converter of the table below."), *rows])
    yield "\n".join(("| converter | data |", "|---|---|",
                     *(f"| `{name}` | {summary} |" for name, summary in CONVERTERS.items()),
                     ""))  # fmt: skip


def as_code(text: str) -> str:
    """Return a text of a docstring as markdown, with options, names and files as code.

    >>> as_code("Like --fast, with nnUNet_raw.")
    'Like `--fast`, with `nnUNet_raw`.'
    """
    return CODE.sub(r"`\1`", text.replace("``", "`")).replace("<", "&lt;")


def table(rows: Iterable[Row]) -> str:
    """Return a table of options."""
    lines = ["| option | meaning |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {r.names} | {r.meaning.replace('|', chr(92) + '|')} |" for r in rows), ""]
    )


if __name__ == "__main__":
    from generated_page import write_or_check  # of this folder

    sys.exit(write_or_check(PAGE, page()))
