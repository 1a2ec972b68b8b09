"""Markdown tables with aligned columns."""

from __future__ import annotations

import pytest

from semi_nnunet.util.markdown import plain, table


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


def test_a_text_of_a_stranger_shows_as_it_is_and_stays_in_its_cell():
    hostile = "liver\n\n# Approved | <script>x</script> ![p](http://x) `code` \x1b[31m\u202e"
    shown = plain(hostile)
    assert "\n" not in shown and "<" not in shown and "\x1b" not in shown
    assert shown.startswith("liver # Approved \\| &lt;script>x&lt;/script> !\\[p]")
    assert plain("left_atrium (T1 & T2)") == "left_atrium (T1 & T2)"
