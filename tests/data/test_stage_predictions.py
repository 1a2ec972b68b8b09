"""Missing predictions of a cascade's first stage are named before a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semi_nnunet.loading.stage_predictions import (
    find_missing_predictions,
    find_outdated_predictions,
    list_never_validated,
    predicts_unlabelled,
    require_predictions,
)
from semi_nnunet.util.errors import UserError


def test_a_single_stage_needs_no_predictions() -> None:
    assert find_missing_predictions(None, ["a", "b"]) == []
    require_predictions(None, ["a"], "cases", "train")


def test_cases_without_a_prediction_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.b2nd").touch()
    (tmp_path / "b.b2nd.tmp").touch()
    assert find_missing_predictions(str(tmp_path), ["a", "b", "c"]) == ["b", "c"]
    assert find_missing_predictions(str(tmp_path / "absent"), ["a"]) == ["a"]


def test_missing_predictions_are_reported_with_their_command(tmp_path: Path) -> None:
    cases = [f"case_{number:02d}" for number in range(12)]
    command = "nnUNetv2_train 1 3d_lowres all"
    with pytest.raises(UserError, match="12 cases: case_00") as error:
        require_predictions(str(tmp_path), cases, tmp_path / "cases", command)
    assert "case_09" in error.value.what and "case_10" not in error.value.what
    assert error.value.fix == command


def test_predictions_of_earlier_images_are_found(tmp_path: Path) -> None:
    predictions = str(tmp_path / "predicted_next_stage/3d_cascade_fullres")
    for fold, images in ((0, {"a": "1", "b": "1"}), (1, {"b": "2", "c": "3"})):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}/semi_stage_images.json").write_text(json.dumps(images))
    now = {"a": "1", "b": "2", "c": "4", "of_stock_nnunet": "5"}
    assert find_outdated_predictions(predictions, now) == ["c"]
    assert find_outdated_predictions(None, now) == []


def test_only_one_fold_predicts_the_unlabelled_cases() -> None:
    assert [fold for fold in (0, 1, 4, "all") if predicts_unlabelled(fold)] == [0, "all"]


def test_pseudo_labelled_cases_are_in_no_validation(tmp_path: Path) -> None:
    assert list_never_validated(tmp_path, 0) == []
    (tmp_path / "dataset.json").write_text(json.dumps({"pseudo_labelled": ["b", "a"]}))
    assert list_never_validated(tmp_path, "all") == []
