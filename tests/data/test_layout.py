"""Names and places of files and data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semi_nnunet.preprocessing.manifest import get_manifest_file, get_shards_folder
from semi_nnunet.raw.layout import (
    find_raw_dataset,
    get_preprocessed_dataset,
    get_unlabelled_folder,
    name_new_dataset,
    require_paths,
    resolve_dataset_name,
    was_dataset_made,
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


def test_files_next_to_a_folder_of_cases_have_its_name() -> None:
    cases = get_unlabelled_folder("/p/Dataset042_Hearts", "nnUNetPlans_2d")
    assert cases == Path("/p/Dataset042_Hearts/nnUNetPlans_2d_unlabeled")
    assert get_manifest_file(cases) == Path(f"{cases}.manifest.jsonl")
    assert get_shards_folder(cases) == Path(f"{cases}.parts")
    dotted = Path("/p/nnUNetPlans_2d_1.5")  # a spacing may stand in a name
    assert get_manifest_file(dotted).name == "nnUNetPlans_2d_1.5.manifest.jsonl"


# ---- nnU-Net's three folders ----


def test_all_wrong_variables_are_named_together(
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
    assert "is not set. Fix: export" in str(caught.value)
    assert not (root / "nowhere").exists()


def test_only_required_folders_are_checked_and_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_results")
    require_paths("raw", "preprocessed")
    assert (root / "nnUNet_preprocessed").is_dir() and not (root / "nnUNet_results").exists()


def test_an_unexpanded_home_folder_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("nnUNet_results", "~/results")
    with pytest.raises(UserError, match=r"nnUNet_results=~/results: must not .*~"):
        require_paths()
    assert not (root / "~").exists()


def test_one_folder_for_raw_and_preprocessed_data_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", f"{root}/./nnUNet_raw/")
    with pytest.raises(UserError, match="another folder than nnUNet_raw"):
        require_paths("raw", "preprocessed")


# ---- data sets by number and name ----


@pytest.mark.parametrize("given", ["42", "042", "Dataset042_Hearts"])
def test_a_data_set_is_found_by_its_number_or_name(root: Path, given: str) -> None:
    assert resolve_dataset_name(given) == "Dataset042_Hearts"
    assert find_raw_dataset(given) == root / "nnUNet_raw/Dataset042_Hearts"
    assert get_preprocessed_dataset(given) == root / "nnUNet_preprocessed/Dataset042_Hearts"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("Hearts", "got 'Hearts'. Fix: .*-d 42"),
        ("43", "number 43, found none .*Fix: .*Dataset043_SOMETHING"),
        ("Dataset043_Livers", "Dataset043_Livers does not exist. Fix: put"),
    ],
)
def test_a_missing_data_set_is_named(root: Path, given: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_raw_dataset(given)


def test_two_data_sets_with_one_number_are_both_named(root: Path) -> None:
    (root / "nnUNet_preprocessed/Dataset042_Livers").mkdir(parents=True)
    with pytest.raises(UserError, match=r"found several: .*Dataset042_Livers"):
        resolve_dataset_name("42")
    assert find_raw_dataset("Dataset042_Hearts").is_dir()


# ---- data sets that are to be made ----


def test_all_problems_of_a_new_data_set_are_named(root: Path) -> None:
    raw = root / "nnUNet_raw"
    with pytest.raises(UserError) as caught:
        name_new_dataset(raw, 1000, "a\\b")
    assert [problem.where for problem in caught.value.problems] == ["--new-id", "--new-name"]
    with pytest.raises(UserError, match=r"42 is taken by Dataset042_Hearts\. Fix: choose another"):
        name_new_dataset(raw, 42, "Livers")
    assert name_new_dataset(raw, 42, "Hearts") == raw / "Dataset042_Hearts"  # perhaps made before
    assert name_new_dataset(raw, 7, "Livers") == raw / "Dataset007_Livers"
    assert [path.name for path in raw.iterdir()] == ["Dataset042_Hearts"]


def test_a_data_set_with_the_same_record_was_made_before(root: Path) -> None:
    target, record = root / "nnUNet_raw/Dataset042_Hearts", {"labelled": ["a"]}
    assert not was_dataset_made(target.with_name("Dataset043_Livers"), "made.json", record)
    with pytest.raises(UserError, match="was not made"):
        was_dataset_made(target, "made.json", record)
    (target / "made.json").write_text(json.dumps(record))
    assert was_dataset_made(target, "made.json", record)
    with pytest.raises(UserError, match="exists already"):
        was_dataset_made(target, "made.json", {"labelled": ["b"]})


# ---- numbers ----


@pytest.mark.parametrize("name", ["1234", "Dataset1234_Dust", "Dataset12_X", "Dataset042", "1000"])
def test_a_number_without_three_digits_is_refused_at_once(root: Path, name: str) -> None:
    (root / "nnUNet_raw/Dataset1234_Dust").mkdir()
    with pytest.raises(UserError, match=r"001 to 999|from 1 to 999"):
        resolve_dataset_name(name)


def test_a_name_with_four_digits_is_not_taken_for_one_with_three(root: Path) -> None:
    (root / "nnUNet_raw/Dataset0421_Dust").mkdir()
    with pytest.raises(UserError, match=r"three digits .* got Dataset0421_Dust.*rename"):
        resolve_dataset_name("42")
    assert resolve_dataset_name("Dataset042_Hearts") == "Dataset042_Hearts"
