"""Files are found wherever they lie; what is missing or unexpected is reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.datasets.source import Source, held_out, shuffled
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


def find(source: Source) -> dict[str, dict[str, Path]]:
    return source.find(
        (".nii.gz",),
        image=r"img(?P<id>0\d)\.nii\.gz",
        label=r"label(?P<id>\d\d)\.nii\.gz",
        test=r"img9\d\.nii\.gz",
    )


def test_files_are_sorted_by_kind_and_case(root: Path) -> None:
    source = Source(root, "Toy")
    found = find(source)
    assert list(found["image"]) == ["01", "02"] and list(found["label"]) == ["01"]
    assert found["image"]["02"] == root / "b/c/img02.nii.gz"
    assert found["test"] == {}
    source.check()


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
    source = Source(root, "Toy")
    found = find(source)
    source.check()
    assert found["image"]["01"] == root / "a/img01.nii.gz"
    assert found["label"] == {
        **{"01": root / "a/label01.nii.gz", "02": root / "deep/label02.nii.gz"}
    }


def test_every_problem_is_in_one_error(root: Path) -> None:
    (root / "a/scan.nii.gz").write_text("")
    (root / "b/img01.nii.gz").write_text("")
    source = Source(root, "Toy")
    found = find(source)
    source.need_pairs(found["image"], found["label"], "img{}.nii.gz", "label{}.nii.gz")
    source.need_number(2, 3, "images", incomplete=False)
    with pytest.raises(UserError) as error:
        source.check()
    assert [problem.where for problem in error.value.problems] == [
        *("a/scan.nii.gz", "b/img01.nii.gz", "label02.nii.gz", "Toy: images")
    ]
    assert "is a second file of 01, beside a/img01.nii.gz" in str(error.value)
    assert "there must be 3, found 2" in str(error.value)


def test_an_incomplete_set_may_be_wanted_but_not_an_empty_one(root: Path) -> None:
    source = Source(root, "Toy")
    source.need_number(2, 3, "images", incomplete=True)
    assert source.problems == []
    source.need_number(0, 3, "images", incomplete=True)
    assert len(source.problems) == 1


def test_a_source_that_is_no_folder_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        Source(root / "README.txt", "Toy")


def test_a_random_choice_depends_on_names_and_seed_alone() -> None:
    names = [f"case_{i}" for i in range(20)]
    assert shuffled(names, 1) == shuffled(reversed(names), 1) != shuffled(names, 2)
    assert held_out(names, 5, 1, "--test") == set(shuffled(names, 1)[:5])
    with pytest.raises(UserError, match=r"--test must be between 1 and 19, got 20\. Fix: a smal"):
        held_out(names, 20, 1, "--test")
    with pytest.raises(UserError, match=r"got 0\. Fix: a larger --test-percent$"):
        held_out(names, 0, 1, "--test-percent: the number of test cases")
    with pytest.raises(UserError, match="Fix: complete the download"):
        held_out(names[:1], 1, 1, "--test")
