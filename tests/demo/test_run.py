"""The demo's folders and variables; the whole demo is not run here."""

from pathlib import Path

import pytest

from semi_nnunet.demo.results import METHODS
from semi_nnunet.demo.run import (
    KEPT,
    MARKER,
    NOT_KEPT,
    Demo,
    check_device,
    prepare_folder,
    remove,
)
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(UserError, match="--out"):
        prepare_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(UserError, match="it is a file"):
        prepare_folder(tmp_path / "results.json")


def test_an_earlier_demo_is_replaced_and_other_files_in_it_stay(tmp_path: Path):
    out = tmp_path / "new" / "demo"
    prepare_folder(out)
    assert (out / MARKER).is_file()
    (out / "nnUNet_raw").mkdir()
    (out / "results.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    prepare_folder(out)
    assert {path.name for path in out.iterdir()} == {MARKER, "logs", "notes.txt"}


def test_what_is_not_kept_goes_and_the_rest_stays(tmp_path: Path):
    prepare_folder(tmp_path)
    for name in NOT_KEPT:
        (tmp_path / name).mkdir()
    for name in KEPT[1:]:
        (tmp_path / name).touch()
    remove(tmp_path, NOT_KEPT)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, *KEPT}


def test_a_device_that_is_not_there_is_refused():
    check_device("cpu")
    with pytest.raises(UserError, match="--device"):
        check_device("quantum")


def test_children_write_below_the_demo_and_the_user_variables_are_not_used(tmp_path: Path):
    environment = Demo(tmp_path).environment()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert Path(environment[name]).parent == tmp_path


def test_an_empty_field_of_the_history_is_left_out(tmp_path: Path):
    written = History([{"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 2.0, "b": 3.0}])
    written.write_csv(tmp_path / "semi_history.csv")
    assert History.read_csv(tmp_path / "semi_history.csv").rows == written.rows


def test_the_trainers_exist():
    from semi_nnunet.discovery.trainers import semi_nnunet_trainers

    assert set(METHODS.values()) <= set(semi_nnunet_trainers.__all__)
