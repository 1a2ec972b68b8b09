"""Near-twins: images that are nearly the same picture, such as two views of one lesion.

Each image has a thumbnail, which the check of its file makes from the voxels that it has read. Two
images are near-twins if their thumbnails correlate by at least :data:`ALIKE`. All pairs are
compared, exactly: a projection shortens distances, so pairs that are far apart in the principal
components cannot be near-twins, and sorting by the first component leaves few pairs to compare.

If most images are near-twins, as crops around one organ may be, the thumbnails say nothing, and no
near-twins are reported.
"""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import PatientOf, build_patient_finder
from semi_nnunet.raw.layout import TWINS_FILE
from semi_nnunet.util.files import optional_json, write_json
from semi_nnunet.util.names import list_first
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import CaseReport

logger = logging.getLogger(__name__)
ALIKE = 0.995  # least correlation of near-twins
COMPONENTS, SAMPLED = 32, 20_000  # principal components, and the images that they are computed from
BLOCK = 256  # images that are compared with the others at once
PART = 8192  # pairs whose thumbnails are compared at once
MOST_PAIRS = 5  # for each image, on average
NAMED = 5  # pairs in a warning


@dataclass(frozen=True)
class Twins:
    """Near-twins of a data set.

    Args:
        pairs: of (subset, case), of different patients.
    """

    pairs: tuple[tuple[tuple[str, str], tuple[str, str]], ...]

    def across(self, subset: str, *others: str) -> list[tuple[str, str]]:
        """Return the pairs (case of ``subset``, case of one of the other subsets)."""
        ordered = [
            pair for first, second in self.pairs for pair in ((first, second), (second, first))
        ]
        return [(one, other) for (s, one), (o, other) in ordered if s == subset and o in others]


def find_twins(reports: Sequence[CaseReport], patient_of: PatientOf) -> Twins:
    """Find the near-twins among checked images; cases of one patient need no mention.

    Test images that equal a training image are left out: the check of the data set names them.
    """
    shown = [report for report in reports if report.thumbnail]
    by_length: dict[int, list[CaseReport]] = {}
    for report in shown:
        by_length.setdefault(len(report.thumbnail), []).append(report)
    pairs = []
    for group in by_length.values():
        thumbnails = np.stack([decode_thumbnail(report.thumbnail) for report in group])
        patients = [patient_of(report.case) for report in group]
        for i, j in find_similar_pairs(thumbnails, groups=patients):
            first, second = group[i], group[j]
            is_named = "test" in (first.subset, second.subset) and (
                first.content_hash == second.content_hash
            )
            if not is_named:
                pairs.append(((first.subset, first.case), (second.subset, second.case)))
    return Twins(tuple(sorted(pairs)))


def decode_thumbnail(text: str) -> np.ndarray:
    """Return the grey values of a thumbnail."""
    return np.frombuffer(base64.b64decode(text), np.uint8).astype(np.float32)


def find_similar_pairs(
    vectors: np.ndarray, least: float = ALIKE, groups: Sequence[str] | None = None
) -> list[tuple[int, int]]:
    """Return the pairs of rows (i < j) that correlate by at least ``least``.

    >>> find_similar_pairs(np.array([[0.0, 1, 2], [2, 1, 0], [1, 3, 5]]))
    [(0, 2)]

    Args:
        vectors: (N, values); constant rows are like no other.
        groups: group of each row, such as its patient; pairs within a group are left out. None:
            each row is its own group.

    Returns:
        Sorted pairs; [] if there are more than ``MOST_PAIRS`` for each row, so that they mean
        nothing.
    """
    unit = np.asarray(vectors, np.float32)
    unit = unit - unit.mean(1, keepdims=True)
    norms = np.linalg.norm(unit, axis=1)
    rows = np.flatnonzero(norms > 1e-6)
    if len(rows) < 2:
        return []
    unit = unit[rows] / norms[rows, None]
    projected = _project(unit)
    order = np.argsort(projected[:, 0], kind="stable")
    unit, projected, rows = unit[order], projected[order], rows[order]
    labels = rows if groups is None else np.unique(groups, return_inverse=True)[1][rows]
    reach = float(np.sqrt(2 * (1 - least))) + 1e-4  # distance of unit vectors that correlate so
    squares, pairs = np.square(projected).sum(1), list[tuple[int, int]]()
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        end = int(np.searchsorted(projected[:, 0], projected[stop - 1, 0] + reach, "right"))
        distances = squares[start:stop, None] + squares[None, start:end]
        distances -= 2 * projected[start:stop] @ projected[start:end].T
        first, second = np.nonzero(distances <= reach**2 + 1e-4)
        first, second = first + start, second + start
        counts = (second > first) & (labels[first] != labels[second])
        first, second = first[counts], second[counts]
        for part in range(0, len(first), PART):
            i, j = first[part : part + PART], second[part : part + PART]
            alike = np.einsum("nd,nd->n", unit[i], unit[j]) >= least - 1e-6
            pairs += zip(rows[i[alike]].tolist(), rows[j[alike]].tolist(), strict=True)
            if len(pairs) > max(50, MOST_PAIRS * len(rows)):
                return []
    return sorted((min(pair), max(pair)) for pair in pairs)


