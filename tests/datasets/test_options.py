"""Options of several converters."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from semi_nnunet.datasets.options import (
    add_incomplete,
    add_seed,
    add_size,
    add_symlink,
    add_test_percent,
    parse_whole_number,
)


def parse(add: Callable[..., None], *words: str, **options: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add(parser, **options)
    return vars(parser.parse_args(words))


@pytest.mark.parametrize(
    ("add", "options", "words", "expected"),
    [
        (add_seed, {}, [], {"seed": 0}),
        (add_seed, {}, ["--seed", "7"], {"seed": 7}),
        (add_symlink, {}, [], {"symlink": False}),
        (add_symlink, {}, ["--symlink"], {"symlink": True}),
        (add_incomplete, {}, [], {"incomplete": False}),
        (add_size, {}, [], {"size": None}),
        (add_size, {"default": 256}, [], {"size": 256}),
        (add_size, {"default": 256}, ["--size", "8"], {"size": 8}),
        (add_test_percent, {}, [], {"test_percent": 20}),
        (add_test_percent, {}, ["--test-percent", "99"], {"test_percent": 99}),
    ],
)
def test_missing_options_have_their_default(
    add: Callable[..., None], options: dict[str, Any], words: list[str], expected: dict[str, Any]
) -> None:
    assert parse(add, *words, **options) == expected


@pytest.mark.parametrize(
    ("add", "words", "says"),
    [
        (add_seed, ["--seed", "-1"], "--seed: must be a whole number from 0, got '-1'"),
        (add_seed, ["--seed", "1.5"], "--seed: must be a whole number from 0, got '1.5'"),
        (add_size, ["--size", "7"], "--size: must be a whole number from 8, got '7'"),
        (add_size, ["--size", "large"], "--size: must be a whole number from 8, got 'large'"),
        (add_test_percent, ["--test-percent", "0"], "whole number from 1 to 99, got '0'"),
        (add_test_percent, ["--test-percent", "100"], "whole number from 1 to 99, got '100'"),
    ],
)
def test_a_number_outside_its_range_is_reported_before_anything_is_converted(
    add: Callable[..., None], words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(add, *words)
    assert says in capsys.readouterr().err


def test_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for add, options, shown in (
        (add_seed, {}, "default: 0"),
        (add_size, {}, "default: unchanged"),
        (add_size, {"default": 256}, "default: 256"),
        (add_test_percent, {}, "default: 20"),
    ):
        with pytest.raises(SystemExit):
            parse(add, "--help", **options)
        assert shown in " ".join(capsys.readouterr().out.split())


def test_the_ends_of_a_range_belong_to_it() -> None:
    parse_edge = parse_whole_number(2, 4)
    assert [parse_edge(text) for text in ("2", "4", "003")] == [2, 4, 3]
    for text in ("1", "5", "", "+3", "3 "):
        with pytest.raises(argparse.ArgumentTypeError, match="from 2 to 4"):
            parse_edge(text)
