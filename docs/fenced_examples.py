"""A griffe extension: show the doctest examples of docstrings as code."""

from __future__ import annotations

from typing import Any

import griffe


class FencedExamples(griffe.Extension):
    """Put each block that begins with ``>>>`` into a fence."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fence_examples(obj.docstring.value)


def fence_examples(text: str) -> str:
    """Return the docstring with fences around its doctest blocks, which end at a blank line."""
    lines, in_block = [], False
    for line in [*text.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if not in_block and line.lstrip().startswith(">>> "):
            in_block, block_indent = True, indent
            lines.append(f"{block_indent}```pycon")
        elif in_block and not line.strip():
            in_block = False
            lines.append(f"{block_indent}```")
        lines.append(line)
    return "\n".join(lines)
