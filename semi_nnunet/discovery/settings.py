"""The settings classes of our trainers, made from their files without importing the trainers.

The settings of a method stand in the method's file, above its trainer, whose import takes seconds
(nnU-Net's trainer brings PyTorch's compiler). Commands that only plan, check or compare need the
settings alone: the part of a file that its settings class needs is executed, and nothing else.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from semi_nnunet.discovery.listing import class_bodies, our_trainers, parsed
from semi_nnunet.settings.common import SemiSettings

ATTRIBUTE = "settings_class"  # of a trainer


@cache
def settings_classes() -> dict[str, type[SemiSettings]]:
    """Name -> settings class of every trainer of this package.

    The classes have the fields, defaults and rules of those that the trainers hold, but are not the
    same objects.
    """
    return {name: _settings_in(one.file, name) for name, one in our_trainers().items()}


def _settings_in(file: Path, trainer: str) -> type[SemiSettings]:
    """The settings class that a trainer assigns; that of all trainers if it assigns none."""
    for node in class_bodies(file)[trainer]:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == ATTRIBUTE:
            name = ast.unparse(node.value)
            found: type[SemiSettings] = getattr(_part(file, name), name)
            return found
    return SemiSettings


@cache
def _part(file: Path, name: str) -> ModuleType:
    """A module of the part of a file that one of its names needs."""
    module = ModuleType(f"{file.stem}_{name}", f"What {name} needs of {file.name}.")
    sys.modules[module.__name__] = module  # where types that are written as text are looked up
    part = ast.Module(needed(parsed(file).body, name), type_ignores=[])
    exec(compile(part, file, "exec"), module.__dict__)  # noqa: S102 - it is our own file
    return module


def needed(statements: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """The statements of a module that its name ``name`` needs, in their order.

    Imports are cut down to the names that are needed.
    """
    wanted, queue = set[str](), [name]
    while queue:
        wanted.add(one := queue.pop())
        definitions = [node for node in statements if one in _defined(node)]
        used = {
            part.id for node in definitions for part in ast.walk(node) if isinstance(part, ast.Name)
        }
        queue += used - wanted
    return [_cut(node, wanted) for node in statements if _is_wanted(node, wanted)]


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (one.asname or one.name.partition(".")[0] for one in node.names)
    elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (one.id for one in targets if isinstance(one, ast.Name))


def _is_wanted(node: ast.stmt, wanted: set[str]) -> bool:
    of_language = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return of_language or not wanted.isdisjoint(_defined(node))


def _cut(node: ast.stmt, wanted: set[str]) -> ast.stmt:
    """An import of the wanted names alone; other statements as they are."""
    if not isinstance(node, ast.ImportFrom) or node.module == "__future__":
        return node
    names = [one for one in node.names if (one.asname or one.name) in wanted]
    return ast.copy_location(ast.ImportFrom(node.module, names, node.level), node)
