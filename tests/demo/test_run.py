"""The folders and variables of the demo, which does not run here as a whole."""

from pathlib import Path

import pytest

from semi_nnunet.demo.run import (
    DATASET,
    KEPT,
    MARKER,
    METHODS,
    NOT_KEPT,
    Demo,
    prepare_demo_folder,
    remove_entries,
    require_device,
)
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError


def test_a_folder_with_other_files_is_rejected_and_not_touched(tmp_path: Path):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(UserError, match="no demo wrote") as caught:
        prepare_demo_folder(tmp_path)
    assert "-o" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(UserError, match="is a file"):
        prepare_demo_folder(tmp_path / "results.json")


def test_an_earlier_demo_is_replaced_and_other_files_in_it_stay(tmp_path: Path):
    out = tmp_path / "new" / "demo"
    prepare_demo_folder(out)
    assert (out / MARKER).is_file()
    (out / "nnUNet_raw" / DATASET).mkdir(parents=True)
    (out / "nnUNet_results" / DATASET / "model").mkdir(parents=True)
    theirs = out / "nnUNet_results" / "Dataset042_Mine" / "checkpoint_final.pth"
    theirs.parent.mkdir()
    theirs.touch()
    (out / "results.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    prepare_demo_folder(out)
    left = {MARKER, "logs", "notes.txt", "nnUNet_results"}
    assert {path.name for path in out.iterdir()} == left
    assert theirs.is_file() and len([*(out / "nnUNet_results").iterdir()]) == 1


def test_only_results_are_kept(tmp_path: Path):
    prepare_demo_folder(tmp_path)
    for name in NOT_KEPT:
        (tmp_path / name).mkdir(parents=True)
    for name in KEPT[1:]:
        (tmp_path / name).touch()
    remove_entries(tmp_path, NOT_KEPT)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, *KEPT}


def test_a_missing_device_is_rejected():
    require_device("cpu")
    with pytest.raises(UserError, match="--device"):
        require_device("quantum")


def test_children_write_below_the_demo_and_the_user_variables_are_not_used(tmp_path: Path):
    environment = Demo(tmp_path).environment()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert Path(environment[name]).parent == tmp_path


def test_an_empty_field_of_the_history_is_omitted(tmp_path: Path):
    written = History([{"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 2.0, "b": 3.0}])
    written.write_csv(tmp_path / "semi_history.csv")
    assert History.read_csv(tmp_path / "semi_history.csv").rows == written.rows


def test_the_trainers_exist():
    from semi_nnunet.discovery.trainers import semi_nnunet_trainers

    assert set(METHODS.values()) <= set(semi_nnunet_trainers.__all__)
