"""Choose the unlabelled cases to annotate next: typical ones, uncertain ones, or any, spread out.

The pool falls into as many groups of similar images as cases are wanted. The groups cover what the
labelled images leave open (greedy k-medoids on thumbnails, the idea of TypiClust, arXiv 2202.02794,
and of COLosSAL, arXiv 2307.12004). Of each group, a rule takes the most typical case, an uncertain
one, or any.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from semi_nnunet.annotation.next_page import write_next_page
from semi_nnunet.deploy.trained import require_same_data
from semi_nnunet.pseudo_labels.label import label_pool
from semi_nnunet.pseudo_labels.label_folders import locate_model_labels
from semi_nnunet.pseudo_labels.pool import LabellingRequest, read_uncertainties
from semi_nnunet.raw.description import RawCase, RawDataset
from semi_nnunet.raw.folds import PatientOf, build_patient_finder
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    UNLABELLED_IMAGES,
    find_raw_dataset,
    get_preprocessed_dataset,
)
from semi_nnunet.runs.launching import JobLauncher, UnfinishedError
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import require_place, write_atomically, write_csv
from semi_nnunet.util.names import require_positive
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import CaseReport, read_reports
from semi_nnunet.verify.twins import decode_thumbnail, find_twins, group_pairs, join_twins

logger = logging.getLogger(__name__)
Rule = Literal["typical", "uncertain", "random"]
MOST = 4000  # images that are compared with each other; of more, a random part is
COLUMNS = ("rank", "case", "rule", "uncertainty", "similar_images", "reason", "image")


@dataclass(frozen=True)
class NextCase:
    """A case to annotate.

    Args:
        case: its files.
        reason: why it was chosen, as a sentence.
        similar: number of unlabelled images in its group, itself included.
        uncertainty: of the models, in [0, 1]; NaN without models.
    """

    case: RawCase
    reason: str
    similar: int
    uncertainty: float


@dataclass(frozen=True)
class NextCases:
    """The cases to annotate next.

    Args:
        cases: in the order in which they were chosen.
        rule: that chose them.
        pool: number of unlabelled images that could be chosen.
        page, table: files that show and list them.
        proposals: folder of labels by the models, or None.
    """

    cases: tuple[NextCase, ...]
    rule: Rule
    pool: int
    page: Path
    table: Path
    proposals: Path | None


def find_next_cases(
    dataset: str,
    count: int,
    models: Sequence[str] = (),
    *,
    views: Sequence[str] = (),
    rule: Rule | None = None,
    seed: int = 0,
    out: Path,
    launcher: JobLauncher | None = None,
    processes: int = 1,
) -> NextCases:
    """Choose cases, and write the page and the table; :func:`semi_nnunet.next` documents it."""
    require_positive({"-n": count, "-np": processes})
    if out.suffix == ".csv":
        raise UserError("-o is an HTML file, next to which a .csv is written", fix="x.html")
    rule = rule or ("uncertain" if models else "typical")
    if rule == "uncertain" and not models:
        raise UserError("--rule uncertain needs models", fix="name them by -m")
    table = out.with_suffix(".csv")
    for path in (out, table):
        require_place(path)
    raw = RawDataset.of(find_raw_dataset(dataset))
    request = None
    if models:
        folder = locate_model_labels(raw.folder, models, views)
        request = LabellingRequest(
            raw.folder / UNLABELLED_IMAGES, folder, tuple(models), tuple(views)
        )
        require_same_data(request.trained, raw.content, raw.folder.name)
    pool, labelled, group_of = read_pool(raw, processes)
    uncertainties = {} if request is None else measure_uncertainties(request, launcher)
    groups = {group_of(report.case) for report in pool}
    if count > len(groups):
        logger.info(
            f"WARNING: {count} cases were asked for, and {len(groups)} patients or groups of "
            f"near-twins have an unlabelled image and no labelled one: so many are chosen"
        )
    pool = sample_pool(pool, seed)
    vectors = scale_thumbnails([*pool, *labelled])
    own, known = vectors[: len(pool)], vectors[len(pool) :]
    names = [group_of(report.case) for report in pool]
    medoids, members = cover_pool(own, known, names, min(count, len(groups)))
    chosen = choose_members(
        [report.case for report in pool], names, medoids, members, rule, uncertainties, seed
    )
    files = {case.case: case for case in raw.cases if case.subset == "unlabelled"}
    sizes = np.bincount(members, minlength=len(medoids))
    ranks = {case: rank for rank, case in enumerate(_sort_uncertain(uncertainties), start=1)}
    cases = tuple(
        NextCase(
            files[case],
            describe_reason(rule, int(sizes[number]), ranks.get(case), len(ranks)),
            int(sizes[number]),
            uncertainties.get(case, math.nan),
        )
        for number, case in enumerate(chosen)
    )
    proposals = None if request is None else request.labels
    found = NextCases(cases, rule, len(pool), out, table, proposals)
    write_csv(table, [COLUMNS, *list_rows(found)])
    write_atomically(out, lambda path: write_next_page(path, raw, found))
    return found


# ---- the pool ----


def read_pool(
    raw: RawDataset, processes: int
) -> tuple[list[CaseReport], list[CaseReport], PatientOf]:
    """Return the readable unlabelled cases without a labelled twin or patient, the labelled ones,
    and case -> its group: patients, joined by near-twins.

    Raises:
        UserError: no unlabelled case is left.
    """
    own = tuple(case for case in raw.cases if case.subset != "test")
    earlier = read_reports(get_preprocessed_dataset(raw.folder.name) / CHECKED_FILE)
    reports = check_dataset(replace(raw, cases=own), processes, earlier=earlier)
    shown = [report for report in reports if report.thumbnail and not report.problems]
    if len(shown) < len(reports):
        names = sorted({report.case for report in reports} - {report.case for report in shown})
        logger.info(f"left out, as semi_nnunet preprocess reports: {', '.join(names[:10])}")
    patient_of = build_patient_finder(raw.description)
    pairs = find_twins(shown, patient_of).pairs
    group_of = join_twins(patient_of, group_pairs([(one, two) for (_, one), (_, two) in pairs]))
    labelled = [report for report in shown if report.subset == "labelled"]
    taken = {group_of(report.case) for report in labelled}
    pool = [r for r in shown if r.subset == "unlabelled" and group_of(r.case) not in taken]
    if not pool:
        raise UserError(
            f"{raw.folder / UNLABELLED_IMAGES} has no image of a patient without label",
            fix="put images without labels there",
        )
    return pool, labelled, group_of


def sample_pool(pool: list[CaseReport], seed: int) -> list[CaseReport]:
    """Return at most :data:`MOST` cases, at random."""
    if len(pool) <= MOST:
        return pool
    logger.info(f"{MOST} of {len(pool)} unlabelled images, at random, are compared")
    return sorted(random.Random(seed).sample(pool, MOST), key=lambda r: r.case)  # noqa: S311


def scale_thumbnails(reports: Sequence[CaseReport]) -> np.ndarray:
    """Return a unit vector of zero mean for each image, float32 (images, values).

    Their squared distance is twice 1 - correlation.
    """
    thumbnails = [decode_thumbnail(report.thumbnail) for report in reports]
    longest = max(map(len, thumbnails))  # flat images and volumes have other lengths
    vectors = np.zeros((len(thumbnails), longest), np.float32)
    for row, thumbnail in zip(vectors, thumbnails, strict=True):
        row[: len(thumbnail)] = thumbnail - thumbnail.mean()
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=vectors, where=norms > 0)


def measure_uncertainties(
    request: LabellingRequest, launcher: JobLauncher | None
) -> dict[str, float]:
    """Label the pool as ``semi_nnunet select`` does, and return the uncertainty of each case.

    It is the disagreement of several models, or the entropy of one, where either sees foreground.

    Raises:
        UnfinishedError: no image is labelled.
    """
    labelled = label_pool(request, launcher or JobLauncher())
    if labelled is None or not labelled.cases:
        raise UnfinishedError("no image is labelled", fix="see above")
    scores = read_uncertainties(request.done())
    return {case: values.get("disagreement", values["entropy"]) for case, values in scores.items()}


# ---- the choice ----


def cover_pool(
    pool: np.ndarray, known: np.ndarray, names: Sequence[str], count: int
) -> tuple[list[int], np.ndarray]:
    """Choose the images that best stand for all, one after another: greedy k-medoids.

    Each choice lowers the summed distance of all images to the nearest chosen or labelled one most.

    >>> pool = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    >>> cover_pool(pool, np.empty((0, 1)), "abcde", 2)[0]
    [2, 3]

    Args:
        pool: (N, values), features of the unlabelled images.
        known: (M, values), those of the labelled ones.
        names: group of each image of the pool; no two chosen ones share one.
        count: at most the number of groups.

    Returns:
        Indices of the chosen images, and for each image the number of the nearest chosen one.
    """
    distances = _measure_distances(pool, pool)
    nearest = np.full(len(pool), distances.max())
    if len(known):
        nearest = np.minimum(nearest, _measure_distances(pool, known).min(1))
    chosen, free = list[int](), np.ones(len(pool), bool)
    groups = np.asarray(list(names))
    for _ in range(count):
        gains = np.maximum(nearest[:, None] - distances, 0).sum(0)
        best = int(np.argmax(np.where(free, gains, -1)))
        chosen.append(best)
        free &= groups != groups[best]
        nearest = np.minimum(nearest, distances[:, best])
    return chosen, np.argmin(distances[:, chosen], 1)


def _measure_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1)[None]
    return np.sqrt(np.maximum(squares - 2 * one @ other.T, 0))


def choose_members(
    cases: Sequence[str],
    names: Sequence[str],
    medoids: Sequence[int],
    members: np.ndarray,
    rule: Rule,
    uncertainties: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Return one case of each group of similar images.

    The uncertain case of a group is drawn with a probability proportional to its uncertainty
    (stochastic batches, arXiv 2106.12059, as ClaSP PE, arXiv 2601.13677), so that a batch is not of
    one kind of mistake. Without a case of another patient, its medoid stands.

    Args:
        cases: names of the images of the pool.
        names: their patients or groups of near-twins.
        medoids, members: see :func:`cover_pool`.
        rule: "typical" takes the medoid, "uncertain" an uncertain case, "random" any.
        uncertainties: case -> uncertainty; without one, a case is only taken at random.
        seed: of the random numbers.
    """
    if rule == "typical":
        return [cases[index] for index in medoids]
    chance = random.Random(seed)  # noqa: S311 - no secret
    if rule == "random":
        drawn = dict[str, str]()
        for index in chance.sample(range(len(cases)), len(cases)):
            drawn.setdefault(names[index], cases[index])
        return [*drawn.values()][: len(medoids)]
    reserved, chosen = {names[index] for index in medoids}, []
    for number, medoid in enumerate(medoids):
        reserved.discard(names[medoid])
        best, best_key = medoid, -math.inf
        for index in np.flatnonzero(members == number).tolist():
            score = uncertainties.get(cases[index], 0.0)
            gumbel = -math.log(-math.log(chance.uniform(1e-12, 1 - 1e-12)))
            key = math.log(score) + gumbel if score > 0 else -math.inf
            if names[index] not in reserved and key > best_key:
                best, best_key = index, key
        reserved.add(names[best])
        chosen.append(cases[best])
    return chosen


def describe_reason(rule: Rule, similar: int, rank: int | None, ranked: int) -> str:
    """Return why a case was chosen, as a sentence.

    >>> describe_reason("typical", 7, None, 0)
    'It stands for 7 similar images.'

    Args:
        rule: that chose it.
        similar: number of images in its group.
        rank: of its uncertainty, or None.
        ranked: number of images with an uncertainty.
    """
    if rule == "random":
        return "It was drawn at random."
    group = f"{similar} similar images" if similar > 1 else "an image that no other resembles"
    if rule == "typical":
        return f"It stands for {group}."
    place = "" if rank is None else f", number {rank} of {ranked} by uncertainty"
    return f"It was drawn from {group}{place}."


def _sort_uncertain(uncertainties: Mapping[str, float]) -> list[str]:
    return sorted(uncertainties, key=lambda case: (-uncertainties[case], case))


def list_rows(found: NextCases) -> Iterator[list[object]]:
    """Yield a row of the table for each case."""
    for rank, item in enumerate(found.cases, start=1):
        score = "" if math.isnan(item.uncertainty) else f"{item.uncertainty:.4f}"
        files = [str(path) for path in item.case.images]
        yield [rank, item.case.case, found.rule, score, item.similar, item.reason, files[0]]
