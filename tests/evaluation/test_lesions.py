"""Lesions are matched as a slow version does, and empty masks count by one rule."""

import csv
import json
import math
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from semi_nnunet.evaluation.lesions import (
    describe_lesion_columns,
    find_lesions,
    match_lesions,
    measure_lesions,
)
from semi_nnunet.evaluation.measuring import evaluate_folders, find_changed_inputs
from semi_nnunet.evaluation.values import Model, higher_is_better, read_values
from semi_nnunet.raw.lesion_rules import LesionRule, parse_lesion_rules
from semi_nnunet.util.errors import UserError
from tests.evaluation.folders import evaluate, folders, write

RULES = (LesionRule(), LesionRule(0.1), LesionRule(0.5))
VOXELS = {2: (1.2, 0.7), 3: (3.0, 1.0, 0.8)}


# ---- the slow version ----


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return the voxels of each component, by walking from neighbour to neighbour."""
    remaining = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}
    components = []
    while remaining:
        front, component = [min(remaining)], set()
        remaining.discard(front[0])
        while front:
            voxel = front.pop()
            component.add(voxel)
            for step in product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if neighbour in remaining:
                    remaining.discard(neighbour)
                    front.append(neighbour)
        components.append(component)
    return components


def best_pairs(ious: dict[tuple[int, int], float], rows: list[int]) -> tuple[float, list]:
    """Try every one-to-one assignment; return the largest sum of IoUs and its pairs."""
    if not rows:
        return 0.0, []
    first, rest = rows[0], rows[1:]
    best = best_pairs(ious, rest)
    for (row, column), iou in ious.items():
        if row == first:
            others = {pair: value for pair, value in ious.items() if pair[1] != column}
            total, pairs = best_pairs(others, rest)
            best = max(best, (total + iou, [(row, column), *pairs]))
    return best


def slow_metrics(prediction: np.ndarray, reference: np.ndarray, rule: LesionRule) -> dict:
    ours, theirs = flood(prediction), flood(reference)
    ious = {
        (i, j): len(ours[i] & theirs[j]) / len(ours[i] | theirs[j])
        for i in range(len(ours))
        for j in range(len(theirs))
        if ours[i] & theirs[j]
    }
    if rule.iou is None:
        pairs = list(ious)
    else:
        large = {pair: iou for pair, iou in ious.items() if iou >= rule.iou}
        pairs = best_pairs(large, sorted({i for i, _ in large}))[1]
    detected, correct = {j for _, j in pairs}, {i for i, _ in pairs}
    false, missed = len(ours) - len(correct), len(theirs) - len(detected)
    sensitivity = len(detected) / len(theirs) if theirs else 1.0
    precision = len(correct) / len(ours) if ours else 0.0 if theirs else 1.0
    both = sensitivity + precision
    expected = {
        "lesion_f1": 2 * sensitivity * precision / both if both else 0.0,
        "lesion_sensitivity": sensitivity,
        "lesion_precision": precision,
        "lesion_false_positives": false,
        "healthy_false_positives": math.nan if theirs else false,
    }
    if rule.iou is not None:
        dice = [2 * len(ours[i] & theirs[j]) / (len(ours[i]) + len(theirs[j])) for i, j in pairs]
        number = len(pairs) + false + missed
        expected["lesion_dice"] = sum(dice) / number if number else 1.0
    return {f"{name}_{rule.name}": value for name, value in expected.items()}


def draw_label_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw two label maps of two classes that resemble each other; every tenth is empty."""
    rng = np.random.default_rng(seed)
    shape = (24, 20) if seed % 2 else (6, 12, 10)
    common = rng.normal(size=(2, *shape))
    maps = []
    for index in range(2):
        fields = gaussian_filter(
            common + 0.8 * rng.normal(size=common.shape), [0, *[1] * len(shape)]
        )
        fields /= fields.std()
        labels = np.where(fields.max(0) > 1.1, 1 + fields.argmax(0), 0)
        maps.append(labels * (seed % 10 != 4 * index))
    return maps[0], maps[1]


