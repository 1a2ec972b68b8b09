"""The layers: which package may import which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "semi_nnunet"

# From the ground up: a package imports those before it in this list, and itself.
LAYERS = (
    "util",
    "core",
    "augment",
    "settings",
    "raw",
    "verify",
    "preprocessing",
    "loading",
    "datasets",
    "evaluation",
    "networks",
    "planning",
    "training",
    "deploy",
    "methods",
    "discovery",
    "runs",
    "workflows",
    "benchmarking",
    "inference",
    "challenge",
    "reporting",
    "pseudo_labels",
    "annotation",
    "demo",
    "automatic",
    "verbs",
    "cli",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    """Return the package of a file below ``semi_nnunet``, "" for a module of the root."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield our packages that a file imports, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "semi_nnunet" and len(parts) > 1 and parts[1] in (*LAYERS, "api"):
                yield parts[1], node.lineno


def test_every_package_has_a_layer_and_the_root_holds_only_the_front_door():
    packages = {package_of(path) for path in FILES} - {""}
    assert packages == set(LAYERS)
    at_root = {path.name for path in FILES if package_of(path) == ""}
    assert at_root <= {"__init__.py", "__main__.py", "api.py"}


@pytest.mark.parametrize("layer", LAYERS)
def test_packages_import_downwards_only(layer):
    allowed = {*LAYERS[: LAYERS.index(layer) + 1]}
    upward = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {other}, which is above {layer}"
        for path in FILES
        if package_of(path) == layer
        for other, line in imported(path)
        if other not in allowed
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize(
    "path", [p for p in FILES if package_of(p) in ("core", "augment")], ids=str
)
def test_tensor_functions_do_not_need_nnunet(path):
    assert "nnunetv2" not in path.read_text(encoding="utf-8")


def test_existing_imports_are_found():
    """Check that the test above sees imports, also lazy ones."""
    found = {(package_of(path), other) for path in FILES for other, _ in imported(path)}
    assert {("verbs", "workflows"), ("training", "planning"), ("methods", "training")} <= found


def test_no_part_takes_a_trainer_of_any_type():
    loose = [
        f"{path.relative_to(PACKAGE.parent)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\btrainer: Any\b", line)
    ]
    assert not loose, loose


def test_no_method_imports_another():
    methods = {path.stem for path in (PACKAGE / "methods").glob("*.py")} - {"__init__"}
    for path in (PACKAGE / "methods").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                assert parts[:2] != ["semi_nnunet", "methods"] or parts[-1] not in methods, path
