"""Tests of the choice by features: a slow reference, groups, strata, and chances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from semi_nnunet.annotation.spread import (
    choose_typical,
    compute_features,
    draw_rows,
)
from semi_nnunet.raw.readers import Geometry
from semi_nnunet.verify.image_files import make_thumbnail
from semi_nnunet.verify.reports import CaseReport


def make_report(seed: int, shape: tuple[int, int, int] = (4, 20, 20)) -> CaseReport:
    random = np.random.default_rng(seed)
    thumbnail = make_thumbnail(random.normal(size=shape))
    quantiles = (tuple(np.sort(random.normal(size=5)).tolist()),)
    geometry = Geometry(shape, (1.0, 1.0, 1.0))
    return CaseReport(
        f"c{seed}", "unlabelled", str(seed), (), geometry, quantiles, thumbnail=thumbnail
    )


def choose_slowly(features: np.ndarray, groups: str, number: int, covered: np.ndarray) -> list[int]:
    """Greedy k-medoids by its definition: the sum of distances to the nearest centre."""
    chosen: list[int] = []
    while len(chosen) < number:
        free = [i for i in range(len(features)) if groups[i] not in [groups[j] for j in chosen]]
        if not free:
            break

        def cost(row: int) -> float:
            centres = [*(features[i] for i in [*chosen, row]), *covered]
            return sum(min(np.linalg.norm(f - c) for c in centres) for f in features)

        chosen.append(min(free, key=cost))
    return chosen


@pytest.mark.parametrize("labelled", [0, 3])
@pytest.mark.parametrize("seed", range(5))
def test_typical_rows_equal_those_of_the_slow_reference(seed, labelled):
    random = np.random.default_rng(seed)
    features, covered = random.normal(size=(25, 3)), random.normal(size=(labelled, 3))
    groups = "".join(random.choice(list("abcdef"), 25))
    expected = choose_slowly(features, groups, 8, covered)
    assert choose_typical(features, groups, 8, covered) == expected
    assert len({groups[row] for row in expected}) == len(expected) == len(set(groups))


def test_typical_rows_come_from_every_cluster_and_not_from_outliers():
    random = np.random.default_rng(0)
    clusters = [random.normal(centre, 0.1, size=(20, 2)) for centre in (0, 10, 20)]
    features = np.concatenate([*clusters, [[200.0, -50.0]]])
    groups = [str(row) for row in range(61)]
    rows = choose_typical(features, groups, 4, clusters[1][:1])
    assert {row // 20 for row in rows[:3]} >= {0, 2} and 1 not in {row // 20 for row in rows[:2]}


def test_rows_are_drawn_once_for_each_group_and_class_in_turn():
    groups = ["p1", "p1", "p1", "p2", "p3", "p4"]
    strata = [np.array([0, 0, 0, 1, 0, 0], bool), np.array([1, 1, 1, 0, 1, 0], bool)]
    for seed in range(20):
        random = np.random.default_rng(seed)
        drawn = draw_rows(np.ones(6), groups, 9, strata, random)
        assert [stratum for _, stratum in drawn] == [0, 1, 1, None]
        assert drawn[0][0] == 3 and drawn[-1][0] == 5
        assert len({groups[row] for row, _ in drawn}) == 4


def test_patients_have_equal_chances_and_scores_change_them():
    groups, counts = ["many"] * 9 + ["one"], {"even": 0, "scored": 0}
    scores = np.ones(10)
    scores[9] = 3.0
    for seed in range(400):
        even = draw_rows(np.ones(10), groups, 1, (), np.random.default_rng(seed))
        scored = draw_rows(scores, groups, 1, (), np.random.default_rng(seed))
        counts["even"] += even[0][0] == 9
        counts["scored"] += scored[0][0] == 9
    assert 160 < counts["even"] < 240 and 260 < counts["scored"] < 340


def test_rows_at_a_labelled_one_are_not_drawn_while_others_are_left():
    features = np.array([[0.0], [0.0], [5.0], [7.0]])
    for seed in range(20):
        random = np.random.default_rng(seed)
        drawn = draw_rows(np.ones(4), "abcd", 2, (), random, features, np.zeros((1, 1)))
        assert {row for row, _ in drawn} == {2, 3}


def test_features_separate_pictures_intensities_and_sizes():
    reports = [make_report(seed) for seed in range(6)]
    flat = make_report(6, (1, 20, 20))
    wide = replace(reports[0], geometry=Geometry((4, 20, 20), (5.0, 1.0, 1.0)))
    bright = replace(reports[0], quantiles=((9.0, 9.5, 10.0, 11.0, 12.0),))
    features = compute_features([*reports, reports[0], flat, wide, bright])
    distances = cdist(features, features)
    assert distances[0, 6] < 1e-6 and np.isfinite(features).all()
    assert all(distances[0, other] > 0.1 for other in (1, 2, 3, 4, 5, 7, 8, 9))


def test_features_of_equal_images_are_equal_and_not_undefined():
    features = compute_features([make_report(0)] * 3)
    assert np.isfinite(features).all() and not cdist(features, features).any()
