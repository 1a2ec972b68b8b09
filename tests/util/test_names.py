"""Names and numbers from a user."""

from __future__ import annotations

import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import (
    below_one,
    find_name_defect,
    list_first,
    require_positive,
    unique,
    unknown,
)

KNOWN = {"2d": 1, "3d_fullres": 2, "3d_lowres": 3}


def test_duplicates_are_removed_and_the_order_is_kept() -> None:
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
    assert unique([]) == []


@pytest.mark.parametrize(
    "count, text", [(4, "a, b, c"), (3, "a, b, c"), (2, "a, b and 1 more"), (1, "a and 2 more")]
)
def test_long_lists_are_cut_and_counted(count: int, text: str) -> None:
    assert list_first(["a", "b", "c"], count) == text
    assert list_first({"a": 1, "b": 2, "c": 3}, count) == text
    assert list_first([], count) == ""


def test_unknown_names_are_reported_with_the_nearest_known_one() -> None:
    problems = list(unknown("configuration", ["2d", "3d_fulres", "qqqq"], KNOWN))
    assert [str(problem) for problem in problems] == [
        "configuration '3d_fulres': does not exist. Fix: did you mean '3d_fullres'?",
        "configuration 'qqqq': does not exist. Fix: choose from 2d, 3d_fullres, 3d_lowres",
    ]


def test_the_fix_is_to_leave_a_name_out_if_nothing_is_known() -> None:
    (problem,) = unknown("case", ["a"], [], "was never trained")
    assert (problem.what, problem.fix) == ("was never trained", "leave it out, there is none")
    assert list(unknown("case", [], [])) == []


def test_numbers_below_one_are_reported_and_missing_ones_are_fine() -> None:
    options = {"-np": 0, "--jobs": None, "--shards": -3, "--seeds": 1}
    assert [(problem.where, problem.what) for problem in below_one(options)] == [
        ("-np", "must be 1 or more, got 0"),
        ("--shards", "must be 1 or more, got -3"),
    ]
    require_positive({"--jobs": None, "--seeds": 1})
    with pytest.raises(UserError, match=r"^-np must be 1 or more, got 0"):
        require_positive(options)


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31m", "\u202egnp.exe", "a\u200bb", "-rf", "ä" * 101]
)
def test_names_that_deceive_readers_or_shells_have_a_defect(name: str) -> None:
    assert find_name_defect(name)


@pytest.mark.parametrize("name", ["left atrium", "Prostata_größe", "a-b", "子宮"])
def test_usual_names_have_no_defect(name: str) -> None:
    assert find_name_defect(name) is None
