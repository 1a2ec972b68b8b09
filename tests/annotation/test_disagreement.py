"""Tests of comparing a label with a prediction: which error explains their difference."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.annotation.disagreement import AS_IT_IS, Disagreement, compare_label
from semi_nnunet.annotation.suspicion import average_suspicions, score_labels

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "planted_errors.py"))
ERRORS = SCRIPT["ERRORS"]
CLASSES = {"left": (1,), "right": (2,)}
REGIONS = {"whole": (1, 2), "core": (2,)}
EVIDENCE = {
    "swapped": "left and right swapped",
    "shifted": "Moved by",
    "eroded": "Grown",
    "slice": "lacks",
    "mirrored": "Mirrored along x",
}


def make_label(seed: int, shape: tuple[int, int, int] = (10, 30, 30)) -> np.ndarray:
    """Return an ellipsoid of two classes that fits no mirrored one."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    centre = [shape[0] / 2, 13 + rng.uniform(-1, 1), 10 + rng.uniform(-1, 1)]
    radii = [max(1.0, shape[0] / 2.5), 9 + rng.uniform(-1, 1), 6 + rng.uniform(-1, 1)]
    inside = sum(((p - c) / r) ** 2 for p, c, r in zip((z, y, x), centre, radii, strict=True)) < 1
    return np.where(inside, 1 + (y > centre[1] + 2), 0)


def predict(label: np.ndarray, seed: int, share: float = 0.3) -> np.ndarray:
    """Return a prediction that is wrong in a share of the voxels at borders."""
    rng = np.random.default_rng([seed, 7])
    other = np.roll(label, int(rng.choice([-1, 1])), int(rng.choice([1, 2])))
    return np.where(rng.random(label.shape) < share, other, label)


def compare(label: np.ndarray, prediction: np.ndarray, **options: object) -> Disagreement:
    options = {"spacing": (3.0, 1.0, 1.0), "classes": CLASSES, **options}
    return compare_label(label, prediction, **options)  # type: ignore[arg-type]


def dice_of(overlaps: np.ndarray) -> np.ndarray:
    return 2 * overlaps[:, 0] / overlaps[:, 1:].sum(1)


def test_overlaps_are_those_of_masks_counted_one_by_one():
    label, prediction = make_label(0), predict(make_label(0), 0)
    for classes in (CLASSES, REGIONS):
        overlaps = compare(label, prediction, classes=classes).overlaps[AS_IT_IS]
        for row, values in zip(overlaps, classes.values(), strict=True):
            ours, theirs = np.isin(label, values), np.isin(prediction, values)
            assert row.tolist() == [(ours & theirs).sum(), ours.sum(), theirs.sum()]


def test_no_error_explains_a_label_that_is_predicted_exactly():
    label = make_label(0)
    item = compare(label, label)
    assert item.gap is None
    assert all(dice_of(o).mean() <= 1 for o in item.overlaps.values())
    suspicion = score_labels({"a": item, "b": item}, [*CLASSES])["a"]
    assert suspicion.score == 0 and suspicion.dice == {"left": 1.0, "right": 1.0}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_ranks_first_and_is_named(kind):
    cases = {f"case_{n}": make_label(n) for n in range(12)}
    predictions = {case: predict(label, n) for n, (case, label) in enumerate(cases.items())}
    predictions["case_3"] = predict(cases["case_3"], 3, 0.9)  # a hard case without an error
    cases["case_7"] = ERRORS[kind](cases["case_7"], np.random.default_rng(1))
    items = {case: compare(label, predictions[case]) for case, label in cases.items()}
    scored = score_labels(items, [*CLASSES])
    assert max(scored, key=lambda case: scored[case].score) == "case_7"
    assert EVIDENCE[kind] in scored["case_7"].reason


def test_a_missing_slice_is_the_slice_to_look_at():
    truth = make_label(0)
    label = truth.copy()
    label[5] = 0
    item = compare(label, predict(truth, 0))
    assert item.gap is not None and (item.gap.axis, item.gap.number) == (0, 6)
    assert item.gap.share > 0.8
    # a gap that the prediction has, too, is anatomy
    assert compare(label, label).gap is None
    suspicion = score_labels({"a": item, "b": compare(truth, predict(truth, 1))}, [*CLASSES])["a"]
    assert (suspicion.axis, suspicion.slice) == (0, 6)


