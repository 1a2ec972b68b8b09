"""Numbers and names are readable."""

from __future__ import annotations

import pytest

from semi_nnunet.evaluation.statistics import Difference
from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.wording import (
    DASH,
    MINUS,
    add_break_points,
    find_difference_unit,
    format_metric,
    format_p_value,
    format_points,
    format_points_interval,
    format_value,
    join_words,
    name_method,
    name_model,
)
from semi_nnunet.util.names import format_count
from tests.report.results_tree import BASE, OURS

NAN = float("nan")


def test_numbers_and_names_are_readable():
    assert (
        format_points(-0.0001, "dice") == "0.0" and format_points(-0.012, "dice") == f"{MINUS}1.2"
    )
    assert format_points(0.0142, "dice") == "+1.4"
    assert format_points(-0.631, "hd95_edge_mm") == f"{MINUS}0.63"
    assert (
        format_points(NAN, "dice") == DASH
        and format_metric("nsd_surfel_2mm") == "NSD (surfel, 2mm)"
    )
    assert name_method(OURS) == "Mean Teacher" and name_method("nnUNetTrainer") == "nnUNetTrainer"


def test_long_names_break_between_words_and_stay_escaped():
    assert (
        add_break_points("MeanTeacher") == "Mean<wbr>Teacher"
        and add_break_points("UA-MT 2d") == "UA-MT 2d"
    )
    assert add_break_points("a<bC") == "a&lt;b<wbr>C"


def test_markup_in_a_name_is_text():
    assert add_break_points("<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.mark.parametrize(
    ("metric", "title", "unit"),
    [
        ("dice", "Dice", "points"),
        ("iou", "IoU", "points"),
        ("nsd_surfel_2mm", "NSD (surfel, 2mm)", "points"),
        ("hd95_edge_mm", "HD95 (edge, mm)", "mm"),
        ("assd_edge_voxels", "ASSD (edge, voxels)", "voxels"),
        ("volume_difference_ml", "absolute volume difference ml", "ml"),
        ("relative_volume_difference", "absolute relative volume difference", "points"),
    ],
)
def test_every_metric_has_a_title_and_a_unit(metric, title, unit):
    assert format_metric(metric) == title and find_difference_unit(metric) == unit


def test_numbers_have_the_digits_of_their_metric_and_a_true_minus():
    assert format_value(0.81234, "dice") == "81.2" and format_value(0.81234, "dice", 1) == "81.23"
    assert (
        format_value(3.14159, "hd95_edge_mm") == "3.14" and format_value(-2, "x") == f"{MINUS}2.00"
    )
    assert format_value(NAN, "dice") == DASH and format_value(-0.0, "dice") == "0.0"
    for value in (0.0142, -0.0142, 0.5):  # a minus sign, not a hyphen
        for metric in ("dice", "hd95_edge_mm"):
            text = format_points(value, metric)
            assert "-" not in text and text[0] in f"+{MINUS}"


def test_points_are_hundredths_of_an_overlap():
    assert format_points(0.25, "dice") == "+25.0" and format_points(0.25, "hd95_edge_mm") == "+0.25"
    assert format_points(-0.0004, "dice") == "0.0"


def test_intervals_and_p_values_are_readable():
    difference = Difference(0.015, 0.009, 0.021, 0.001, 12, 11)
    assert format_points_interval(difference, "dice") == "+0.9 to +2.1"
    assert format_points_interval(Difference(0.1, NAN, NAN, 1.0, 1, 1), "dice") == "one case only"
    assert format_p_value(0.0342) == "p = 0.034" and format_p_value(0.00001) == "p < 0.001"


def test_configurations_are_named_only_if_there_are_several():
    flat, volume = Model(OURS, "2d"), Model(BASE, "3d_fullres")
    assert name_model(flat, [flat, Model(BASE, "2d")]) == "Mean Teacher"
    assert name_model(flat, [flat, volume]) == "Mean Teacher 2d"
    assert name_method("SemiTrainer") == "SemiTrainer"  # the short name would be empty


def test_counts_and_lists_are_grammatical():
    assert (format_count(1, "case"), format_count(0, "case"), format_count(3, "case")) == (
        "1 case",
        "0 cases",
        "3 cases",
    )
    assert join_words(["a"]) == "a" and join_words(["a", "b"]) == "a and b"
    assert join_words(["a", "b", "c"]) == "a, b and c"
