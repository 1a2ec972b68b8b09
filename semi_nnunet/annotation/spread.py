"""Choose images by what they look like: typical ones that differ, or random ones that are spread.

Features come from the reports of the images: thumbnails, intensities and sizes. Everything here is
a pure function of numbers. Rows of the same group, such as images of one patient, are never chosen
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from semi_nnunet.verify.reports import CaseReport
from semi_nnunet.verify.twins import decode_thumbnail, find_principal_axes

COMPONENTS = 16  # principal components of the thumbnails
OUTLIER = 3.0  # standard deviations; larger differences of intensities and sizes count as this


def compute_features(reports: Sequence[CaseReport]) -> np.ndarray:
    """Return the features (N, F) of checked images without problems.

    Thumbnails say what the images show, quantiles how bright they are, and the geometry how large
    they are. Each of the three has the same variance, so that none hides the others.
    """
    thumbnails = [decode_thumbnail(report.thumbnail) for report in reports]
    quantiles = [np.ravel(np.asarray(report.quantiles, float)) for report in reports]
    geometries = [report.geometry for report in reports if report.geometry is not None]
    sizes = [np.log([*geometry.shape, *geometry.spacing]) for geometry in geometries]
    blocks = [
        _project(_stack(thumbnails)),
        _standardise(_stack(quantiles)),
        _standardise(_stack(sizes)),
    ]
    return np.concatenate([_scale(block) for block in blocks], 1)


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows; shorter ones, such as of flat images among volumes, end with zeros."""
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return stacked


def _project(rows: np.ndarray) -> np.ndarray:
    coordinates: np.ndarray = (rows - rows.mean(0)) @ find_principal_axes(rows, COMPONENTS)
    return coordinates


def _standardise(rows: np.ndarray) -> np.ndarray:
    centred = rows - np.median(rows, 0)
    deviation = np.std(rows, 0)
    varies = deviation > 1e-9
    standard: np.ndarray = centred[:, varies] / deviation[varies]
    return standard.clip(-OUTLIER, OUTLIER)


def _scale(block: np.ndarray) -> np.ndarray:
    """Return a block with a total variance of 1, or of 0 if all rows are equal."""
    variance = float(block.var(0).sum())
    return block / np.sqrt(variance) if variance > 1e-12 else block * 0


def choose_typical(
    features: np.ndarray, groups: Sequence[str], number: int, covered: np.ndarray
) -> list[int]:
    """Choose rows that are typical and different: greedy k-medoids.

    Each step takes the row that most reduces the sum of all distances to the nearest chosen or
    covered row. A row in a dense region reduces many distances, and none once it is near to a
    chosen row. This is the idea of TypiClust (Hacohen et al. 2022, arXiv:2202.02794) and COLosSAL
    (arXiv:2307.12004), without a network.

    >>> choose_typical(np.array([[0.0], [1], [2], [9]]), "abcd", 2, np.empty((0, 1)))
    [1, 3]

    Args:
        features: (N, F).
        groups: of each row.
        number: of rows; fewer are chosen if there are fewer groups.
        covered: (M, F), rows that are labelled already.
    """
    distances = cdist(features, features)
    nearest = _find_nearest(features, covered)
    free, names = np.ones(len(features), bool), np.array(list(groups))
    chosen = list[int]()
    while len(chosen) < number and free.any():
        gains = np.maximum(nearest[:, None] - distances, 0).sum(0)
        best = int(np.where(free, gains, -1).argmax())
        chosen.append(best)
        nearest = np.minimum(nearest, distances[best])
        free &= names != names[best]
    return chosen


def _find_nearest(features: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return the distance of each row to the nearest covered row, or the largest distance."""
    if len(covered):
        return np.asarray(cdist(features, covered).min(1))
    return np.full(len(features), 2 * float(np.linalg.norm(features, axis=1).max()) + 1e-6)


def draw_rows(
    scores: np.ndarray,
    groups: Sequence[str],
    number: int,
    strata: Sequence[np.ndarray],
    random: np.random.Generator,
    features: np.ndarray | None = None,
    covered: np.ndarray | None = None,
) -> list[tuple[int, int | None]]:
    """Draw rows one after another, each stratum in turn, with a chance proportional to its score.

    Groups of equal scores have equal chances, whatever their number of rows. With ``features`` the
    chance is also proportional to the squared distance to the nearest drawn or covered row, as in
    k-means++.

    Args:
        scores: (N,), at least 0.
        groups: of each row.
        number: of rows; fewer are drawn if there are fewer groups.
        strata: bool (N,) each; (): a single one of all rows. When no stratum has rows left, all
            rows are one.
        random: generator.
        features: (N, F) or None.
        covered: (M, F), rows that are labelled already, or None.

    Returns:
        Rows, each with the index of its stratum or None.
    """
    sizes, names = Counter(groups), np.array(list(groups))
    fair = scores / np.array([sizes[group] for group in groups])
    nearest = np.ones(len(scores))
    if features is not None:
        nearest = _find_nearest(features, features[:0] if covered is None else covered)
    free, drawn = np.ones(len(scores), bool), list[tuple[int, int | None]]()
    turn = 0
    while len(drawn) < number and free.any():
        order = [(turn + step) % len(strata) for step in range(len(strata))]
        stratum = next((index for index in order if (free & strata[index]).any()), None)
        eligible = free if stratum is None else free & strata[stratum]
        chances = np.where(eligible, fair * nearest**2, 0)
        if not chances.sum() > 0:
            chances = eligible.astype(float)
        row = int(random.choice(len(chances), p=chances / chances.sum()))
        drawn.append((row, stratum))
        turn = 0 if stratum is None else stratum + 1
        free &= names != names[row]
        if features is not None:
            nearest = np.minimum(nearest, cdist(features, features[[row]])[:, 0])
    return drawn


def count_represented(
    features: np.ndarray, chosen: Sequence[int], covered: np.ndarray
) -> list[int]:
    """Return for each chosen row how many rows are nearer to it than to any other or covered one.

    >>> count_represented(np.array([[0.0], [1], [2], [9]]), [1, 3], np.empty((0, 1)))
    [3, 1]
    """
    centres = np.concatenate([features[list(chosen)], covered])
    nearest = cdist(features, centres).argmin(1)
    return [int((nearest == place).sum()) for place in range(len(chosen))]
