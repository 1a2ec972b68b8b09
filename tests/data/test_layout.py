"""Where things are, and what is said where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semi_nnunet.data.layout import (
    dataset_name,
    is_plans,
    manifest_file,
    new_raw_dataset,
    preprocessed_dataset,
    raw_dataset,
    read_plans,
    require_paths,
    shards_folder,
    unlabelled_folder,
    was_made,
)
from semi_nnunet.util.errors import UserError

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, of which raw holds the data set 42."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "nnUNet_raw/Dataset042_Hearts").mkdir(parents=True)
    return tmp_path


def test_what_lies_beside_a_folder_of_cases_has_its_name_and_no_other_folders() -> None:
    cases = unlabelled_folder("/p/Dataset042_Hearts", "nnUNetPlans_2d")
    assert cases == Path("/p/Dataset042_Hearts/nnUNetPlans_2d_unlabeled")
    assert manifest_file(cases) == Path(f"{cases}.manifest.jsonl")
    assert shards_folder(cases) == Path(f"{cases}.parts")
    dotted = Path("/p/nnUNetPlans_2d_1.5")  # a spacing may stand in a name
    assert manifest_file(dotted).name == "nnUNetPlans_2d_1.5.manifest.jsonl"


# ---- nnU-Net's three folders ----


def test_all_variables_that_are_wrong_are_named_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(root / "nowhere"))
    (root / "file").write_text("")
    monkeypatch.setenv("nnUNet_preprocessed", str(root / "file"))
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(UserError) as caught:
        require_paths()
    assert [problem.where for problem in caught.value.problems] == [
        f"nnUNet_raw={root / 'nowhere'}",
        f"nnUNet_preprocessed={root / 'file'}",
        "nnUNet_results",
    ]
    assert "nnUNet_results: the environment variable is not set. Fix: export" in str(caught.value)
    assert not (root / "nowhere").exists()


def test_only_the_folders_that_are_needed_are_asked_for_and_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_results")
    require_paths("raw", "preprocessed")
    assert (root / "nnUNet_preprocessed").is_dir() and not (root / "nnUNet_results").exists()


def test_a_home_folder_that_no_shell_wrote_out_is_named_and_not_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("nnUNet_results", "~/results")
    with pytest.raises(UserError, match="nnUNet_results=~/results: must not begin with ~"):
        require_paths()
    assert not (root / "~").exists()


def test_raw_and_preprocessed_data_sets_lie_in_two_folders(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", f"{root}/./nnUNet_raw/")
    with pytest.raises(UserError, match="must be another folder than nnUNet_raw"):
        require_paths("raw", "preprocessed")


# ---- data sets by number and name ----


@pytest.mark.parametrize("given", ["42", "042", "Dataset042_Hearts"])
def test_a_data_set_is_found_by_its_number_or_name(root: Path, given: str) -> None:
    assert dataset_name(given) == "Dataset042_Hearts"
    assert raw_dataset(given) == root / "nnUNet_raw/Dataset042_Hearts"
    assert preprocessed_dataset(given) == root / "nnUNet_preprocessed/Dataset042_Hearts"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("Hearts", "by its number or its full name, got 'Hearts'. Fix: for example -d 42"),
        ("43", "must have the number 43, found none .*Fix: name the folder Dataset043_SOMETHING"),
        ("Dataset043_Livers", "Dataset043_Livers does not exist. Fix: put the data set there"),
    ],
)
def test_a_data_set_that_is_not_there_is_named(root: Path, given: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        raw_dataset(given)


def test_two_data_sets_of_one_number_are_both_named(root: Path) -> None:
    (root / "nnUNet_preprocessed/Dataset042_Livers").mkdir(parents=True)
    with pytest.raises(UserError, match=r"found several: .*Dataset042_Livers"):
        dataset_name("42")
    assert raw_dataset("Dataset042_Hearts").is_dir()


# ---- data sets that are to be made ----


def test_all_that_is_wrong_with_a_new_data_set_is_named(root: Path) -> None:
    raw = root / "nnUNet_raw"
    with pytest.raises(UserError) as caught:
        new_raw_dataset(raw, 1000, "a\\b", option="--id")
    assert [problem.where for problem in caught.value.problems] == ["--id", "--name"]
    with pytest.raises(UserError, match=r"42 is taken by Dataset042_Hearts\. Fix: choose another"):
        new_raw_dataset(raw, 42, "Livers")
    assert new_raw_dataset(raw, 42, "Hearts") == raw / "Dataset042_Hearts"  # perhaps made before
    assert new_raw_dataset(raw, 7, "Livers") == raw / "Dataset007_Livers"
    assert [path.name for path in raw.iterdir()] == ["Dataset042_Hearts"]


def test_a_data_set_was_made_where_its_record_is_the_same(root: Path) -> None:
    target, record = root / "nnUNet_raw/Dataset042_Hearts", {"labelled": ["a"]}
    assert not was_made(target.with_name("Dataset043_Livers"), "made.json", record)
    with pytest.raises(UserError, match="exists already and was not made by this command"):
        was_made(target, "made.json", record)
    (target / "made.json").write_text(json.dumps(record))
    assert was_made(target, "made.json", record)
    with pytest.raises(UserError, match="exists already"):
        was_made(target, "made.json", {"labelled": ["b"]})


# ---- plans ----


def test_plans_that_are_not_there_are_answered_by_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"Fix: semi_nnunet preprocess -d {tmp_path.name} first"):
        read_plans(tmp_path, "nnUNetPlans")
    (tmp_path / "nnUNetPlans.json").write_text('{"plans_name": "nnUNetPlans"}')
    (tmp_path / "splits_final.json").write_text("[]")
    assert read_plans(tmp_path, "nnUNetPlans") == {"plans_name": "nnUNetPlans"}
    assert not is_plans(tmp_path / "splits_final.json")
    with pytest.raises(UserError, match=r"Plan.json does not exist. Fix: choose -p from nnUNetPl"):
        read_plans(tmp_path, "nnUNetPlan")
    with pytest.raises(UserError, match=r"splits_final.json holds no plans. Fix: .* nnUNetPlans$"):
        read_plans(tmp_path, "splits_final")
