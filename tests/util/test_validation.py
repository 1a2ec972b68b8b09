"""Types of values from users are strict, so that nothing is converted silently."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.util.validation import fits, read_as


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
def test_values_fit_their_type_without_conversion(hint: Any, value: Any, expected: bool) -> None:
    assert fits(hint, value) is expected


@dataclass(frozen=True)
class Inner:
    number: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]


def test_a_dataclass_is_read_from_the_json_that_it_was_written_to(tmp_path: Path) -> None:
    path, outer = tmp_path / "outer.json", Outer("a", (Inner(1.5), Inner(2.0)))
    write_json(path, asdict(outer))
    assert read_as(Outer, path, "a command", "write it") == outer
    for content in ({"name": "a"}, [], {"name": "a", "inner": [{"number": "many"}]}):
        write_json(path, content)
        with pytest.raises(UserError, match=r"outer\.json .* a command"):
            read_as(Outer, path, "a command", "write it")
