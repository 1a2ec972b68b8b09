"""The distributions are complete and work without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.discovery.register import EXTERNAL
from semi_nnunet.discovery.startup_line import FILE

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "plans", "scripts", "semi_nnunet", "tests")
RECIPES = sorted(path.name for path in (ROOT / "plans").glob("*.json"))
NAME = f"semi_nnunet-{semi_nnunet.__version__}"

LOOK_AROUND = """
import importlib, pkgutil, sys
from importlib.resources import files
from pathlib import Path

import semi_nnunet

target = Path(sys.argv[1])
assert Path(semi_nnunet.__file__).is_relative_to(target), semi_nnunet.__file__
for module in pkgutil.walk_packages(semi_nnunet.__path__, "semi_nnunet."):
    if not module.name.endswith("__main__"):
        assert Path(importlib.import_module(module.name).__file__).is_relative_to(target), module
names = [one.name for one in files("semi_nnunet.recipes").iterdir()]
print(*sorted(name for name in names if name.endswith(".json")))
"""

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, python: str | Path = sys.executable, **others: str) -> str:
    """Return the output of a command of a Python."""
    done = subprocess.run(
        [str(python), *map(str, words)],
        cwd=cwd,
        env={**os.environ, **others},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("packaging") / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    return source


@pytest.fixture(scope="module")
def distributions(source: Path) -> Path:
    """The folder with the sdist of the copy, and its wheel."""
    run("-m", "build", "--no-isolation", "--outdir", source.parent / "dist", cwd=source)
    return source.parent / "dist"


@pytest.fixture(scope="module")
def in_wheel(distributions: Path) -> set[str]:
    with zipfile.ZipFile(distributions / f"{NAME}-py3-none-any.whl") as archive:
        return set(archive.namelist())


def test_the_wheel_has_all_modules_and_data_files(in_wheel):
    package = ROOT / "semi_nnunet"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    for ending in ("*.typed", "*.json", "*.j2", "*.css", "*.js"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in package.rglob(ending)}
    assert not wanted - in_wheel
    assert "semi_nnunet/py.typed" in in_wheel


def test_the_wheel_has_the_recipes_and_no_other_packages(in_wheel):
    assert {f"semi_nnunet/recipes/{name}" for name in RECIPES} <= in_wheel
    tops = {name.split("/")[0] for name in in_wheel}
    assert tops == {"semi_nnunet", f"{NAME}.dist-info", FILE}


def test_the_sdist_has_all_files_for_building_tests_and_docs(distributions):
    with tarfile.open(distributions / f"{NAME}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"plans/{name}" for name in RECIPES} <= names
    one_of_each = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml", "setup.py"}
    one_of_each |= {"docs/index.md", "docs/tutorial.ipynb", "scripts/test.sh", "tests/conftest.py"}
    assert not one_of_each - names


def test_the_installed_wheel_works_without_the_repository(distributions, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel = distributions / f"{NAME}-py3-none-any.whl"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--target")
    run("-m", "pip", "install", *quiet, target, wheel, cwd=elsewhere)
    alone = {"PYTHONPATH": str(target)}
    assert run("-c", LOOK_AROUND, target, cwd=elsewhere, **alone).split() == RECIPES
    listed = run("-m", "semi_nnunet", "run", "--list", cwd=elsewhere, **alone)
    assert all(name.removesuffix(".json") in listed for name in RECIPES)


def test_pip_installs_and_removes_the_file_by_which_nnunet_finds_our_trainers(
    distributions, source, tmp_path
):
    run("-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    build = "from setuptools.build_meta import build_editable as build; print(build('editable'))"
    editable = source / "editable" / run("-c", build, cwd=source).split()[-1]
    copies = {editable: source, distributions / f"{NAME}-py3-none-any.whl": tmp_path / "venv"}
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    code = f"import os; print(os.environ['{EXTERNAL}'])"
    variables = {"PYTHONPATH": "", EXTERNAL: ""}
    for wheel, place in copies.items():
        run(*pip, "install", "--no-deps", wheel, cwd=tmp_path, **variables)
        folder = run("-c", code, cwd=tmp_path, python=python, **variables).rstrip()
        assert Path(folder).is_relative_to(place.resolve()) and any(Path(folder).glob("*.py"))
        run(*pip, "uninstall", "--yes", "semi_nnunet", cwd=tmp_path, **variables)
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
