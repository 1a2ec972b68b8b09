"""A submission gets the packages of its prediction, without training tools or unused CUDA."""

from __future__ import annotations

import importlib.metadata
from email.message import Message

import numpy as np
import pytest
from packaging.requirements import Requirement

from semi_nnunet.challenge import needs
from semi_nnunet.challenge.needs import (
    collect_requirements,
    find_distributions,
    find_needed_packages,
    read_licence,
)
from semi_nnunet.util.errors import UserError


@pytest.mark.slow
def test_a_prediction_needs_no_training_tools(root, monkeypatch):
    modules = needs.trace_imports(root)
    assert "nnunetv2.training.nnUNetTrainer.nnUNetTrainer" not in modules
    monkeypatch.setattr(needs, "trace_imports", lambda _: modules)
    versions = find_needed_packages(root, cuda=False, ending=".nii.gz")
    assert {"nnunetv2", "numpy", "simpleitk", "torch", "sympy"} <= {*versions}
    idle = {"matplotlib", "scikit-learn", "seaborn", "timm", "triton", "imagecodecs", "pytest"}
    assert not (idle | {"semi-nnunet", "pip"}) & {*versions}
    assert not [name for name in versions if name.startswith(("nvidia", "cuda"))]
    assert versions["torch"].endswith("+cpu") and versions["numpy"] == np.__version__
    with_gpu = find_needed_packages(root, cuda=True, ending=".tif")
    assert with_gpu["torch"] == importlib.metadata.version("torch")
    has_cuda = any("nvidia" in line for line in importlib.metadata.requires("torch") or [])
    assert has_cuda == any(name.startswith("nvidia-cudnn") for name in with_gpu)
    assert ("imagecodecs" in with_gpu) == ("imagecodecs" in find_distributions(modules))


def test_a_model_that_does_not_predict_is_reported_before_wheels_are_fetched(root):
    (root / "submission.json").unlink()
    with pytest.raises(UserError, match=r"made-up image .*submission"):
        find_needed_packages(root, cuda=False, ending=".nii.gz")


def test_files_belong_to_the_packages_that_list_them():
    import packaging.version

    modules = {"numpy.linalg": np.__file__, "packaging.version": packaging.version.__file__}
    assert find_distributions(modules) == {"numpy", "packaging"}
    assert find_distributions({"numpy": "/elsewhere/numpy.py", "os": "/usr/lib/os.py"}) == set()


def test_requirements_are_followed_through_extras_and_markers(tmp_path, monkeypatch):
    for name, lines in {
        "one": ["two[more]", 'never; sys_platform == "win32"', 'not-asked; extra == "x"'],
        "two": ['three; extra == "more"', "one"],
        "three": ["absent"],
    }.items():
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        requirements = "".join(f"Requires-Dist: {line}\n" for line in lines)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{requirements}"
        (folder / "METADATA").write_text(about)
    monkeypatch.syspath_prepend(tmp_path)
    assert collect_requirements("one") == {"one", "two", "three"}
    assert not needs.applies_to_image(Requirement('a; platform_machine == "arm64"'), ())


def test_licences_are_short():
    assert read_licence("numpy") != "?" and "\n" not in read_licence("numpy")
    assert read_licence("no-such-package") == "?"


def test_licences_are_read_with_the_backport_of_metadata(monkeypatch):
    """It takes the place of importlib.metadata once anything imports it, as MLflow does."""

    class Strict(Message):
        def __getitem__(self, key):
            if key not in self:
                raise KeyError(key)
            return super().__getitem__(key)

    about = Strict()
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: about)
    assert read_licence("any") == "see its wheel"
    about["License"] = "MIT"
    assert read_licence("any") == "MIT"