def _project(unit: np.ndarray) -> np.ndarray:
    """Return the coordinates along the principal components, which no distance exceeds."""
    sample = unit[:: max(1, len(unit) // SAMPLED)]
    coordinates: np.ndarray = unit @ find_principal_axes(sample, COMPONENTS).astype(np.float32)
    return coordinates


def find_principal_axes(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the axes (values, count) along which rows vary most, the first one most of all."""
    centred = rows - rows.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)  # the largest last
    return vectors[:, ::-1][:, :count]


def find_training_twins(folder: Path, num_processes: int) -> list[list[str]]:
    """Read all images in imagesTr of a raw data set, and return the groups of near-twins."""
    raw = RawDataset.of(folder)
    images = tuple(
        replace(case, subset="unlabelled", label=None)
        for case in raw.cases
        if case.subset == "labelled"
    )
    reports = check_dataset(replace(raw, cases=images), num_processes)
    twins = find_twins(reports, build_patient_finder(raw.description))
    return group_pairs([(first, second) for (_, first), (_, second) in twins.pairs])


# ---- warnings and groups ----


def describe_twins(twins: Twins, tests: int) -> Iterator[str]:
    """Yield warnings about near-twins.

    Args:
        tests: number of test images.
    """
    if leaked := twins.across("test", "labelled", "unlabelled"):
        named = list_first([f"{test} (like {other})" for test, other in leaked], NAMED)
        count = len({test for test, _ in leaked})
        yield (
            f"{count} of {tests} test images have a near-twin among the training images: {named}. "
            f"Measures on them are too good. Fix: move one image of each pair"
        )
    if labelled := twins.across("labelled", "labelled"):
        pairs = sorted({(min(pair), max(pair)) for pair in labelled})
        named = list_first([f"{first} and {second}" for first, second in pairs], NAMED)
        yield (
            f"{len(pairs)} pairs of labelled images are near-twins: {named}. New folds keep them "
            f"together"
        )


def write_twins(preprocessed: Path, twins: Twins) -> None:
    """Write the groups of near-twins among the labelled and unlabelled cases."""
    groups = group_pairs(
        [(first, second) for (s, first), (o, second) in twins.pairs if "test" not in (s, o)]
    )
    path = preprocessed / TWINS_FILE
    if groups or path.is_file():
        write_json(path, {"groups": groups})


def group_pairs(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the connected groups of pairs, sorted.

    >>> group_pairs([("a", "b"), ("c", "d"), ("b", "e")])
    [['a', 'b', 'e'], ['c', 'd']]
    """
    groups: dict[str, list[str]] = {}
    for first, second in pairs:
        one, other = groups.setdefault(first, [first]), groups.setdefault(second, [second])
        if one is not other:
            one += other
            groups |= dict.fromkeys(other, one)
    unique = {id(group): sorted(group) for group in groups.values()}
    return sorted(unique.values())


def join_twins(patient_of: PatientOf, groups: Sequence[Sequence[str]]) -> PatientOf:
    """Return a function like ``patient_of`` that also keeps near-twins together.

    >>> join_twins(str, [["a", "c"]])("c"), join_twins(str, [["a", "c"]])("b")
    ('a', 'b')
    """
    if not groups:
        return patient_of
    pairs = [(patient_of(group[0]), patient_of(case)) for group in groups for case in group[1:]]
    joined = {name: members[0] for members in group_pairs(pairs) for name in members}

    def group_of(case: str) -> str:
        patient = patient_of(case)
        return joined.get(patient, patient)

    return group_of


def join_known_twins(patient_of: PatientOf, preprocessed: Path) -> PatientOf:
    """Return a function like ``patient_of`` that keeps the data set's near-twins together.

    Args:
        preprocessed: the data set's folder, where :func:`write_twins` wrote the groups.
    """
    return join_twins(patient_of, read_twin_groups(preprocessed))


def read_twin_groups(preprocessed: Path) -> list[list[str]]:
    """Return the groups that :func:`write_twins` wrote; [] without them."""
    return list(optional_json(preprocessed / TWINS_FILE).get("groups", []))


def find_split_twins(
    folds: Sequence[Mapping[str, Sequence[str]]], groups: Sequence[Sequence[str]]
) -> dict[int, int]:
    """Return fold -> number of its validation cases with a near-twin in its training."""
    counts = Counter[int]()
    for number, fold in enumerate(folds):
        training, validation = set(fold["train"]), set(fold["val"])
        for group in groups:
            if training.intersection(group):
                counts[number] += len(validation.intersection(group))
    return {number: count for number, count in counts.items() if count}
