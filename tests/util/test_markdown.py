"""Markdown tables with aligned columns."""

from __future__ import annotations

import pytest

from semi_nnunet.util.markdown import table


def test_columns_are_as_wide_as_their_longest_cell():
    assert table([["a", "bcd"], ["efgh", ""]]).splitlines() == [
        "| a    | bcd |",
        "|------|-----|",
        "| efgh |     |",
    ]


def test_numbers_are_aligned_to_the_right():
    assert table([["trainer", "Dice"], ["x", "0.9"], ["longest one", "10"]], numbers=True) == (
        "| trainer     | Dice |\n"
        "|-------------|-----:|\n"
        "| x           |  0.9 |\n"
        "| longest one |   10 |"
    )


def test_a_heading_without_rows_is_a_table():
    assert table([["a", "b"]]) == "| a | b |\n|---|---|"


def test_rows_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        table([["a", "b"], ["c"]])
