"""Only the largest connected piece of a prediction: kept, measured, and suggested."""

from __future__ import annotations

import json
from collections import deque
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.evaluation.measuring import evaluate_folders, find_changed_inputs
from semi_nnunet.evaluation.pieces import (
    DICE,
    ONLY_LARGEST,
    REFERENCES,
    SCATTERED,
    Pieces,
    count_pieces,
)
from semi_nnunet.evaluation.pieces import keep_largest_component as keep
from semi_nnunet.util.errors import UserError
from tests.evaluation.folders import LABELS, evaluate, hearts, write


def find_pieces_slowly(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return the connected sets of voxels by breadth-first search; corners connect."""
    left = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}
    steps = list(product((-1, 0, 1), repeat=mask.ndim))
    pieces = []
    while left:
        first = left.pop()
        piece, queue = {first}, deque([first])
        while queue:
            voxel = queue.popleft()
            near = {tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps} & left
            left -= near
            piece |= near
            queue.extend(near)
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_those_of_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    shape = (5, 9, 9) if seed % 2 else (12, 12)
    labels = rng.integers(1, 3, shape) * (rng.random(shape) < 0.15)
    pieces = find_pieces_slowly(labels > 0)
    one = np.zeros(shape, bool)
    one.flat[:3] = True
    assert count_pieces(labels > 0, one) == Pieces(1, len(pieces))
    largest = max(map(len, pieces))
    expected = np.zeros(shape, labels.dtype)
    for piece in (piece for piece in pieces if len(piece) == largest):
        for voxel in piece:
            expected[voxel] = labels[voxel]
    assert np.array_equal(keep(labels, [1, 2]), expected)


def describe(references, **keys):
    path = references.parent / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def measure(predictions, references):
    return evaluate_folders(predictions, references, processes=1).content


@pytest.mark.parametrize("labels", [LABELS, {"background": 0, "whole": [1, 2], "core": [2]}])
def test_one_piece_measures_what_nnunets_postprocessing_would_leave(tmp_path, labels):
    predictions, references = hearts(tmp_path, labels)
    plain = measure(predictions, references)
    describe(references, one_piece=True)
    kept = measure(predictions, references)
    assert kept["pieces"] == ONLY_LARGEST
    assert plain["pieces"] == {SCATTERED: 2, DICE: kept["foreground_mean"]["dice"]}
    assert kept["foreground_mean"]["dice"] > plain["foreground_mean"]["dice"]
    for path in predictions.glob("*.nii.gz"):
        image = sitk.ReadImage(path)
        array = keep(sitk.GetArrayFromImage(image), [1, 2])
        rewritten = sitk.GetImageFromArray(array)
        rewritten.CopyInformation(image)
        sitk.WriteImage(rewritten, path)
    describe(references, one_piece=False)
    by_hand = measure(predictions, references)
    assert by_hand["pieces"][SCATTERED] == 0
    assert [by_hand["cases"], by_hand["mean"]] == [kept["cases"], kept["mean"]]


def test_pieces_are_not_counted_where_labels_cannot_tell(tmp_path):
    for name, more in (
        ("ignored", {"labels": {**LABELS, "ignore": 3}}),
        ("partial", {"annotated": {"a": ["liver"], "b": ["liver"], "c": ["liver"]}}),
        ("lesions", {"lesions": ["any"]}),
    ):
        predictions, references = hearts(tmp_path / name)
        describe(references, **more)
        assert "pieces" not in measure(predictions, references)
    predictions, references = hearts(tmp_path / "several")
    array = np.zeros((8, 16, 16))
    array[1, 1, 1] = array[6, 9, 9] = 1
    write(references / "b.nii.gz", array)
    assert measure(predictions, references)["pieces"] == {REFERENCES: 1}


def test_evaluate_suggests_the_key_only_where_it_changes_the_dice(tmp_path, capsys):
    predictions, references = hearts(tmp_path)
    assert evaluate(predictions, references) == 0
    assert '"one_piece": true' in capsys.readouterr().out
    for case in "bc":
        write(predictions / f"{case}.nii.gz", np.zeros((8, 16, 16)))
    assert evaluate(predictions, references) == 0
    assert "one_piece" not in capsys.readouterr().out


def test_references_in_several_pieces_contradict_the_key(tmp_path, capsys):
    predictions, references = hearts(tmp_path)
    describe(references, one_piece=True)
    assert evaluate(predictions, references) == 0
    assert "wrong" not in capsys.readouterr().err
    array = np.zeros((8, 16, 16))
    array[1, 1, 1] = array[6, 9, 9] = 1
    write(references / "b.nii.gz", array)
    assert evaluate(predictions, references) == 0
    assert "1 of 3 references" in capsys.readouterr().err


def test_measures_from_before_the_key_are_stale(tmp_path):
    predictions, references = hearts(tmp_path)
    measure(predictions, references)
    description = references.parent / "dataset.json"
    assert find_changed_inputs(predictions, references, description) == []
    describe(references, one_piece=False)
    assert find_changed_inputs(predictions, references, description) == []
    describe(references, one_piece=True)
    assert find_changed_inputs(predictions, references, description) == ["classes"]


@pytest.mark.parametrize("keys", [{"one_piece": "yes"}, {"one_piece": True, "lesions": ["any"]}])
def test_a_wrong_key_is_an_error(tmp_path, keys):
    predictions, references = hearts(tmp_path)
    describe(references, **keys)
    with pytest.raises(UserError, match="one_piece"):
        measure(predictions, references)


def test_lesions_are_not_counted_in_a_single_piece(tmp_path):
    predictions, references = hearts(tmp_path)
    describe(references, one_piece=True)
    with pytest.raises(UserError, match="one_piece"):
        evaluate_folders(predictions, references, lesions=["any"], processes=1)
