"""How many cases each domain has, and how far its images are from the labelled ones.

The statistics come from the reports of ``preprocess``, one for each image.

**Distance of intensities.** nnU-Net normalises a channel by its name. A channel that is normalised
within each image keeps only the shape of its histogram, so its quantiles are first mapped to 0 and
1 at the outermost ones. Then, for the quantiles 5 %, 50 % and 95 % of each channel, the mean over
the domain's images minus the mean over the labelled images is divided by the standard deviation of
the labelled images (at least 1 % of their range). The distance is the mean of the absolute values.

**Spacing and size.** Geometric mean of an image's edges, in mm, over that of the labelled images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semi_nnunet.raw.description import get_channel_names
from semi_nnunet.raw.domains import DomainOf, DomainRule
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.raw.layout import CHECKED_FILE, DATASET_JSON, read_skipped_cases
from semi_nnunet.util.files import optional_json
from semi_nnunet.verify.domain import (
    UNITLESS_FACTOR,
    compute_size_mm,
    count_axes,
    get_intensity_factor,
)
from semi_nnunet.verify.reports import CaseReport, read_reports

LEAST_SPREAD = 0.01  # of the range of the labelled images


@dataclass(frozen=True)
class DomainFacts:
    """The cases of a domain, and what separates them from the labelled images.

    Args:
        distance: of the intensities, in standard deviations of the labelled images; NaN with fewer
            than two of these.
        spacing: ratio of the edges of voxels; NaN without labelled images.
        size: ratio of the edges of images; NaN without labelled images.
    """

    name: str
    labelled: int
    unlabelled: int
    test: int
    distance: float
    spacing: float
    size: float

    def describe_cases(self) -> str:
        """Return the numbers of cases as text, and whether the domain has no label."""
        counts = f"{self.labelled} labelled, {self.unlabelled} unlabelled, {self.test} test cases"
        return counts if self.labelled else f"{counts}; NO LABEL"

    def describe_distance(self) -> str:
        """Return the distances from the labelled images as text."""
        if math.isnan(self.distance):
            return "its distance needs two labelled images"
        ratios = f"spacing x {self.spacing:.2f}, size x {self.size:.2f}"
        return f"intensities {self.distance:.1f} SD from the labelled images, {ratios}"

    def __str__(self) -> str:
        """Return all of it in a line."""
        return f"{self.name}: {self.describe_cases()}; {self.describe_distance()}"


def load_domain_facts(preprocessed: Path) -> list[DomainFacts]:
    """Return the facts on each domain of a preprocessed data set; [] if it names none."""
    description = optional_json(preprocessed / DATASET_JSON)
    rule = DomainRule.of(description)
    if rule is None:
        return []
    skipped = read_skipped_cases(preprocessed)
    reports = [
        report
        for (subset, case), report in read_reports(preprocessed / CHECKED_FILE).items()
        if subset != "unlabelled" or case not in skipped
    ]
    channels = [str(name) for name in get_channel_names(description).values()]
    pseudo_labelled = read_pseudo_labelled_cases(preprocessed)
    return compute_domain_facts(reports, rule.domain_of, channels, pseudo_labelled)


def compute_domain_facts(
    reports: Iterable[CaseReport],
    domain_of: DomainOf,
    channels: Sequence[str],
    pseudo_labelled: Collection[str] = (),
) -> list[DomainFacts]:
    """Count the cases of each domain, and compare its images with the labelled ones.

    Args:
        reports: of all cases without problems.
        channels: their names.
        pseudo_labelled: training cases that a model labelled; they count as unlabelled.
    """

    def is_labelled(report: CaseReport) -> bool:
        return report.subset == "labelled" and report.case not in pseudo_labelled

    labelled, domains = list[CaseReport](), defaultdict[str, list[CaseReport]](list)
    for report in reports:
        if report.geometry is not None and len(report.quantiles) == len(channels):
            domains[domain_of(report.case)].append(report)
            if is_labelled(report):
                labelled.append(report)
    facts = []
    for name, members in sorted(domains.items()):
        tests = sum(report.subset == "test" for report in members)
        labels = sum(is_labelled(report) for report in members)
        spacing, size = math.nan, math.nan
        if labelled:
            edges = measure_log_edges(members) - measure_log_edges(labelled)
            spacing, size = map(float, np.exp(edges))
        distance = compute_intensity_distance(members, labelled, channels)
        others = len(members) - labels - tests
        facts.append(DomainFacts(name, labels, others, tests, distance, spacing, size))
    return facts


def compute_intensity_distance(
    reports: Sequence[CaseReport], labelled: Sequence[CaseReport], channels: Sequence[str]
) -> float:
    """Return the distance of intensities as the module defines it; NaN for one labelled image."""
    if len(labelled) < 2:
        return math.nan
    is_unitless = [get_intensity_factor(name) == UNITLESS_FACTOR for name in channels]
    ours, theirs = (normalise_quantiles(group, is_unitless) for group in (reports, labelled))
    ranges = theirs[..., -1:].mean(0) - theirs[..., :1].mean(0)  # (C, 1)
    spread = theirs[..., 1:-1].std(0, ddof=1)
    spread = np.maximum(spread, np.maximum(LEAST_SPREAD * ranges, np.finfo(float).tiny))
    difference = ours[..., 1:-1].mean(0) - theirs[..., 1:-1].mean(0)
    return float(np.abs(difference / spread).mean())


def normalise_quantiles(reports: Sequence[CaseReport], is_unitless: Sequence[bool]) -> np.ndarray:
    """Return quantiles (cases, C, Q), mapped to 0 and 1 where nnU-Net removes the unit."""
    table = np.array([report.quantiles for report in reports], dtype=float)
    low, high = table[..., :1], table[..., -1:]
    width = np.where(high > low, high - low, 1.0)
    return np.where(np.array(is_unitless)[:, None], (table - low) / width, table)


def measure_log_edges(reports: Sequence[CaseReport]) -> np.ndarray:
    """Return the means of the logarithms of the edges of voxels and of images (2,)."""
    rows = []
    for geometry in (report.geometry for report in reports if report.geometry is not None):
        axes = count_axes(geometry)
        edges = [geometry.spacing[-axes:], compute_size_mm(geometry)[-axes:]]
        rows.append(np.log(np.array(edges, dtype=float)).mean(1))
    return np.array(rows).mean(0)
