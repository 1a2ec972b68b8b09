"""``import semi_nnunet`` offers the verbs as functions, and is fast."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import semi_nnunet
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.util.errors import UserError
from tests.conftest import SHAPE, no_processes

PACKAGE = Path(semi_nnunet.__file__).parent
TINY = {
    "epochs": 1, "steps_per_epoch": 2, "validation_steps_per_epoch": 1, "labelled_batch_size": 2,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", semi_nnunet.__all__)
def test_every_name_resolves_with_a_docstring_and_full_type_hints(name: str) -> None:
    offered = getattr(semi_nnunet, name)
    assert offered.__name__ == name and len(inspect.getdoc(offered) or "") > 60
    assert name in dir(semi_nnunet)
    if inspect.isclass(offered):
        assert not dataclasses.is_dataclass(offered) or typing.get_type_hints(offered)
        return
    parameters = inspect.signature(offered).parameters
    assert set(offered.__annotations__) == {*parameters, "return"}
    text = inspect.getdoc(offered) or ""
    for heading in ("Args:", "Returns:", "Raises:"):
        assert heading in text
    for parameter in parameters:
        assert f"{parameter}:" in text, parameter


def test_no_name_hides_a_package_or_module() -> None:
    inside = {path.stem for path in PACKAGE.iterdir()}
    assert inside.isdisjoint(semi_nnunet.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        semi_nnunet.trian  # noqa: B018


def test_importing_it_imports_neither_torch_nor_nnunet() -> None:
    code = "import sys, semi_nnunet; dir(semi_nnunet)\n"
    code += "print(sorted({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_from_a_data_set_to_its_dice_in_ten_lines(
    nnunet_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    raw = nnunet_folders / "raw" / "Dataset909_FrontDoor"
    write_phantom_dataset(raw, labelled=3, unlabelled=2, test=2, shape=SHAPE)
    with no_processes():
        ready = semi_nnunet.preprocess("909", ["2d"], processes=1)
    assert ready and ready.counts == {"2d": (3, 2)}
    planned = semi_nnunet.plan("909", budget="cpu", patch=[32, 32], settings=TINY)
    fold = semi_nnunet.train("909", "2d", "all", plans=planned.name, device="cpu")
    files = semi_nnunet.predict(fold, raw / "imagesTs", tmp_path / "out", device="cpu")
    assert [path.name for path in files] == sorted(p.name for p in (raw / "labelsTs").iterdir())
    measured = semi_nnunet.evaluate(tmp_path / "out", raw / "labelsTs", processes=1)
    assert measured.cases == 2 and 0 <= measured.content["foreground_mean"]["dice"] <= 1

    image = sitk.ReadImage(str(min((raw / "imagesTs").iterdir())))
    arrays, spacings = [sitk.GetArrayFromImage(image)[None]], [image.GetSpacing()[::-1]]
    (labels,) = semi_nnunet.predict(str(fold), arrays, spacings=spacings, device="cpu")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(files[0])))
    assert np.array_equal(labels, written)


def test_mistakes_are_reported_before_anything_is_trained_or_predicted(phantom, tmp_path) -> None:
    with pytest.raises(UserError, match="did you mean 'SemiMeanTeacherTrainer'"):
        semi_nnunet.train(phantom.name, "2d", 0, "SemiMeanTeecherTrainer", device="cpu")
    with pytest.raises(UserError, match="fold '7': there are 5 folds"):
        semi_nnunet.train(phantom.name, "2d", 7, device="cpu")
    with pytest.raises(UserError, match="no trained model"):
        semi_nnunet.predict(tmp_path, phantom.raw / "imagesTs", tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'acdc'"):
        semi_nnunet.convert("acd", tmp_path, 700)
    with pytest.raises(UserError, match=r"options\.target: is missing"):
        semi_nnunet.convert("mmwhs", tmp_path, 700)
    with pytest.raises(UserError, match="did you mean 'seed'"):
        semi_nnunet.convert("mmwhs", tmp_path, 700, target="mr", sed=1)
