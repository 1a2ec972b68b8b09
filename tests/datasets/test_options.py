"""Options of several converters: their defaults, ranges and help."""

from __future__ import annotations

from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.converters import CONVERTERS, find_broken_rule, list_converter_options
from semi_nnunet.datasets.options import Incomplete, Seed, Size, TestPercent
from tests.runs.parsing import parse_command

COMMAND = ["semi_nnunet", "convert", "kvasir", "SRC", "--new-id", "7"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"seed": 0, "size": None, "test_percent": 20, "incomplete": False}),
        (["--seed", "7", "--size", "8", "--test-percent", "99"],
         {"seed": 7, "size": 8, "test_percent": 99}),
        (["--incomplete"], {"incomplete": True}),
    ],
)  # fmt: skip
def test_missing_options_have_their_default(words: list[str], expected: dict[str, Any]) -> None:
    parsed = parse_command([*COMMAND, *words])
    assert {name: getattr(parsed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", "-1"), ("--seed", "1.5"), ("--size", "7"), ("--size", "large"),
        ("--test-percent", "0"), ("--test-percent", "100"),
    ],
)  # fmt: skip
def test_a_number_outside_its_range_is_reported_before_anything_is_converted(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND[1:], option, value]) == 2
    message = capsys.readouterr().err
    assert option in message and value in message


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_option_of_a_converter_is_explained(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["convert", name, "--help"])
    shown = capsys.readouterr().out
    for key, option in list_converter_options(name).items():
        assert f"--{key.replace('_', '-')}" in shown
        explanation = next(data.help for data in option.annotation.__metadata__)
        assert explanation.split()[0] in shown
    assert "SRC/" in shown and "Expected files" in shown


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert not any(find_broken_rule(TestPercent, value) for value in (1, 99))
    assert all(find_broken_rule(TestPercent, value) for value in (0, 100, "50", None, True))
    assert find_broken_rule(Size, None) is find_broken_rule(Seed, 0) is None
    assert find_broken_rule(Incomplete, "yes") and not find_broken_rule(Incomplete, True)
