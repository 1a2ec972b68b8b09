"""Commands that messages suggest exist as they are written, with all their options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from semi_nnunet.cli.main import TASKS, build_app

PACKAGE = Path(__file__).resolve().parents[1] / "semi_nnunet"
VERBS = [verb for verbs in TASKS.values() for verb in verbs if verb != "convert"]
COMMAND = re.compile(rf"semi_nnunet ({'|'.join(VERBS)})\b(?!-)([^.;,:()`\"\n]*)")
OPTION = re.compile(r"(?<!\S)--?[a-zA-Z][\w-]*")


def read_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a file with their lines; computed parts become X."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            values = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
            yield node.lineno, "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def find_unknown_options(text: str, options: dict[str, set[str]]) -> Iterator[str]:
    """Yield the options of suggested commands that their verbs lack."""
    for verb, words in COMMAND.findall(text):
        yield from (f"{verb} {name}" for name in OPTION.findall(words) if name not in options[verb])


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Return the spellings of each verb's options."""
    app = build_app()
    return {
        verb: {
            name for argument in app[verb].assemble_argument_collection() for name in argument.names
        }
        for verb in VERBS
    }


def test_suggested_options_exist(options: dict[str, set[str]]) -> None:
    unknown = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in read_texts(path)
        for name in find_unknown_options(text, options)
    ]
    assert not unknown, "\n".join(unknown)


def test_an_option_that_does_not_exist_is_noticed(options: dict[str, set[str]]) -> None:
    text = "run semi_nnunet plan -d X --new-name Y, or semi_nnunet preprocess -d X; or use --x"
    assert [*find_unknown_options(text, options)] == ["plan --new-name"]