@pytest.mark.parametrize("seed", range(50))
def test_metrics_of_random_label_maps_equal_the_slow_version(seed):
    prediction, reference = draw_label_maps(seed)
    for value in (1, 2):
        masks = prediction == value, reference == value
        metrics = measure_lesions(find_lesions(*masks), RULES)
        assert list(metrics) == list(describe_lesion_columns(RULES))
        for rule in RULES:
            for column, expected in slow_metrics(*masks, rule).items():
                assert metrics[column] == pytest.approx(expected, nan_ok=True), column


def test_metrics_of_tiny_images_equal_the_slow_version():
    rng = np.random.default_rng(0)
    for dimensions in [2, 3] * 100:
        shape = tuple(rng.integers(1, 6, dimensions))
        masks = [rng.random(shape) < 0.5 * rng.random() for _ in range(2)]
        metrics = measure_lesions(find_lesions(*masks), RULES)
        expected = {k: v for rule in RULES for k, v in slow_metrics(*masks, rule).items()}
        assert metrics == pytest.approx(expected, nan_ok=True)


def test_the_random_label_maps_have_many_and_no_lesions():
    numbers = [
        len(find_lesions(a == 1, b == 1).reference) for a, b in map(draw_label_maps, range(50))
    ]
    assert min(numbers) == 0 and max(numbers) > 5


def test_the_assignment_has_the_largest_sum_of_ious_where_the_nearest_pair_has_not():
    reference, prediction = np.zeros((2, 1, 30), bool)
    reference[0, 0:10] = reference[0, 11:15] = True
    prediction[0, 4:15] = True  # one predicted lesion over two
    lesions = find_lesions(prediction, reference)
    match = match_lesions(lesions, LesionRule(0.1))
    assert match.detected.tolist() == [True, False] and match.correct.tolist() == [True]
    assert match_lesions(lesions, LesionRule()).detected.all()


# ---- empty masks ----


def make_masks(shows_prediction: bool, shows_reference: bool) -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((2, 4, 6, 6), bool)
    masks[0, 1, 1, 1], masks[1, 2, 4, 4] = shows_prediction, shows_reference  # of one voxel
    return masks[0], masks[1]


@pytest.mark.parametrize(
    ("predicts", "has_lesion", "f1", "sensitivity", "precision", "false", "healthy_false"),
    [
        (False, False, 1, 1, 1, 0, 0),
        (True, False, 0, 1, 0, 1, 1),
        (False, True, 0, 0, 0, 0, math.nan),
        (True, True, 0, 0, 0, 1, math.nan),
    ],
)
def test_empty_masks_are_never_dropped(
    predicts, has_lesion, f1, sensitivity, precision, false, healthy_false
):
    metrics = measure_lesions(find_lesions(*make_masks(predicts, has_lesion)), [LesionRule(0.5)])
    expected = [f1, sensitivity, precision, float(f1), false, healthy_false]
    assert list(metrics.values()) == pytest.approx(expected, nan_ok=True)


# ---- rules ----


def test_all_wrong_rules_are_reported_together():
    rules, problems = parse_lesion_rules(
        ["any", "0.5", 0.5, 0.50000001, 0, "much", True, 1.5, None], "--lesions"
    )
    assert [rule.name for rule in rules] == ["any", "iou0.5"] and len(problems) == 5


def test_a_wrong_rule_is_an_error_of_the_command_or_of_the_description(tmp_path):
    predictions, references = folders(tmp_path)
    with pytest.raises(UserError, match="IoU above 0"):
        evaluate_folders(predictions, references, lesions=["2"], processes=1)
    for rules in ([], "any", [-1], {"iou": 1}):
        set_rules(references, rules)
        with pytest.raises(UserError, match="lesions"):
            evaluate_folders(predictions, references, processes=1)


def set_rules(references, rules):
    path = references.parent / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lesions": rules}))


# ---- files ----


