"""Axes of mirrored images are chosen by validation cases."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.mirrors import MirrorChoice, load_mirror_choice
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.predict import predict_images
from semi_nnunet.inference.tuning import tune_mirror_axes
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
    output = capsys.readouterr().out
    choice = load_mirror_choice(model)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / model.folder.parent.name
    validated = read_json(preprocessed / "splits_final.json")[0]["val"]
    assert [tried.axes for tried in choice.tried] == [(), (0,), (1,), (0, 1)]
    assert (choice.axes, choice.folds, choice.cases) == ((), ("0",), len(validated))
    assert all(0 <= tried.dice <= 1 and tried.seconds > 0 for tried in choice.tried)
    assert output.count(" passes, Dice ") == 4
    again = tune_mirror_axes(
        model.folder, device="cpu"
    )  # the choice that is there now does not count
    assert [tried.dice for tried in again.tried] == [tried.dice for tried in choice.tried]
    assert len({tried.dice for tried in again.tried}) > 1
    assert "now on: nothing" in output


def test_predictions_use_the_chosen_axes_by_default(model, pool, tmp_path) -> None:
    def labels(name: str, **options: object) -> np.ndarray:
        (file,) = predict_images(
            model.folder, pool.images, tmp_path / name, device="cpu", **options
        )
        return read(file)

    plain, mirrored = labels("plain", mirror=False), labels("mirrored")
    assert not np.array_equal(plain, mirrored)
    MirrorChoice((), (), ("0",), 1, 0.001, model.checksums()).write(model.folder)
    assert np.array_equal(labels("tuned"), plain)
    assert np.array_equal(labels("all_axes", mirror=True), mirrored)
    exact = labels("exact", speed="exact")
    (model.folder / "semi_mirrors.json").unlink()
    assert np.array_equal(labels("again", speed="exact"), exact)


@pytest.mark.parametrize(
    ("folds", "trained", "keyword"),
    [
        (["3"], "fold_0", "asked for 3, .* choose from 0"),
        (None, "fold_all", "asked for all"),
    ],
)
def test_a_choice_needs_validation_cases(folds, trained, keyword, model) -> None:
    (model.folder / "fold_0").rename(model.folder / trained)
    with pytest.raises(UserError, match=keyword):
        tune_mirror_axes(model.folder, folds=folds, device="cpu")


def test_all_mistakes_are_reported_before_predicting(model, capsys) -> None:
    for lose in ("nan", "-3", "101"):
        words = ["tune", "-m", str(model.folder), "-f", "7", "--lose", lose, "--device", "cpu"]
        assert main(words) == 2
        errors = capsys.readouterr().err
        assert "--lose:" in errors and f"got {lose}" in errors
        assert "asked for 7" in errors
    assert not (model.folder / "semi_mirrors.json").exists()
