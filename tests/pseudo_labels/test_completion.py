"""Annotations are kept, and models label the other classes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.predictor import LabelCompletion, complete_probabilities
from semi_nnunet.util.files import read_json, write_json
from tests.pseudo_labels.labelling import read

LABELS = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "ignore": 4}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 1, "ignore": 4}


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("sure", [False, True])
def test_classes_by_hand(random, sure):
    probs = random.dirichlet(np.ones(4), (6, 7)).transpose(2, 0, 1).astype(np.float32)
    if sure:
        probs = (probs == probs.max(0)).astype(np.float32)
    annotation = random.choice([0, 1, 3, 4], (6, 7), p=[0.5, 0.2, 0.2, 0.1])
    annotated = [True, True, False, True]  # no spleen
    completed = complete_probabilities(probs, annotation, annotated, [(0,), (1,), (2,), (3,)], 4)
    np.testing.assert_allclose(completed.sum(0), 1, atol=1e-6)
    labels = LabelManager(LABELS, None).convert_probabilities_to_segmentation(completed)
    for y, x in np.ndindex(annotation.shape):
        p, label = probs[:, y, x], annotation[y, x]
        if label == 4:
            expected = p.argmax()  # nobody knows
        elif label:
            expected = label
        else:
            expected = 2 if p[2] > p[0] else 0
        assert labels[y, x] == expected


def test_regions_by_hand(random):
    probs = random.random((3, 6, 7), dtype=np.float32)
    annotation = random.choice([0, 2, 4], (6, 7))
    completed = complete_probabilities(
        probs, annotation, [False, True, False], [(1, 2, 3), (2, 3), (1,)], 4
    )
    assert np.array_equal(completed[[0, 2]], probs[[0, 2]])
    is_known = annotation != 4
    assert np.array_equal(completed[1][is_known], annotation[is_known] == 2)
    assert np.array_equal(completed[1][~is_known], probs[1][~is_known])
    manager = LabelManager(REGIONS, regions_class_order=[1, 2, 3])
    assert manager.foreground_regions == [(1, 2, 3), (2, 3), 1]


def test_a_complete_annotation_stays_unchanged(random):
    probs = random.dirichlet(np.ones(4), (5, 5)).transpose(2, 0, 1).astype(np.float32)
    annotation = random.integers(0, 4, (5, 5))
    completed = complete_probabilities(
        probs, annotation, [True] * 4, [(0,), (1,), (2,), (3,)], None
    )
    assert np.array_equal(completed.argmax(0), annotation)


def test_ignored_voxels_stay_unknown_to_a_model_without_an_ignore_label(tmp_path):
    labels = tmp_path / "labelsTr"
    labels.mkdir()
    (labels / "a.nii.gz").touch()
    declared = {"background": 0, "liver": 1, "spleen": 2}
    model = {"labels": declared, "file_ending": ".nii.gz"}
    own = {"labels": {**declared, "ignore": 3}, "annotated": {"a": ["spleen"]}}
    write_json(tmp_path / "dataset.json", own)
    assert LabelCompletion.from_folder(labels, model).ignore == 3


def test_the_command_completes_labels_and_labels_images_without_one(pool, capfd, tmp_path):
    annotations = tmp_path / "known"
    annotations.mkdir()
    words = ["pseudo-label", "-i", str(pool.images), "-m", pool.names[0], "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "plain")]) == 0
    cases = sorted(path.name.removesuffix("_0000.nii.gz") for path in pool.images.iterdir())
    truths = sorted((pool.raw / "labelsTr").glob("*.nii.gz"))
    for case, truth in zip(cases[:2], truths, strict=False):
        shutil.copy(truth, annotations / f"{case}.nii.gz")
    annotated = {cases[0]: ["large", "pair"], cases[1]: ["large", "pair", "small"]}
    path = pool.models[0].folder / "dataset.json"
    write_json(path, {**read_json(path), "annotated": annotated})
    words += ["--partial-labels", str(annotations), "-o", str(pool.out)]
    assert main(words) == 0
    for case in cases:
        plain, completed = (
            read(folder / "labels" / f"{case}.nii.gz") for folder in (tmp_path / "plain", pool.out)
        )
        label = annotations / f"{case}.nii.gz"
        if not label.exists():
            assert np.array_equal(completed, plain)
            continue
        truth = read(label)
        for value in (1, 2) if case == cases[0] else (1, 2, 3):
            assert np.array_equal((completed == value), truth == value)
        if case == cases[0]:
            assert (completed[(plain == 3) & (truth == 0)] == 3).all() and (plain == 3).any()
    capfd.readouterr()
    modified = (pool.out / "labels" / f"{cases[1]}.nii.gz").stat().st_mtime_ns
    shutil.copy(truths[2], annotations / f"{cases[0]}.nii.gz")  # one label was corrected
    assert main(words) == 0
    assert np.array_equal(
        read(pool.out / "labels" / f"{cases[0]}.nii.gz") == 1, read(truths[2]) == 1
    )
    assert (pool.out / "labels" / f"{cases[1]}.nii.gz").stat().st_mtime_ns == modified
    annotated[cases[1]] = ["large", "pair"]  # "small" was declared by mistake
    write_json(path, {**read_json(path), "annotated": annotated})
    assert main(words) == 0
    plain, completed = (
        read(folder / "labels" / f"{cases[1]}.nii.gz") for folder in (tmp_path / "plain", pool.out)
    )
    truth = read(annotations / f"{cases[1]}.nii.gz")
    assert (completed[(plain == 3) & (truth == 0)] == 3).all()
    assert main([*words[:-4], "-o", str(pool.out)]) == 2
    assert "begun with other" in capfd.readouterr().err


def test_labels_that_cannot_be_completed_are_reported_before_any_work(pool, capfd, tmp_path):
    words = ["pseudo-label", "-i", str(pool.images), "-m", pool.names[0], "--device", "cpu"]
    words += ["-o", str(pool.out), "--partial-labels", str(pool.raw / "labelsTr")]
    assert main(words) == 2
    assert "leave --partial-labels out" in capfd.readouterr().err
    path = pool.models[0].folder / "dataset.json"
    write_json(path, {**read_json(path), "annotated": {"*": ["large"]}})
    assert main([*words[:-1], str(tmp_path / "absent")]) == 2
    assert "no label *.nii.gz" in capfd.readouterr().err
    assert not (pool.out / "labels").exists()
