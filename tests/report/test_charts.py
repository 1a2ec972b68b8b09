"""Charts have round ticks, and can be drawn from any numbers."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from semi_nnunet.reporting.charts import (
    SERIES,
    Axis,
    choose_axis,
    draw_box_row,
    draw_change_row,
    draw_interval_row,
    draw_ticks,
    format_series_style,
    wrap_series_number,
)
from semi_nnunet.reporting.page import TEMPLATES

CUTS = [n / 97 for n in range(1, 97)]
NAN = float("nan")
UNIT = Axis(0, 1, (0, 0.5, 1))
HOSTILE = "<script>alert(1)</script>"


def numbers_of(mark: str, attributes: str) -> list[float]:
    """Return the numbers of one kind of mark: ``numbers_of(svg, 'class="box".* x')``."""
    return [float(number) for number in re.findall(rf'<\w+ {attributes}="([\d.]+)%?"', mark)]


def test_an_axis_has_round_ticks_and_room():
    axis = choose_axis([0.61, 0.94])
    assert axis.low < 0.61 and axis.high > 0.94 and axis.ticks == (0.6, 0.7, 0.8, 0.9)
    assert [axis.format_tick(tick) for tick in axis.ticks] == ["0.6", "0.7", "0.8", "0.9"]
    assert Axis(0, 1, (0, 0.25, 0.5)).format_tick(0.25) == "0.25"
    narrow = [choose_axis([low, low + width], tick_count=3) for low in CUTS for width in CUTS]
    assert min(len(axis_of_range.ticks) for axis_of_range in narrow) >= 2
    assert choose_axis([NAN]).ticks and choose_axis([3.0, 3.0]).high > 3


def test_an_axis_does_not_go_beyond_possible_values():
    assert choose_axis([2.0, 99.0], limit=100.0).high == 100.0
    assert choose_axis([2.0, 99.0]).low == 0.0
    assert choose_axis([0.0, 0.0]).high == 1.0
    assert choose_axis([-2.0, 99.0]).low < -2.0


@pytest.mark.parametrize("values", [[0.61, 0.94], [-30.0, 2.0], [1e-5, 2e-5], [800.0, 90_000.0]])
def test_ticks_are_evenly_spaced_inside_the_axis_and_percents_are_linear(values):
    axis = choose_axis(values, (0.0,))
    assert axis.low <= min(*values, 0.0) and axis.high > max(*values, 0.0)
    assert (axis.low < 0) == (min(values) < 0)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert np.ptp(np.diff(axis.ticks)) == pytest.approx(0, abs=1e-9 * axis.high)
    assert axis.percent(axis.low) == 0 and axis.percent(axis.high) == 100
    assert axis.percent((axis.low + axis.high) / 2) == pytest.approx(50, abs=0.01)
    assert [float(axis.format_tick(t).replace("\N{MINUS SIGN}", "-")) for t in axis.ticks] == [
        pytest.approx(tick) for tick in axis.ticks
    ]


def test_charts_can_be_drawn_from_any_numbers():
    row = draw_interval_row(UNIT, 0.5, 0.25, 0.75, "better", "a & b")
    assert 'x1="25.0%"' in row and 'cx="50.0%"' in row and "a &amp; b" in row
    assert '<line class="bar' not in draw_interval_row(UNIT, 0.5, NAN, NAN, "", "one case")
    box = draw_box_row(UNIT, {"<x>": 0.2, "y": 0.4, "z": NAN}, 0, "box")
    assert box.count('class="case"') == 2 and "&lt;x&gt;" in box
    assert 'class="box"' not in draw_box_row(UNIT, {"z": NAN}, 0, "nothing")


def test_an_interval_has_the_colour_of_its_verdict_and_only_zero_is_marked():
    for verdict, colour in (("better", "better"), ("WORSE", "worse"), ("no evidence", "open")):
        row = draw_interval_row(Axis(-1, 1, (-1, 0, 1)), 0.2, 0.1, 0.3, verdict, "")
        assert f'class="bar {colour}"' in row and f'class="dot {colour}"' in row
        assert numbers_of(row, 'class="zero" x1') == [50.0]


def test_a_box_holds_the_middle_half_and_its_whiskers_stop_before_outliers():
    values = {f"case_{n}": n / 20 for n in range(9)} | {"far": 0.99}
    box = draw_box_row(UNIT, values, 1, "dice")
    first, median, third = np.percentile([*values.values()], (25, 50, 75))
    (start,), (width,) = (numbers_of(box, f'class="box" [^>]*{name}') for name in ("x", "width"))
    assert [start, start + width] == pytest.approx([100 * first, 100 * third])
    assert numbers_of(box, 'class="median" [^>]*x1') == pytest.approx([100 * median])
    assert numbers_of(box, 'class="whisker" x1') == [0.0]
    assert numbers_of(box, 'class="whisker" [^>]*x2') == [40.0]  # not as far as 99
    assert box.count('class="case"') == 10 and "<title>far: 0.99</title>" in box


def test_a_change_goes_from_the_hollow_dot_to_the_filled_one():
    row = draw_change_row(UNIT, 0.25, 0.75, True, "from 0.25 to 0.75")
    assert numbers_of(row, 'class="hollow" cx') == [25.0]
    assert numbers_of(row, 'class="dot better" cx') == [75.0]
    assert 'class="dot worse"' in draw_change_row(UNIT, 0.75, 0.25, False, "")
    assert (
        draw_change_row(UNIT, NAN, 0.5, True, "") == draw_change_row(UNIT, 0.5, NAN, True, "") == ""
    )


def test_every_tick_has_its_number():
    texts = re.findall(r'<text x="([\d.]+)%" y="12">(.*?)</text>', draw_ticks(UNIT))
    assert texts == [("0.0", "0.0"), ("50.0", "0.5"), ("100.0", "1.0")]


def test_names_of_cases_and_labels_are_escaped():
    for row in (
        draw_interval_row(UNIT, 0.5, 0.4, 0.6, "better", HOSTILE),
        draw_box_row(UNIT, {HOSTILE: 0.5}, 0, HOSTILE),
        draw_box_row(UNIT, {}, 0, HOSTILE),
        draw_change_row(UNIT, 0.1, 0.2, True, HOSTILE),
    ):
        assert "<script" not in row and "&lt;script&gt;alert(1)&lt;/script&gt;" in row


def test_the_baseline_and_ten_methods_have_different_colours():
    assert [wrap_series_number(index) for index in range(13)] == [*range(11), 1, 2]
    assert format_series_style(3) == 'style="--c:var(--series-3)"'


SEEN_BY = {  # linear RGB as seen with severe red or green blindness (Machado et al. 2009)
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
}  # fmt: skip


def oklab(colour: str, seen: np.ndarray) -> np.ndarray:
    """Convert to Oklab, where equal distances look equally far apart (Ottosson 2020)."""
    rgb = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    to_lab = [
        [0.21045, 0.79362, -0.00407],
        [1.97800, -2.42859, 0.45059],
        [0.02590, 0.78277, -0.80868],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(seen @ linear, 0, 1))


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("sight", SEEN_BY)
def test_colours_of_methods_differ_from_each_other_and_from_better_and_worse(mode, sight):
    """In light mode, in dark mode and on paper, also with colour blindness."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    block = css.split(":root {")[1 + mode].split("}")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    names = [*(f"series-{n}" for n in range(SERIES)), "better", "worse"]
    places = {name: oklab(colours[name], SEEN_BY[sight]) for name in names}
    least = 0.1 if sight == "normal" else 0.075
    for first, second in combinations(names, 2):
        methods = [name for name in (first, second) if name not in ("series-0", "better", "worse")]
        distance = np.linalg.norm(places[first] - places[second])
        assert not methods or distance > least, (first, second, distance)
