"""The demo's table and sentences follow nnU-Net's summaries, for a gain and for a loss."""

import copy

import pytest

from semi_nnunet.demo.run import choose_cases, collect_results, format_table, write_conclusion


def summary(shift: float, cases: int = 5) -> dict:
    """An nnU-Net summary of ``cases`` cases; ``shift`` is added to every Dice."""
    organs = {"1": 0.8, "2": 0.6, "3": 0.1}
    return {
        "mean": {label: {"Dice": dice + shift} for label, dice in organs.items()},
        "metric_per_case": [
            {
                "reference_file": f"/x/phantom_{i:04d}.nii.gz",
                "metrics": {k: {"Dice": dice + shift * i / 2} for k, dice in organs.items()},
            }
            for i in range(cases)
        ],
    }


def results(gain: float) -> dict:
    collected = collect_results({"baseline": summary(0.0), "Mean Teacher": summary(gain)})
    counts = {"labelled": 4, "unlabelled": 28, "test": 5}
    return {**collected, "cases": counts, "seconds": {"total": 331.0}}


def test_the_gain_is_the_difference_of_the_mean_dice():
    collected = results(0.06)
    assert collected["dice"]["baseline"]["mean"] == pytest.approx(0.5)
    assert collected["gain"] == pytest.approx(dict.fromkeys(collected["gain"], 0.06))


def test_an_absent_organ_does_not_count_in_its_case():
    content = summary(0.0)
    content["metric_per_case"][0]["metrics"]["3"]["Dice"] = float("nan")
    collected = collect_results({"baseline": content, "Mean Teacher": copy.deepcopy(content)})
    assert collected["dice_per_case"]["baseline"]["phantom_0000"] == pytest.approx(0.7)


def test_the_table_has_a_line_for_each_organ_and_lines_of_one_width():
    lines = format_table(results(0.06)).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert len({len(line) for line in lines}) == 1
    assert [word.strip() for word in lines[-1].split("|")[1:-1]] == [
        "mean",
        "0.500",
        "0.560",
        "+0.060",
    ]


def test_a_gain_is_reported():
    text = write_conclusion(results(0.06))
    assert "raised" in text and "from 0.500 to 0.560 (+0.060)" in text
    assert "28 unlabelled" in text and "4 of 5 test cases" in text
    assert "5 min 31 s" in text


def test_a_loss_is_reported_as_honestly():
    text = write_conclusion(results(-0.06))
    assert "did not help" in text and "from 0.500 to 0.440 (\N{MINUS SIGN}0.060)" in text
    assert "0 of 5" in text and "raised" not in text


def test_a_tiny_difference_is_not_called_a_gain():
    text = write_conclusion(results(0.004))
    assert "no difference" in text and "raised" not in text


def test_worst_median_and_best_gain_are_chosen():
    assert dict(choose_cases(results(0.06))) == {
        "worst gain": "phantom_0000",
        "median gain": "phantom_0002",
        "best gain": "phantom_0004",
    }