def read_table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_and_files_of_lesions_exist_only_on_request(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references) == 0
    plain, before = (
        (predictions / "metrics.csv").read_text(),
        read_table(predictions / "metrics.csv"),
    )
    assert "lesion" not in plain + (predictions / "metrics.json").read_text()
    assert evaluate(predictions, references, "--lesions", "any", "0.5") == 0
    rows = read_table(predictions / "metrics.csv")
    assert rows[0]["lesion_f1_any"] and rows[0]["lesion_dice_iou0.5"]
    assert [{column: row[column] for column in before[0]} for row in rows] == before
    assert "per healthy case" in capsys.readouterr().out
    assert evaluate(predictions, references) == 0
    assert (predictions / "metrics.csv").read_text() == plain
    assert not (predictions / "lesions.csv").exists()


def test_every_lesion_is_listed_with_its_volume(tmp_path):
    predictions, references = folders(tmp_path)
    for case in "abc":
        for folder in (predictions, references):
            write(folder / f"{case}.nii.gz", np.zeros((8, 16, 16)))
    array = np.zeros((8, 16, 16))
    array[2, 3:5, 3], array[6, 9, 9] = 1, 1
    write(references / "a.nii.gz", array)
    array[2, 3:5, 3], array[0, 0, 0] = 0, 2
    write(predictions / "a.nii.gz", array)
    result = evaluate_folders(predictions, references, lesions=["any"], processes=1)
    rows = read_table(predictions / "lesions.csv")
    cells = [(row["class"], row["mask"], row["volume_ml"], row["matched_any"]) for row in rows]
    assert cells == [
        ("liver", "reference", "0.0048", "0"),
        ("liver", "reference", "0.0024", "1"),
        ("liver", "prediction", "0.0024", "1"),
        ("tumour", "prediction", "0.0024", "0"),
    ]
    liver, tumour = (result.content["lesions"][name]["any"] for name in ("liver", "tumour"))
    assert (liver["lesions"], liver["detected"], liver["sensitivity"]) == (2, 1, 0.5)
    assert liver["cases"] == 3 and liver["healthy_cases"] == 2
    assert liver["false_positives_per_healthy_case"] == 0
    assert tumour["false_positives_per_case"] == tumour["false_positives_per_healthy_case"] == 1 / 3
    assert result.content["mean"]["tumour"]["lesion_f1_any"] == pytest.approx(2 / 3)
    assert math.isnan(tumour["sensitivity"])


def test_ignored_voxels_hold_no_lesion(tmp_path):
    from tests.evaluation.folders import REGIONS

    predictions, references = folders(tmp_path, labels=REGIONS)
    reference = np.zeros((8, 16, 16))
    reference[..., :4] = 3
    prediction = np.zeros((8, 16, 16))
    prediction[1, 1, 1] = 1
    write(references / "a.nii.gz", reference)
    write(predictions / "a.nii.gz", prediction)
    evaluate_folders(predictions, references, lesions=["any"], processes=1)
    rows = [row for row in read_table(predictions / "metrics.csv") if row["case"] == "a"]
    assert [row["lesion_f1_any"] for row in rows] == ["1", "1"]


def test_the_description_asks_for_lesions_and_a_change_of_it_outdates_the_tables(tmp_path):
    predictions, references = folders(tmp_path)
    description = references.parent / "dataset.json"
    evaluate_folders(predictions, references, processes=1)
    assert find_changed_inputs(predictions, references, description) == []
    set_rules(references, ["any"])
    assert find_changed_inputs(predictions, references, description) == ["classes"]
    evaluate_folders(predictions, references, processes=1)
    assert find_changed_inputs(predictions, references, description) == []
    table = (Model("SemiBaselineTrainer", "2d"), "0", 0, predictions / "metrics.csv")
    values, missing = read_values([table], "lesion_f1_any")
    assert len(values) == 6 and not missing and not any(math.isnan(v.value) for v in values)


def test_false_positives_are_better_low():
    assert higher_is_better("lesion_f1_any") and not higher_is_better("lesion_false_positives_any")
    assert not higher_is_better("healthy_false_positives_iou0.5")
