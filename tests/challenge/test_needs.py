"""A submission gets what its prediction imports, and neither training tools nor CUDA in vain."""

from __future__ import annotations

import importlib.metadata
from email.message import Message

import numpy as np
import pytest
from packaging.requirements import Requirement

from semi_nnunet.challenge import needs
from semi_nnunet.challenge.needs import distributions_of, licence_of, needed, requirements_of
from semi_nnunet.util.errors import UserError


@pytest.mark.slow
def test_a_prediction_needs_no_training_tools(root, monkeypatch):
    modules = needs.imported(root)
    assert "nnunetv2.training.nnUNetTrainer.nnUNetTrainer" not in modules
    monkeypatch.setattr(needs, "imported", lambda _: modules)
    found = needed(root, cuda=False, ending=".nii.gz")
    assert {"nnunetv2", "numpy", "simpleitk", "torch", "sympy"} <= {*found}
    idle = {"matplotlib", "scikit-learn", "seaborn", "timm", "triton", "imagecodecs", "pytest"}
    assert not (idle | {"semi-nnunet", "pip"}) & {*found}
    assert not [name for name in found if name.startswith(("nvidia", "cuda"))]
    assert found["torch"].endswith("+cpu") and found["numpy"] == np.__version__
    with_gpu = needed(root, cuda=True, ending=".tif")
    assert with_gpu["torch"] == importlib.metadata.version("torch")
    has_cuda = any("nvidia" in line for line in importlib.metadata.requires("torch") or [])
    assert has_cuda == any(name.startswith("nvidia-cudnn") for name in with_gpu)
    assert ("imagecodecs" in with_gpu) == ("imagecodecs" in distributions_of(modules))


def test_a_model_that_does_not_predict_is_told_before_wheels_are_fetched(root):
    (root / "submission.json").unlink()
    with pytest.raises(UserError, match=r"must predict a made-up image here, got: .*submission"):
        needed(root, cuda=False, ending=".nii.gz")


def test_files_are_of_the_packages_that_list_them():
    import packaging.version

    found = {"numpy.linalg": np.__file__, "packaging.version": packaging.version.__file__}
    assert distributions_of(found) == {"numpy", "packaging"}
    assert distributions_of({"numpy": "/elsewhere/numpy.py", "os": "/usr/lib/os.py"}) == set()


def test_requirements_are_followed_through_extras_and_markers(tmp_path, monkeypatch):
    for name, lines in {
        "one": ["two[more]", 'never; sys_platform == "win32"', 'not-asked; extra == "x"'],
        "two": ['three; extra == "more"', "one"],
        "three": ["absent"],
    }.items():
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        wanted = "".join(f"Requires-Dist: {line}\n" for line in lines)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{wanted}"
        (folder / "METADATA").write_text(about)
    monkeypatch.syspath_prepend(tmp_path)
    assert requirements_of("one") == {"one", "two", "three"}
    assert not needs.is_asked(Requirement('a; platform_machine == "arm64"'), ())


def test_licences_are_told_in_a_few_words():
    assert licence_of("numpy") != "?" and "\n" not in licence_of("numpy")
    assert licence_of("no-such-package") == "?"


def test_licences_are_told_where_a_backport_reads_the_metadata(monkeypatch):
    """It takes the place of importlib.metadata once anything imports it, as MLflow does."""

    class Strict(Message):
        def __getitem__(self, key):
            if key not in self:
                raise KeyError(key)
            return super().__getitem__(key)

    about = Strict()
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: about)
    assert licence_of("any") == "see its wheel"
    about["License"] = "MIT"
    assert licence_of("any") == "MIT"
