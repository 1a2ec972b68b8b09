"""Settings as words of a command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.settings.assignments import format_assignment, parse_assignments
from semi_nnunet.util.errors import UserError


def test_assignments_become_layers() -> None:
    words = ["seed=1", "2d.epochs=10", "T.2d.mirror=False", "optimizer=adam", "x=[1, 2]", "y=None"]
    assert parse_assignments(words) == {
        "seed": 1,
        "2d": {"epochs": 10},
        "T": {"2d": {"mirror": False}},
        "optimizer": "adam",
        "x": [1, 2],
        "y": None,
    }


@pytest.mark.parametrize("value", [1, 0.5, True, None, [1, 2], "adam"])
def test_a_formatted_value_is_parsed_back(value) -> None:
    assert parse_assignments([format_assignment("2d.key", value)]) == {"2d": {"key": value}}


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.int64(3), 3), (np.array([1, 2]), [1, 2]), (np.bool_(True), True), ([Path("a")], ["a"])],
)
def test_values_of_other_libraries_become_plain_ones(value, plain) -> None:
    assert parse_assignments([format_assignment("key", value)]) == {"key": plain}


@pytest.mark.parametrize(
    ("words", "key_word"),
    [
        (["seed"], "KEY=VALUE"), (["=3"], "KEY=VALUE"), (["2d..epochs=4"], "KEY=VALUE"),
        (["seed=1", "seed.2d=3"], "section"),
    ],
)  # fmt: skip
def test_other_words_are_refused(words, key_word) -> None:
    with pytest.raises(UserError, match=key_word):
        parse_assignments(words)


def test_a_section_keeps_what_other_words_give_it() -> None:
    words = ["2d.epochs=10", '2d={"steps_per_epoch": 5}', "2d.seed=1"]
    assert parse_assignments(words) == {"2d": {"epochs": 10, "steps_per_epoch": 5, "seed": 1}}


def test_the_earlier_name_of_a_setting_is_replaced() -> None:
    assert parse_assignments(["T.follow_trust=false"]) == {"T": {"follow_reliability": False}}
