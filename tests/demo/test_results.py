"""The demo's numbers and words are those of nnU-Net's summaries, whichever way they go."""

import copy

import pytest

from semi_nnunet.demo.results import chosen_cases, collect, conclusion, markdown_table


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
    collected = collect({"baseline": summary(0.0), "Mean Teacher": summary(gain)})
    counts = {"labelled": 4, "unlabelled": 28, "test": 5}
    return {**collected, "cases": counts, "seconds": {"total": 331.0}}


def test_the_gain_is_the_difference_of_the_mean_dice():
    collected = results(0.06)
    assert collected["dice"]["baseline"]["mean"] == pytest.approx(0.5)
    assert collected["gain"] == pytest.approx(dict.fromkeys(collected["gain"], 0.06))


def test_an_absent_organ_does_not_count_in_its_case():
    content = summary(0.0)
    content["metric_per_case"][0]["metrics"]["3"]["Dice"] = float("nan")
    collected = collect({"baseline": content, "Mean Teacher": copy.deepcopy(content)})
    assert collected["dice_per_case"]["baseline"]["phantom_0000"] == pytest.approx(0.7)


def test_the_table_has_a_line_for_each_organ_and_lines_of_one_width():
    lines = markdown_table(results(0.06)).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert len({len(line) for line in lines}) == 1
    assert [word.strip() for word in lines[-1].split("|")[1:-1]] == [
        "mean",
        "0.500",
        "0.560",
        "+0.060",
    ]


def test_a_gain_is_told():
    text = conclusion(results(0.06))
    assert "28 unlabelled images raised the mean Dice from 0.500 to 0.560 (+0.060)" in text
    assert "better on 4 of 5 test cases" in text
    assert "5 min 31 s" in text


def test_a_loss_is_told_as_honestly():
    text = conclusion(results(-0.06))
    assert "did not help this time" in text
    assert "fell from 0.500 to 0.440 (\N{MINUS SIGN}0.060)" in text
    assert "better on 0 of 5" in text and "raised" not in text


def test_next_to_no_difference_is_not_called_a_gain():
    text = conclusion(results(0.004))
    assert "made no difference" in text and "raised" not in text


def test_worst_median_and_best_gain_are_chosen():
    chosen = dict(chosen_cases(results(0.06)))
    assert chosen == {
        "worst gain": "phantom_0000",
        "median gain": "phantom_0002",
        "best gain": "phantom_0004",
    }
