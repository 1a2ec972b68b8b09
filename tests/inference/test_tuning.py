"""Mirrored images are averaged where validation cases say that they are worth it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.mirrors import Mirrors, mirrors_of
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.predict import predict
from semi_nnunet.inference.tuning import tune
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from tests.pseudo_labels.labelling import read


@pytest.fixture
def model(pool) -> TrainedModel:
    for path in sorted(pool.images.iterdir())[1:]:
        path.unlink()
    return pool.models[0]


def test_every_set_of_axes_is_tried_on_the_cases_that_validate_the_fold(model, capsys) -> None:
    assert main(["tune", "-m", str(model.folder), "--device", "cpu", "--lose", "100"]) == 0
    said = capsys.readouterr().out
    found = mirrors_of(model.folder)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / model.folder.parent.name
    validated = read_json(preprocessed / "splits_final.json")[0]["val"]
    assert [one.axes for one in found.tried] == [(), (0,), (1,), (0, 1)]
    assert (found.axes, found.folds, found.cases) == ((), ("0",), len(validated))
    assert all(0 <= one.dice <= 1 and one.seconds > 0 for one in found.tried)
    assert said.count(" passes, Dice ") == 4
    again = tune(model.folder, device="cpu")  # the choice that is there now does not count
    assert [one.dice for one in again.tried] == [one.dice for one in found.tried]
    assert len({one.dice for one in again.tried}) > 1
    assert f"mirrored from now on: nothing, as {len(validated)} validation cases say" in said


def test_predictions_take_the_axes_that_were_chosen_unless_told(model, pool, tmp_path) -> None:
    def labels(name: str, **options: object) -> np.ndarray:
        (file,) = predict(model.folder, pool.images, tmp_path / name, device="cpu", **options)
        return read(file)

    plain, mirrored = labels("plain", mirror=False), labels("mirrored")
    assert not np.array_equal(plain, mirrored)
    Mirrors((), (), ("0",), 1, 0.001).write(model.folder)
    assert np.array_equal(labels("tuned"), plain)
    assert np.array_equal(labels("told", mirror=True), mirrored)
    exact = labels("exact", speed="exact")
    (model.folder / "semi_mirrors.json").unlink()
    assert np.array_equal(labels("again", speed="exact"), exact)


@pytest.mark.parametrize(
    ("folds", "trained", "says"),
    [
        (["3"], "fold_0", "asked for 3, and .* has 0. Fix: choose from 0"),
        (None, "fold_all", "asked for all, and .* has all"),
    ],
)
def test_a_choice_needs_validation_cases(folds, trained, says, model) -> None:
    (model.folder / "fold_0").rename(model.folder / trained)
    with pytest.raises(UserError, match=says):
        tune(model.folder, folds=folds, device="cpu")


def test_all_mistakes_are_told_before_anything_is_predicted(model, capsys) -> None:
    for lose in ("nan", "-3", "101"):
        words = ["tune", "-m", str(model.folder), "-f", "7", "--lose", lose, "--device", "cpu"]
        assert main(words) == 2
        told = capsys.readouterr().err
        assert f"--lose: must be from 0 to 100 points of Dice, got {lose}" in told
        assert "asked for 7" in told
    assert not (model.folder / "semi_mirrors.json").exists()
