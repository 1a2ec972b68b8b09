"""The chosen axes are the cheapest that are good enough."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.deploy.mirrors import (
    FILE,
    MirrorChoice,
    TriedAxes,
    choose_axes,
    load_mirror_choice,
)
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

TRIED = [
    TriedAxes((), 0.890, 1.0), TriedAxes((0,), 0.8995, 2.0), TriedAxes((1,), 0.8991, 2.0),
    TriedAxes((0, 1), 0.900, 4.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lose", "axes"), [(0.0, (0, 1)), (0.0006, (0,)), (0.001, (0,)), (0.02, ())]
)
def test_the_fewest_passes_within_the_loss_are_chosen_then_the_best_dice(lose, axes) -> None:
    assert choose_axes(TRIED, lose).axes == axes
    assert choose_axes(TRIED[::-1], lose).axes == axes


def test_better_results_with_fewer_axes_are_always_chosen() -> None:
    assert choose_axes([*TRIED, TriedAxes((2,), 0.95, 2.0)], 0.0).axes == (2,)


def test_the_choice_is_stored_with_the_model_and_knows_its_weights(tmp_path: Path, caplog) -> None:
    model = TrainedModel(tmp_path, ("0", "1"))
    for fold, path in model.checkpoints.items():
        path.parent.mkdir()
        path.write_bytes(b"weights " + fold.encode())
    assert load_mirror_choice(model) is None
    choice = MirrorChoice((0,), tuple(TRIED), ("0", "1"), 7, 0.001, model.checksums())
    choice.write(tmp_path)
    assert load_mirror_choice(model) == choice
    shutil.rmtree(tmp_path / "fold_1")
    assert load_mirror_choice(replace(model, folds=("0",))) == choice
    assert not caplog.records
    model.checkpoints["0"].write_bytes(b"trained again")
    assert load_mirror_choice(replace(model, folds=("0",))) is None
    assert "semi_nnunet tune" in caplog.text


def test_a_choice_of_an_earlier_version_is_used(tmp_path: Path) -> None:
    choice = MirrorChoice((0,), tuple(TRIED), ("0",), 7, 0.001)
    choice.write(tmp_path)
    assert load_mirror_choice(TrainedModel(tmp_path, ())) == choice


def test_a_file_with_another_content_is_an_error(tmp_path: Path) -> None:
    write_json(tmp_path / FILE, {"axes": "all"})
    with pytest.raises(UserError, match="semi_nnunet tune"):
        load_mirror_choice(TrainedModel(tmp_path, ()))
