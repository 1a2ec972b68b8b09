"""Files are found in any folder; missing and unexpected ones are reported together."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.datasets.source import DownloadFolder, draw_test_cases, shuffle_names
from semi_nnunet.util.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        *("a/img01.nii.gz", "b/c/img02.nii.gz", "a/label01.nii.gz", "a/.img03.nii.gz"),
        *("__MACOSX/img04.nii.gz", "README.txt", "a/desktop.ini", "test/img91.nii.gz"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def find(source: DownloadFolder) -> dict[str, dict[str, Path]]:
    return source.find(
        (".nii.gz",),
        image=r"img(?P<id>0\d)\.nii\.gz",
        label=r"label(?P<id>\d\d)\.nii\.gz",
        test=r"img9\d\.nii\.gz",
    )


def test_files_are_sorted_by_kind_and_case(root: Path) -> None:
    source = DownloadFolder(root, "Toy")
    files = find(source)
    assert list(files["image"]) == ["01", "02"] and list(files["label"]) == ["01"]
    assert files["image"]["02"] == root / "b/c/img02.nii.gz"
    assert files["test"] == {}
    source.raise_problems()


def test_files_whose_ending_has_capitals_are_named(root: Path) -> None:
    (root / "a" / "img05.NII.GZ").touch()
    source = DownloadFolder(root, "Toy")
    assert "05" not in find(source)["image"]
    with pytest.raises(UserError, match=r"img05\.NII\.GZ.*small letters"):
        source.raise_problems()


def test_folders_behind_links_are_searched_once(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep").mkdir()
    (elsewhere / "deep/label02.nii.gz").write_text("")
    for name, target in (
        *(("0_again", root / "a"), ("a/up", root), ("a/top", root.parent)),
        *(("linked", elsewhere), ("twice", elsewhere), ("deep", elsewhere / "deep")),
    ):
        (root / name).symlink_to(target)
    (elsewhere / "deep/round").symlink_to(elsewhere)
    source = DownloadFolder(root, "Toy")
    files = find(source)
    source.raise_problems()
    assert files["image"]["01"] == root / "a/img01.nii.gz"
    assert files["label"] == {
        **{"01": root / "a/label01.nii.gz", "02": root / "deep/label02.nii.gz"}
    }


def test_every_problem_is_in_one_error(root: Path) -> None:
    (root / "a/scan.nii.gz").write_text("")
    (root / "b/img01.nii.gz").write_text("")
    source = DownloadFolder(root, "Toy")
    files = find(source)
    source.require_pairs(files["image"], files["label"], "img{}.nii.gz", "label{}.nii.gz")
    source.require_number(2, 3, "images", incomplete=False)
    with pytest.raises(UserError) as error:
        source.raise_problems()
    assert [problem.where for problem in error.value.problems] == [
        *("a/scan.nii.gz", "b/img01.nii.gz", "label02.nii.gz", "Toy: images")
    ]
    assert "of 01, next to a/img01.nii.gz" in str(error.value)
    assert "there must be 3, got 2" in str(error.value)


def test_a_data_set_may_be_incomplete_but_not_empty(root: Path) -> None:
    source = DownloadFolder(root, "Toy")
    source.require_number(2, 3, "images", incomplete=True)
    assert source.problems == []
    source.require_number(0, 3, "images", incomplete=True)
    assert len(source.problems) == 1


def test_a_source_that_is_no_folder_is_reported(root: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        DownloadFolder(root / "README.txt", "Toy")


def test_a_random_choice_depends_only_on_names_and_seed() -> None:
    names = [f"case_{i}" for i in range(20)]
    assert shuffle_names(names, 1) == shuffle_names(reversed(names), 1) != shuffle_names(names, 2)
    assert draw_test_cases(names, 5, 1, "--test") == set(shuffle_names(names, 1)[:5])
    with pytest.raises(UserError, match=r"--test must be between 1 and 19, got 20\. Fix: lower"):
        draw_test_cases(names, 20, 1, "--test")
    with pytest.raises(UserError, match=r"got 0\. Fix: raise --test-percent$"):
        draw_test_cases(names, 0, 1, "--test-percent: the number of test cases")
    with pytest.raises(UserError, match="Fix: complete the download"):
        draw_test_cases(names[:1], 1, 1, "--test")
