"""Types of values that users give: strict, so that nothing is silently something else."""

from __future__ import annotations

from typing import Any

import pytest

from semi_nnunet.util.validation import fits


@pytest.mark.parametrize(
    "hint, value, expected",
    [
        (int, 1, True),
        (int, True, False),
        (int, 1.0, False),
        (float, 1, True),
        (float, True, False),
        (float, "1", False),
        (bool, 1, False),
        (str, 1, False),
        (tuple[float, ...] | None, [1, 2.5], True),
        (tuple[float, ...] | None, None, True),
        (tuple[int, ...], [1, True], False),
        (tuple[int, ...], "12", False),
        (dict[str, int], {"a": 1}, True),
        (dict[str, int], {"a": "1"}, False),
    ],
)
def test_only_what_a_type_says_fits_it(hint: Any, value: Any, expected: bool) -> None:
    assert fits(hint, value) is expected
