"""A scatter plot has a dot for each method, at its numbers."""

from __future__ import annotations

import re

import pytest

from semi_nnunet.reporting.curves import HEIGHT, INSET, LEFT, WIDTH, Dot, draw_scatter

NAN = float("nan")
DOT = re.compile(r'--c:var\(--series-(\d+)\)" cx="([\d.]+)" cy="([\d.]+)" r="5"><title>(.*?)</ti')


def test_dots_lie_at_their_numbers_and_show_them():
    dots = [Dot(0, "Baseline", 10.0, 0.70), Dot(1, "A", 20.0, 0.80), Dot(11, "J", 40.0, 0.90)]
    drawn = DOT.findall(draw_scatter(dots, "Dice against minutes"))
    assert [int(number) for number, *_ in drawn] == [0, 1, 1]  # ten colours, then again
    assert [title for *_, title in drawn] == [
        "Baseline: 0.700 at 10", "A: 0.800 at 20", "J: 0.900 at 40",
    ]  # fmt: skip
    xs, ys = [float(x) for _, x, _, _ in drawn], [float(y) for _, _, y, _ in drawn]
    assert (xs[2] - xs[0]) == pytest.approx(3 * (xs[1] - xs[0]), abs=0.2)
    assert (ys[0] - ys[2]) == pytest.approx(2 * (ys[0] - ys[1]), abs=0.2)
    assert all(LEFT <= x <= WIDTH - INSET for x in xs) and all(0 < y < HEIGHT for y in ys)


def test_the_horizontal_axis_begins_at_zero():
    texts = re.findall(r'class="x"[^>]*>(.*?)<', draw_scatter([Dot(0, "a", 30.0, 0.5)], ""))
    assert float(texts[0]) == 0.0 and len(texts) >= 2


def test_undefined_dots_are_left_out_and_names_are_text():
    drawn = draw_scatter(
        [Dot(0, "<b>", 1.0, 0.5), Dot(1, "x", NAN, 0.5), Dot(2, "y", 1.0, NAN)], "<i>"
    )
    assert drawn.count("<circle") == 1 and "<b>" not in drawn and "<i>" not in drawn
    assert draw_scatter([], "nothing").count("<circle") == 0
