"""The examples in docstrings run and print the documented output."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
from PIL import Image

import semi_nnunet
from semi_nnunet.challenge import efficiency
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
    "convert", "preprocess", "plan", "split", "auto", "train", "status", "predict",
    "evaluate", "efficiency", "tune", "export", "install", "distil", "pseudo_dataset",
    "pseudo_label", "crossval", "compare", "ensemble", "audit", "report", "select",
    "next",
)  # fmt: skip
SEGMENT = """
import sys
from pathlib import Path

for image in Path(sys.argv[1]).iterdir():
    (Path(sys.argv[2]) / image.name.replace("_0000", "")).symlink_to(image.resolve())
"""
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
    (tmp_path / "segment.py").write_text(SEGMENT)
    monkeypatch.setattr(efficiency, "IDLE", 101)  # other tests may run
    for kind in ("images", "masks"):
        (tmp_path / "Kvasir-SEG" / kind).mkdir(parents=True)
        for number in range(5):
            picture = Image.new("RGB", (8, 8), "white")
            picture.save(tmp_path / "Kvasir-SEG" / kind / f"polyp{number}.jpg")
    monkeypatch.chdir(tmp_path)
    with no_processes():
        for name in STORY:
            function = getattr(semi_nnunet, name)
            module = importlib.import_module(function.__module__)
            names = {**vars(module), "Path": Path}
            (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
            outcome = doctest.DocTestRunner(LastLines(), optionflags=FLAGS).run(example)
            assert outcome.attempted and not outcome.failed, name