@pytest.mark.parametrize("kind", ["shifted", "eroded", "mirrored"])
def test_pictures_of_one_class_have_no_slices(kind):
    cases = {str(n): (make_label(n, (1, 30, 30)) > 0).astype(int) for n in range(9)}
    predictions = {case: predict(label, int(case)) for case, label in cases.items()}
    cases["4"] = ERRORS[kind](cases["4"], np.random.default_rng(1))
    flat = {"spacing": (1.0, 1.0, 1.0), "classes": {"polyp": (1,)}}
    items = {case: compare(label, predictions[case], **flat) for case, label in cases.items()}
    scored = score_labels(items, ["polyp"])
    assert max(scored, key=lambda case: scored[case].score) == "4"
    assert EVIDENCE[kind] in scored["4"].reason
    assert all(item.slice == 1 and item.axis == 0 for item in scored.values())


def test_labels_without_foreground_are_scored():
    truth, nothing = make_label(0), np.zeros((10, 30, 30), int)
    items = {str(n): compare(make_label(n), predict(make_label(n), n)) for n in range(6)}
    items |= {
        "both empty": compare(nothing, nothing),
        "not predicted": compare(truth, nothing),
        "not labelled": compare(nothing, truth),
    }
    scored = score_labels(items, [*CLASSES])
    assert scored["both empty"].score == 0
    assert np.isnan(scored["both empty"].dice["left"])
    worst = sorted(scored, key=lambda case: -scored[case].score)[:2]
    assert {*worst} == {"not predicted", "not labelled"}
    assert "not labelled" in scored["not labelled"].reason


def test_a_few_predicted_voxels_of_an_absent_class_count_little():
    small, large = make_label(0), make_label(0)
    small[large == 2] = large[large == 2] = 0
    items = {str(n): compare(make_label(n), predict(make_label(n), n)) for n in range(6)}
    prediction = small.copy()
    prediction[5, 5, 20:22] = 2
    items["speck"] = compare(small, prediction)
    items["organ"] = compare(large, make_label(0))
    scored = score_labels(items, [*CLASSES])
    assert scored["speck"].score < scored["organ"].score / 4


def test_ignored_voxels_and_classes_that_are_not_annotated_do_not_count():
    truth = make_label(0)
    label = truth.copy()
    label[:, :, 12:] = 3
    changed = truth.copy()
    changed[:, :, 12:] = 0
    item = compare(label, changed, ignore=3)
    assert dice_of(item.overlaps[AS_IT_IS]).tolist() == [1.0, 1.0]
    assert {*item.overlaps} == {AS_IT_IS}  # the rest of the label is unknown
    partial = compare(np.where(truth == 1, 1, 0), truth, annotated=["left"])
    suspicion = score_labels({"a": partial}, [*CLASSES])["a"]
    assert suspicion.score == 0 and {*suspicion.dice} == {"left"}
    moved, only = np.where(np.roll(truth, 3, 2) == 1, 1, 0), np.where(truth == 1, 1, 0)
    known = compare(moved, only, annotated=["left"])  # as if nothing else were predicted
    other = compare(moved, truth, annotated=["left"])
    assert {*other.overlaps} == {*known.overlaps}
    assert any("moved" in name for name in known.overlaps)
    for name, overlap in known.overlaps.items():
        assert np.array_equal(other.overlaps[name], overlap)


def test_swapped_values_are_seen_in_regions():
    truth = make_label(0)
    swapped = np.choose(truth, [0, 2, 1])
    items = {
        str(n): compare(make_label(n), predict(make_label(n), n), classes=REGIONS)
        for n in range(1, 6)
    }
    items["wrong"] = compare(swapped, truth, classes=REGIONS)
    scored = score_labels(items, [*REGIONS])
    assert max(scored, key=lambda case: scored[case].score) == "wrong"
    assert "swapped" in scored["wrong"].reason


def test_what_all_labels_have_in_common_does_not_count():
    """Predictions of a class that is hard, or too large in every case."""
    items = {}
    for n in range(8):
        label = make_label(n)
        prediction = np.where(np.roll(label, 2, 2) > 0, 1, 0)
        items[str(n)] = compare(label, np.where(label == 2, 2, prediction))
    scores = [item.score for item in score_labels(items, [*CLASSES]).values()]
    assert np.median(scores) < 2


def test_scores_of_several_models_are_averaged():
    items = {str(n): compare(make_label(n), predict(make_label(n), n)) for n in range(6)}
    first = score_labels(items, [*CLASSES])
    second = score_labels({**items, "0": compare(make_label(0), make_label(9) * 0)}, [*CLASSES])
    averaged = average_suspicions([first, second])
    assert averaged["0"].score == pytest.approx((first["0"].score + second["0"].score) / 2)
    assert averaged["0"].reason == second["0"].reason
