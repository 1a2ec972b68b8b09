"""Curves and histograms show the given numbers, whatever they are."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from semi_nnunet.reporting.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    TOP,
    WIDTH,
    choose_log_axis,
    draw_curve_panel,
    draw_histogram,
    thin_out,
)

NAN = float("nan")


def points_of(panel: str) -> list[list[tuple[float, float]]]:
    """The points of every curve of a panel."""
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]
        for line in re.findall(r'points="([^"]*)"', panel)
    ]


def test_curves_and_histograms_can_be_drawn_from_any_numbers():
    panel = draw_curve_panel(
        [(1, (range(1, 1001), np.linspace(1, 0.001, 1000).tolist()))], "x", log=True
    )
    assert panel.count(",") <= 160 and ">0.01<" in panel
    assert 'class="alone"' in draw_curve_panel([(0, ([1], [0.5]))], "one epoch")
    assert draw_curve_panel([(0, ([1, 2], [NAN, NAN]))], "nothing")
    bars = draw_histogram([0.1, 0.2], [0.2, 0.9])
    assert 'class="kept"' in bars and 'class="dropped"' in bars


def test_points_are_the_values_from_the_first_epoch_to_the_last():
    panel = draw_curve_panel(
        [(0, ([1, 2, 3, 5], [0.0, NAN, 0.5, 1.0]))], "Dice", include=(0.0, 1.0)
    )
    (points,) = points_of(panel)
    assert len(points) == 3  # the epoch without a number has no point
    across = [(x - LEFT) / (WIDTH - LEFT - 8) for x, _ in points]
    assert across == pytest.approx([0, 0.5, 1], abs=1e-3)
    (low, high), heights = (points[0][1], points[2][1]), [y for _, y in points]
    assert HEIGHT - BOTTOM >= low > high > TOP and heights[1] == pytest.approx((low + high) / 2)


def test_curves_share_the_axes_and_keep_their_colours():
    panel = draw_curve_panel([(1, ([1, 4], [0.0, 1.0])), (2, ([1, 2], [0.0, 1.0]))], "two")
    first, second = points_of(panel)
    assert first[0] == second[0] and first[1][1] == second[1][1] and second[1][0] < first[1][0]
    assert [panel.count(f"var(--series-{number})") for number in (0, 1, 2)] == [0, 1, 1]


def test_a_logarithmic_axis_needs_positive_values():
    falling = [1.0, 0.1, 0.01]
    (points,) = points_of(draw_curve_panel([(0, ([1, 2, 3], falling))], "loss", log=True))
    heights = [y for _, y in points]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1)
    with_zero = [(0, ([1, 2, 3], [*falling[:2], 0.0]))]
    assert draw_curve_panel(with_zero, "loss", log=True) == draw_curve_panel(with_zero, "loss")


@pytest.mark.parametrize("ends", [(1e-6, 1.0), (0.2, 0.9), (3.0, 3.1), (5.0, 5.0)])
def test_ticks_of_powers_are_round_numbers_inside_the_axis(ends):
    axis = choose_log_axis(ends)
    assert axis.low < math.log10(ends[0]) and axis.high > math.log10(ends[1])
    assert 1 <= len(axis.ticks) <= 7
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    if ends[0] < 0.1:
        assert all(tick == pytest.approx(round(tick)) for tick in axis.ticks)


@pytest.mark.parametrize("length", [1, 2, MAX_POINTS, MAX_POINTS + 1, 5000])
def test_thinned_curves_keep_their_order_and_both_ends(length):
    thinned = thin_out([float(n) for n in range(length)])
    assert len(thinned) == min(length, MAX_POINTS) and len(set(thinned)) == len(thinned)
    assert thinned == sorted(thinned) and thinned[0] == 0 and thinned[-1] == length - 1


def test_heights_of_bars_are_proportional_to_the_number_of_cases():
    rng = np.random.default_rng(0)
    kept_values, dropped_values = rng.random(40).tolist(), (0.5 + rng.random(17)).tolist()
    bars = re.findall(
        r'<rect class="(\w+)" .*?y="([\d.]+)" height="([\d.]+)"',
        draw_histogram(kept_values, dropped_values),
    )
    counts, _ = np.histogram([*kept_values, *dropped_values], 24)
    tallest = counts.max()
    assert f">{tallest}</text>" in draw_histogram(kept_values, dropped_values)
    for name, values in (("kept", kept_values), ("dropped", dropped_values)):
        heights = sum(float(height) for css_class, _, height in bars if css_class == name)
        assert heights * tallest / (HEIGHT - BOTTOM - TOP) == pytest.approx(len(values), abs=0.1)
    on_the_floor = [
        float(y) + float(height) for css_class, y, height in bars if css_class == "kept"
    ]
    assert on_the_floor == pytest.approx([HEIGHT - BOTTOM] * len(on_the_floor), abs=0.1)
    assert "of 40 kept and 17 dropped cases" in draw_histogram(kept_values, dropped_values)


def test_equal_uncertainties_make_one_bar():
    bars = draw_histogram([0.3, 0.3], [])
    assert bars.count("<rect") == 1 and "NaN" not in bars and "nan" not in bars


def test_labels_are_escaped():
    panel = draw_curve_panel([(0, ([1, 2], [0.1, 0.2]))], "<script>alert(1)</script>")
    assert "<script" not in panel and "&lt;script&gt;" in panel
