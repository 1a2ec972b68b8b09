"""The examples in docstrings run and print the documented output."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.datasets.phantom import write_phantom_dataset
from tests.conftest import SHAPE, no_processes

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "semi_nnunet").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
    and (path.parent.name != "verbs" or path.name == "options.py")  # run as a story, below
]
STORY = (  # of the front door; the others need downloads, or take long
    "preprocess", "plan", "split", "auto", "train", "status", "predict", "evaluate", "tune",
    "export", "install", "distil", "pseudo_dataset", "pseudo_label", "crossval", "audit", "report",
    "select",
)  # fmt: skip
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class LastLines(doctest.OutputChecker):
    """A checker that ignores what is printed before the result, as nnU-Net does."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        lines = got.splitlines(keepends=True)[-len(want.splitlines()) :] if want else []
        return super().check_output(want, "".join(lines), optionflags)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_the_documented_output(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name.removesuffix(".__init__"))
    failed, tried = doctest.testmod(module, optionflags=FLAGS)
    assert tried and not failed


@pytest.mark.slow
def test_examples_of_the_front_door_are_a_story(tmp_path, monkeypatch):
    """From a raw data set to its predictions and a model that is shipped."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    raw = tmp_path / "raw" / "Dataset042_Hearts"
    write_phantom_dataset(raw, labelled=3, unlabelled=2, test=2, shape=SHAPE)
    for name in ("imagesUn", "imagesTs", "labelsTs"):
        (tmp_path / name).symlink_to(raw / name)
    monkeypatch.chdir(tmp_path)
    with no_processes():
        for name in STORY:
            function = getattr(semi_nnunet, name)
            module = importlib.import_module(function.__module__)
            names = {**vars(module), "Path": Path}
            (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
            outcome = doctest.DocTestRunner(LastLines(), optionflags=FLAGS).run(example)
            assert outcome.attempted and not outcome.failed, name
