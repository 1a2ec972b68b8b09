"""Settings on a command line become layers of plans, and back."""

from __future__ import annotations

import pytest

from semi_nnunet.settings.assignments import assignment_of, parse_assignments
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
def test_what_is_written_is_what_is_read(value) -> None:
    assert parse_assignments([assignment_of("2d.key", value)]) == {"2d": {"key": value}}


@pytest.mark.parametrize(
    ("words", "message"),
    [(["seed"], "wants KEY=VALUE"), (["seed=1", "seed.2d=3"], "'seed' a value and")],
)
def test_what_is_no_assignment_is_said(words, message) -> None:
    with pytest.raises(UserError, match=message):
        parse_assignments(words)
