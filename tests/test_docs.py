"""README and documentation are short, linked and correct, and every example runs."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cyclopts
import pytest

from semi_nnunet.cli.commands import command_of, help_text
from semi_nnunet.cli.main import VERBS, parse
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.settings import methods
from semi_nnunet.training.reproducible import ReproducibleTrainer
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.errors import UserError
from tests.test_layers import LAYERS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
PAGES = sorted({README, ROOT / "CONTRIBUTING.md", CHANGELOG, *DOCS.rglob("*.md")})
MOST_LINES = 130  # of the README: what a newcomer reads in five minutes
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"\b(?:semi_nnunet|scripts|tests|plans|docs)/[\w./-]*\w\.(?:py|sh|md|json|csv)\b")
MODULE = re.compile(r"\bsemi_nnunet(?:\.[a-z_]+)+\b")
NEW = re.compile(r"my_|count\.py")  # files of the pages on adding something
PLACEHOLDERS = {"...", "NAME", "ID", "SRC", "VERB"}

pytestmark = pytest.mark.filterwarnings("ignore")


def of_pages(*left_out: Path) -> pytest.MarkDecorator:
    pages = [page for page in PAGES if page not in left_out]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def loaded(path: Path) -> ModuleType:
    """Load a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what a reader finds ----


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@of_pages()
def test_relative_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]
    missing = [link for link in targets if link and not (page.parent / link).exists()]
    assert not missing


@of_pages(CHANGELOG)
def test_files_and_modules_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    files = {name for name in FILE.findall(text) if not NEW.search(name)}
    missing = {name for name in files if not (ROOT / name).exists()}
    for name in set(MODULE.findall(text)) - {"semi_nnunet.recipes"}:
        parts = name.split(".")
        places = [ROOT.joinpath(*parts[:length]) for length in (len(parts), len(parts) - 1)]
        if not any(place.is_dir() or place.with_suffix(".py").is_file() for place in places):
            missing.add(name)
    assert not missing


def test_files_of_the_architecture_are_in_their_packages():
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", (DOCS / "architecture.md").read_text())
    places = [(ROOT / name, ROOT / "semi_nnunet" / name) for name in named]
    assert places and all(any(path.is_file() for path in pair) for pair in places), named


# ---- what the code says ----


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of all our commands in the shell blocks, except those with placeholders."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["semi_nnunet"] and not PLACEHOLDERS & {*words}:
                yield words[1:]


@of_pages()
def test_commands_are_understood(page):
    refused = []
    for words in commands(page):
        if words[0] not in VERBS:
            refused.append((words, "no such verb"))
            continue
        try:
            parse(words)
        except UserError as error:
            refused.append((words, str(error)))
    assert not refused


def test_the_page_of_settings_is_that_of_the_code():
    page = loaded(DOCS / "generate_settings.py").page()
    fix = "python docs/generate_settings.py"
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == page, fix


def test_the_page_of_commands_is_that_of_the_code():
    generator = loaded(DOCS / "generate_commands.py")
    page = generator.page()
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == page, (
        "python docs/generate_commands.py"
    )
    for verb in VERBS:
        assert f"### {verb}\n" in page
    assert generator.as_code("Like --fast, with semi_nnunet plan --set, in nnUNet_raw: a-b") == (
        "Like `--fast`, with `semi_nnunet plan --set`, in `nnUNet_raw`: a-b"
    )


def test_the_figure_shows_every_layer_in_its_place():
    rows = loaded(DOCS / "figures" / "make_layers.py").ROWS
    from_the_ground = [package for _, packages in reversed(rows) for package in packages]
    assert from_the_ground[-1] == "import semi_nnunet"
    assert [*LAYERS] == from_the_ground[:-1]
    svg = (DOCS / "figures" / "layers.svg").read_text(encoding="utf-8")
    assert svg == loaded(DOCS / "figures" / "make_layers.py").drawing()


def test_the_example_of_a_method_trains(tmp_path, monkeypatch, make_trainer):
    settings, method, *_ = blocks(DOCS / "adding_a_method.md", "python")
    names = dict(vars(methods))
    exec(compile(settings, "settings", "exec"), names)
    monkeypatch.setattr(methods, "MySettings", names["MySettings"], raising=False)
    path = tmp_path / "my_method.py"
    path.write_text(method, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    known = dict(ReproducibleTrainer.methods)
    monkeypatch.setattr(ReproducibleTrainer, "methods", known)  # it stays unknown to other tests
    module = importlib.import_module("my_method")
    monkeypatch.delitem(sys.modules, "my_method")
    assert known["SemiMyTrainer"] is names["MySettings"]
    assert issubclass(module.SemiMyTrainer, SemiTrainer)
    trainer = make_trainer(module.SemiMyTrainer)
    values = trainer.train_step(next(trainer.dataloader_train))
    assert all(math.isfinite(value) for value in values.values())


def test_the_example_of_a_command_is_one(monkeypatch):
    block = blocks(DOCS / "adding_a_verb.md", "python")[0]
    monkeypatch.setitem(sys.modules, "count", module := ModuleType("count"))
    exec(compile(block, "count", "exec"), vars(module))
    app = cyclopts.App(result_action="return_value")
    app.command(command_of(module.count), name="count", help=help_text(module.count))
    _, bound, _ = app.parse_args(["count", "-d", "42", "--test"], exit_on_error=False)
    assert bound.arguments == {"dataset": "42", "test": True}


def test_the_example_of_a_converter_plans(tmp_path):
    block = blocks(DOCS / "adding_a_converter.md", "python")[0]
    names: dict[str, Any] = {"__name__": "my_data"}
    exec(compile(block, "my_data", "exec"), names)
    for folder in ("pictures", "masks"):
        for number in range(5):
            path = tmp_path / folder / f"cell_{number:03d}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
    planned = names["convert"](tmp_path, incomplete=True)
    assert planned.counts == {"Tr": 4, "Un": 0, "Val": 0, "Ts": 1}


def test_the_page_of_the_architecture_lists_every_package():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("| package | content |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(LAYERS)


def test_the_page_of_python_lists_the_front_door():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    stub = (ROOT / "semi_nnunet" / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \.(\S+) import (\w+)", stub, re.MULTILINE)
    assert re.findall(r"^::: (\S+)$", page, re.MULTILINE) == [
        f"semi_nnunet.{module}.{name}" for module, name in names
    ]


# ---- what runs ----


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a new user with three empty folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    folders = {}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folders[name] = str(tmp_path / name)
        (tmp_path / name).mkdir()
    few = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    return {**kept, **folders, **few, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_python_block_of_the_readme_runs(tmp_path, environment):
    (block,) = blocks(README, "python")
    raw = Path(environment["nnUNet_raw"]) / "Dataset042_Pancreas"
    write_phantom_dataset(raw, labelled=5, unlabelled=5, test=2, shape=(12, 32, 32))
    (tmp_path / "images").symlink_to(raw / "imagesTs")
    (tmp_path / "references").symlink_to(raw / "labelsTs")
    (tmp_path / "example.py").write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, environment, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
