"""Names and numbers that a user gives."""

from __future__ import annotations

import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import below_one, require_positive, unique, unknown

KNOWN = {"2d": 1, "3d_fullres": 2, "3d_lowres": 3}


def test_each_name_stays_once_in_the_order_given() -> None:
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
    assert unique([]) == []


def test_names_that_nobody_knows_are_named_each_with_the_nearest() -> None:
    found = list(unknown("configuration", ["2d", "3d_fulres", "qqqq"], KNOWN))
    assert [str(problem) for problem in found] == [
        "configuration '3d_fulres': does not exist. Fix: did you mean '3d_fullres'?",
        "configuration 'qqqq': does not exist. Fix: choose from 2d, 3d_fullres, 3d_lowres",
    ]


def test_where_there_is_none_the_fix_is_to_leave_it_out() -> None:
    (problem,) = unknown("case", ["a"], [], "was never trained")
    assert (problem.what, problem.fix) == ("was never trained", "leave it out, there is none")
    assert list(unknown("case", [], [])) == []


def test_numbers_below_one_are_named_and_what_was_not_given_is_fine() -> None:
    options = {"-np": 0, "--jobs": None, "--shards": -3, "--seeds": 1}
    assert [(problem.where, problem.what) for problem in below_one(options)] == [
        ("-np", "must be 1 or more, got 0"),
        ("--shards", "must be 1 or more, got -3"),
    ]
    require_positive({"--jobs": None, "--seeds": 1})
    with pytest.raises(UserError, match=r"^-np must be 1 or more, got 0\. Fix: correct it$"):
        require_positive(options)
