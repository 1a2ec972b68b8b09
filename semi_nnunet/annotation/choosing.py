"""Choose the unlabelled cases to annotate next, and say why.

Without a model, typical and different images are chosen. With models, images in which they are
uncertain have a higher chance, as in ClaSP PE (arXiv:2601.13677): each class has its turn, and a
power of the uncertainty is the chance of a case, which equals adding Gumbel noise to its logarithm.
Here the unit is a whole case instead of a patch, and cases far from the labelled ones have a higher
chance, too. The uncertainty is that of ``pseudo-label``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semi_nnunet.annotation.spread import (
    choose_typical,
    compute_features,
    count_represented,
    draw_rows,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest, read_uncertainties
from semi_nnunet.raw.classes import get_declared_classes
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import build_patient_finder, case_as_patient
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    UNLABELLED_IMAGES,
    read_skipped_cases,
)
from semi_nnunet.raw.readers import (
    BrokenFileError,
    choose_reader,
    read_with_nnunet,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.parallel import in_processes
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import CaseReport, read_reports, write_reports
from semi_nnunet.verify.twins import find_twins, group_pairs, join_twins

Rule = Literal["typical", "uncertain", "random", "random-foreground"]
MODEL_RULES = ("uncertain", "random-foreground")
POWER = 2  # of the uncertainty; 0 would be random, and a large one always the most uncertain
MOST_COMPARED = 4000  # images that are compared with each other; of more, as many are drawn


@dataclass(frozen=True)
class NextCase:
    """A case to annotate.

    Args:
        case: its name.
        reason: why it was chosen, a sentence.
        uncertainty: of the models, or None.
    """

    case: str
    reason: str
    uncertainty: float | None = None


@dataclass(frozen=True)
class AnnotationChoice:
    """The cases to annotate next.

    Args:
        dataset: full name of the data set.
        rule: by which they were chosen.
        cases: the chosen ones.
        pool: number of cases that could be chosen.
        notes: what limited the choice.
        page, table: files that show and list them.
        accept: the command that accepts the reviewed labels.
        review: folder of the proposed labels to correct, or None.
    """

    dataset: str
    rule: Rule
    cases: tuple[NextCase, ...]
    pool: int
    notes: tuple[str, ...]
    page: Path
    table: Path
    accept: str
    review: Path | None = None


@dataclass(frozen=True)
class CasePool:
    """Cases that may be chosen, with all that a rule may know of them.

    Args:
        raw: the data set.
        reports: of the unlabelled cases that may be chosen.
        features: (N, F) of these.
        covered: (M, F) of the labelled cases.
        groups: patient of each case; near-twins count as one patient.
        notes: what limits the choice.
    """

    raw: RawDataset
    reports: tuple[CaseReport, ...]
    features: np.ndarray
    covered: np.ndarray
    groups: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return [report.case for report in self.reports]

    def keep(self, rows: Sequence[int]) -> CasePool:
        """Return the pool of some of the cases."""
        return replace(
            self,
            reports=tuple(self.reports[row] for row in rows),
            features=self.features[list(rows)],
            groups=tuple(self.groups[row] for row in rows),
        )


@dataclass(frozen=True)
class PoolScores:
    """What models say about the cases of a pool.

    Args:
        uncertainty: (N,) in [0, 1].
        name: of the score.
        strata: class -> bool (N,): cases in which the models see it; the rarest among the labelled
            cases first.
        labelled: class -> number of labelled cases that show it.
    """

    uncertainty: np.ndarray
    name: str
    strata: dict[str, np.ndarray]
    labelled: dict[str, int]


# ---- the pool ----


def collect_pool(raw: RawDataset, preprocessed: Path, cache: Path, processes: int) -> CasePool:
    """Check the unlabelled images, and leave out unsuitable ones.

    These are damaged images, images that preprocessing skipped, and near-twins of labelled ones.
    No label is read.

    Args:
        raw: the data set.
        preprocessed: its preprocessed folder, which need not exist.
        cache: file of reports, so that unchanged images are not decoded again.
        processes: number of worker processes.

    Raises:
        UserError: no case is left.
    """
    skipped = read_skipped_cases(preprocessed)
    unlabelled = [case for case in raw.cases if case.subset == "unlabelled"]
    if not unlabelled:
        raise UserError(
            f"{raw.folder / UNLABELLED_IMAGES} holds no image CASE_0000"
            f"{raw.description['file_ending']} to choose from",
            fix="put the unlabelled images there",
        )
    left_out = raw.labelled.union(skipped)
    present = [case for case in unlabelled if case.case not in left_out]
    labelled = [replace(case, label=None) for case in raw.cases if case.subset == "labelled"]
    known = read_reports(preprocessed / CHECKED_FILE) | read_reports(cache)
    images = replace(raw, cases=(*labelled, *present))
    checked = check_dataset(images, processes, earlier=known)
    write_reports(cache, checked)
    reports = [report for report in checked if report.thumbnail and not report.problems]
    twins = find_twins(reports, case_as_patient)
    leaked = {case for case, _ in twins.across("unlabelled", "labelled")}
    hashes = {report.content_hash for report in reports if report.subset == "labelled"}
    free = [
        report
        for report in reports
        if report.subset == "unlabelled"
        and report.case not in leaked
        and report.content_hash not in hashes
    ]
    bad = [r for r in checked if r.subset == "unlabelled" and (r.problems or not r.thumbnail)]
    counts = {
        "already labelled or skipped by preprocess": len(unlabelled) - len(present),
        "damaged": len(bad),
        "nearly the same as a labelled image": len(present) - len(bad) - len(free),
    }
    notes = [f"{n} unlabelled cases are left out: {why}" for why, n in counts.items() if n]
    if not free:
        raise UserError(
            f"no case of {raw.folder / UNLABELLED_IMAGES} can be chosen; {'; '.join(notes)}",
            fix="semi_nnunet preprocess names every problem; add other images",
        )
    of_hash: dict[str | None, str] = {}
    pairs = [(of_hash.setdefault(r.content_hash, r.case), r.case) for r in free]
    pairs += [(first, second) for (_, first), (_, second) in twins.pairs]
    twin_groups = [group for group in group_pairs(pairs) if len(group) > 1]
    group_of = join_twins(build_patient_finder(raw.description), twin_groups)
    ordered = [*free, *(report for report in reports if report.subset == "labelled")]
    features = compute_features(ordered)
    covered, groups = features[len(free) :], tuple(group_of(report.case) for report in free)
    return CasePool(raw, tuple(free), features[: len(free)], covered, groups, tuple(notes))


# ---- scores of models ----


def score_pool(pool: CasePool, request: LabellingRequest, processes: int) -> PoolScores:
    """Read the uncertainty and the predicted classes of the labelled pool.

    Raises:
        UserError: no case has a label.
    """
    uncertainties = read_uncertainties(request.state(pool.cases).done)
    if not uncertainties:
        raise UserError("the models labelled none of the cases", fix="see the reasons above")
    available = set.intersection(*(set(values) for values in uncertainties.values()))
    name = "disagreement" if "disagreement" in available else "entropy"
    labels = [request.label_path(case) for case in pool.cases if case in uncertainties]
    classes = get_declared_classes(pool.raw.description["labels"])
    shown = find_shown_classes(labels, pool.raw, processes)
    predicted = dict(zip([c for c in pool.cases if c in uncertainties], shown, strict=True))
    counts = count_labelled_cases(pool.raw, processes)
    strata = {
        label: np.array([label in predicted.get(case, ()) for case in pool.cases])
        for label in sorted(classes, key=lambda label: counts[label])
    }
    values = [uncertainties.get(case, {}).get(name, 0.0) for case in pool.cases]
    return PoolScores(np.array(values), name, strata, counts)


def count_labelled_cases(raw: RawDataset, processes: int) -> dict[str, int]:
    """Return class -> number of labelled cases that show it."""
    labels = [Path(case.label) for case in raw.cases if case.subset == "labelled" and case.label]
    shown = find_shown_classes(labels, raw, processes)
    classes = get_declared_classes(raw.description["labels"])
    return {label: sum(label in names for names in shown) for label in classes}


def find_shown_classes(
    labels: Sequence[Path], raw: RawDataset, processes: int
) -> list[frozenset[str]]:
    """Return the classes with a voxel in each of the label files."""
    if not labels:
        return []
    reader = choose_reader(raw.description, [str(labels[0])])
    classes = get_declared_classes(raw.description["labels"])
    find = partial(_find_shown, reader, classes)
    return list(in_processes(find, list(map(str, labels)), processes, "reads labels"))


def _find_shown(
    reader: type[Any], classes: Mapping[str, tuple[int, ...]], path: str
) -> frozenset[str]:
    try:
        values = np.unique(read_with_nnunet(path, reader, is_label=True)[0])
    except BrokenFileError as error:
        raise UserError(f"{path} {error}", fix=error.fix) from error
    return frozenset(name for name, own in classes.items() if np.isin(own, values).any())


# ---- rules ----


def choose_from_pool(
    pool: CasePool, scores: PoolScores | None, rule: Rule, number: int, seed: int
) -> list[NextCase]:
    """Choose cases by a rule; the same arguments give the same cases.

    Args:
        pool: to choose from.
        scores: of models, needed by "uncertain" and "random-foreground".
        rule: one of :data:`Rule`.
        number: of cases; fewer are chosen if there are fewer patients.
        seed: of the random numbers.
    """
    random = np.random.default_rng([seed, len(pool.covered)])
    cases, total = pool.cases, len(pool.cases)
    if rule == "typical":
        if total > MOST_COMPARED:
            kept = sorted(random.choice(total, MOST_COMPARED, replace=False).tolist())
            pool = pool.keep(kept)
            cases, total = pool.cases, len(kept)
        rows = choose_typical(pool.features, pool.groups, number, pool.covered)
        represented = count_represented(pool.features, rows, pool.covered)
        return [
            NextCase(
                cases[row],
                f"It represents {count} of {total} images: no other chosen and no labelled image "
                f"is more similar to them.",
            )
            for row, count in zip(rows, represented, strict=True)
        ]
    even = np.ones(total)
    if scores is None or rule == "random":
        patients = len(set(pool.groups))
        reason = f"It was drawn at random from {total} cases of {patients} patients."
        return [
            NextCase(cases[row], reason)
            for row, _ in draw_rows(even, pool.groups, number, (), random)
        ]
    names, masks = list(scores.strata), list(scores.strata.values())
    if rule == "random-foreground":
        drawn = draw_rows(even, pool.groups, number, masks, random)
    else:
        chances = np.maximum(scores.uncertainty, 1e-3) ** POWER
        drawn = draw_rows(chances, pool.groups, number, masks, random, pool.features, pool.covered)
    return [
        NextCase(
            cases[row],
            _explain_draw(scores, rule, row, None if stratum is None else names[stratum]),
            float(scores.uncertainty[row]),
        )
        for row, stratum in drawn
    ]


def _explain_draw(scores: PoolScores, rule: Rule, row: int, label: str | None) -> str:
    if label is None:
        return "The models see no class in it, and all images with a class are chosen or left out."
    shown = f"The models see {label}, which {scores.labelled[label]} labelled cases show."
    if rule == "random-foreground":
        return f"{shown} It was drawn at random from {int(scores.strata[label].sum())} such images."
    among = scores.uncertainty[scores.strata[label]]
    share = round(100 * float(np.mean(among < scores.uncertainty[row])))
    return (
        f"{shown} The {scores.name} is {scores.uncertainty[row]:.3f}, higher than in {share} % of "
        f"the {len(among)} images in which they see it. Images that differ from the labelled ones "
        f"had a higher chance."
    )
