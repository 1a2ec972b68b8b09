"""Are the unlabelled images of the world of the labelled ones? A ranked list of those that are not.

Nothing refuses an image of a wrong organ, unit, axis or scanner, and a method learns from whatever
lies in imagesUn. Every unlabelled image is compared with the range of the labelled ones, widened by
a factor, as a few labelled images are far from showing all that is ordinary. A reason says what was
found and what the labelled images have. Its severity is 1 where the widened range ends, and grows
by 1 with every further factor, so that different quantities can be ranked together.

How far ranges are widened:

* Spacing and physical size, each axis: by 3. Slices of 1 and of 5 mm, an abdomen and a whole trunk
  are in one hospital. (The number of voxels is one divided by the other, and not compared again.)
* Intensities of a channel that nnU-Net normalises with the same numbers in every image, which its
  name decides (CT, rgb_to_0_1): by 4. They have a unit.
* Intensities of a channel that it normalises by each image itself (MR): by 100. Four labelled
  images of MSD's hippocampus already differ by a factor of 20, 91 by one of 39, and the unit is
  gone after the normalisation: what is found here is a mistake or another kind of image.
* Negative values, where no labelled image has them, or all have: not at all. They tell CT from MR.
* The side of the patient to which the axes run: not at all. nnU-Net takes axes as they lie, so that
  a mirrored image shows the heart on the right. Oblique axes are not compared.
* The origin: only by much, and as a mild reason, which alone makes no outlier: it depends on where
  a scanner has its zero, and nnU-Net never uses it. Beyond 10 m no scanner reaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    RescaleTo01Normalization,
    ZScoreNormalization,
)
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    get_normalization_scheme,
)

from semi_nnunet.data.image_files import UNTOLD, Geometry
from semi_nnunet.data.integrity import CaseReport

SPACING_FACTOR = SIZE_FACTOR = 3.0
UNIT_FACTOR, UNITLESS_FACTOR = 4.0, 100.0  # of intensities
OF_EACH_IMAGE = (ZScoreNormalization, RescaleTo01Normalization)
NEGATIVE = 0.02  # of the span of the labelled images: values below minus that are negative
MILD = 0.5  # the severity of an origin far away
FAR_MM, FAR_EXTENTS, UNREAL_MM = 300.0, 3.0, 10_000.0


@dataclass(frozen=True)
class Reason:
    """A whole sentence about what sets a case apart, and by how much; see the module."""

    text: str
    severity: float


@dataclass(frozen=True)
class Outlier:
    """An unlabelled case that differs much from the labelled ones.

    Args:
        case: its identifier.
        score: sum of the severities of its reasons, 1 or more.
        reasons: whole sentences, the worst first.
    """

    case: str
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of each of several quantities (N,)."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]] | Sequence[np.ndarray]) -> Range:
        """Of one row a case."""
        table = np.array(rows, dtype=float)
        return cls(table.min(0), table.max(0))

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """How far each value lies outside, 0 inside."""
        return np.maximum(np.maximum(self.low - values, values - self.high), 0)

    def factors_beyond(self, values: np.ndarray, factor: float) -> float:
        """By how many factors the farthest value lies outside; all are above 0."""
        logs = Range(np.log(self.low), np.log(self.high)).beyond(np.log(values))
        return float(logs.max()) / math.log(factor)

    def of_last(self, axes: int) -> Range:
        """Of the last quantities alone."""
        return Range(self.low[-axes:], self.high[-axes:])

    def __str__(self) -> str:
        """All quantities, such as "2 to 2.5 x 1 x 1"."""
        return times(
            f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.4g} to {high:.4g}"
            for low, high in zip(self.low, self.high, strict=True)
        )


@dataclass(frozen=True)
class Labelled:
    """What the labelled images span.

    Args:
        spacing, size: of each axis, in mm, in nnU-Net's order (Z, Y, X).
        axes: how many of them there are: 2 if all images are flat.
        origin: in mm; None for formats without one.
        towards: the sides to which the axes of the images run; empty if one does not tell.
        quantiles: of the voxels, a range for each channel.
        spans: greatest minus least quantile of each channel.
    """

    spacing: Range
    size: Range
    axes: int
    origin: Range | None
    towards: frozenset[str]
    quantiles: tuple[Range, ...]
    spans: Range

    @classmethod
    def of(cls, reports: Sequence[CaseReport]) -> Labelled:
        """Of the labelled ones among all reports; there is at least one."""
        of_labelled = [r for r in reports if r.subset == "labelled" and not r.problems]
        places = [report.geometry for report in of_labelled if report.geometry]
        origins = [place.origin for place in places if place.origin is not None]
        towards = frozenset(place.towards for place in places)
        channels = zip(*(report.quantiles for report in of_labelled), strict=True)
        return cls(
            Range.of([place.spacing for place in places]),
            Range.of([extent(place) for place in places]),
            max(axes_of(place) for place in places),
            Range.of(origins) if len(origins) == len(places) else None,
            frozenset() if towards & {"", UNTOLD} else towards,
            tuple(Range.of(rows) for rows in channels),
            Range.of([spans(report) for report in of_labelled]),
        )


def find_outliers(
    reports: Sequence[CaseReport], channels: Sequence[str], other_domain: bool = False
) -> list[Outlier]:
    """The unlabelled cases that differ much from the labelled ones, the worst first.

    Args:
        reports: of all cases; unlabelled ones with problems are left out.
        channels: their names, by which nnU-Net chooses the normalisation.
        other_domain: the unlabelled images are declared to be of another kind, such as MR to CT;
            spacing, size, place and intensities are not compared then, only the axes are.
    """
    labelled = Labelled.of(reports)
    found = []
    for report in reports:
        if report.subset != "unlabelled" or report.problems or report.geometry is None:
            continue
        reasons = list(orientation_reasons(report.geometry, labelled))
        if not other_domain:
            reasons += place_reasons(report.geometry, labelled)
            reasons += intensity_reasons(report, labelled, channels)
        score = sum(reason.severity for reason in reasons)
        if score >= 1:
            reasons.sort(key=lambda reason: -reason.severity)
            found.append(Outlier(report.case, score, tuple(reason.text for reason in reasons)))
    return sorted(found, key=lambda outlier: (-outlier.score, outlier.case))


# ---- where the voxels are ----


def orientation_reasons(place: Geometry, labelled: Labelled) -> Iterator[Reason]:
    """Axes that run to a side to which no labelled image's do, or to one that nobody knows."""
    if place.towards and labelled.towards and place.towards not in labelled.towards:
        known = " or ".join(sorted(labelled.towards))
        what = f"Its axes x, y, z run towards {place.towards} of the patient"
        if place.towards == UNTOLD:
            what = "Its header does not tell where its axes x, y, z run to (qform and sform are 0)"
        yield Reason(f"{what}, those of the labelled images towards {known}.", 1.0)


def place_reasons(place: Geometry, labelled: Labelled) -> Iterator[Reason]:
    """A spacing, a physical size or an origin of another world."""
    spacing, size = np.array(place.spacing), np.array(extent(place))
    axes = max(axes_of(place), labelled.axes)
    unit = "pixels" if axes == 2 and place.origin is None else "mm"
    order = f"{unit} ({'z, y, x' if axes == 3 else 'y, x'})"
    severity = labelled.spacing.factors_beyond(spacing, SPACING_FACTOR)
    if severity > 1:
        theirs = labelled.spacing.of_last(axes)
        what = f"Its spacing is {shown(spacing[-axes:])} {order}"
        yield Reason(f"{what}, that of the labelled images {theirs}.", severity)
    severity = labelled.size.factors_beyond(size, SIZE_FACTOR)
    if severity > 1:
        what, theirs = f"It measures {shown(size[-axes:])} {order}", labelled.size.of_last(axes)
        yield Reason(f"{what}, the labelled images measure {theirs}.", severity)
    if labelled.origin is not None and place.origin is not None:
        away = float(np.linalg.norm(labelled.origin.beyond(np.array(place.origin))))
        if away > max(FAR_MM, FAR_EXTENTS * float(size[-axes:].max())):
            what = f"Its origin is {away:.4g} mm away from those of the labelled images"
            yield Reason(f"{what}.", 1.0 if away > UNREAL_MM else MILD)


def extent(place: Geometry) -> list[float]:
    """The physical size in mm, (Z, Y, X)."""
    return [size * spacing for size, spacing in zip(place.shape, place.spacing, strict=True)]


def axes_of(place: Geometry) -> int:
    """3, or 2 for a flat image, to which nnU-Net gives a third axis of 999 times the spacing."""
    return 2 if place.shape[0] == 1 and place.spacing[0] > 900 * max(place.spacing[1:]) else 3


# ---- intensities ----


def intensity_reasons(
    report: CaseReport, labelled: Labelled, channels: Sequence[str]
) -> Iterator[Reason]:
    """Channels whose values lie elsewhere or spread differently; one reason a channel at most."""
    ranges = zip(labelled.quantiles, labelled.spans.low, labelled.spans.high, strict=True)
    pairs = zip(channels, report.quantiles, ranges, strict=True)
    for number, (name, own, (known, *span)) in enumerate(pairs):
        quantiles = np.array(own)
        severity = values_apart(quantiles, known, span, factor_of(name))
        sign = other_sign(quantiles, known, NEGATIVE * span[1])
        severity = max(severity, 1.0 if sign else 0.0)
        if severity >= 1:
            what = f"Channel {number} ({name!r}) has values from {own[0]:.4g} to {own[-1]:.4g}"
            theirs = f"in the labelled images from {known.low[0]:.4g} to {known.high[-1]:.4g}"
            yield Reason(f"{what}, {theirs} (without the outermost 0.5 %){sign}.", severity)


def factor_of(channel: str) -> float:
    """How far the intensities of a channel of that name may be apart; see the module."""
    is_unitless = issubclass(get_normalization_scheme(channel), OF_EACH_IMAGE)
    return UNITLESS_FACTOR if is_unitless else UNIT_FACTOR


def values_apart(
    quantiles: np.ndarray, known: Range, span: Sequence[float], factor: float
) -> float:
    """The severity of a span too narrow or too wide, or of values too far away; below 1 if none.

    Args:
        quantiles: of a channel (Q,).
        known: theirs in the labelled images.
        span: the least and the greatest of a labelled image; both are 0 if nearly all voxels of
            each have one value, and then nothing is known.
        factor: the span may be that many times narrower or wider; values may lie as far outside as
            those of an image that is wider by the factor.
    """
    low, high = span
    if high <= 0:
        return 0.0
    own = float(quantiles[-1] - quantiles[0])
    apart = max(low / max(own, 1e-9 * high), own / high)
    away = float(known.beyond(quantiles).max()) / ((factor - 1) * high)
    severities = [math.log(apart) if apart > 1 else 0.0]
    severities += [math.log(away) + math.log(factor)] if away > 1 else []
    return max(severities) / math.log(factor)


def other_sign(quantiles: np.ndarray, known: Range, least: float) -> str:
    """Say that one has negative values and the other has none, "" if that is not so.

    Args:
        quantiles: of a channel (Q,); the second is of 5 % of the voxels.
        known: theirs in the labelled images.
        least: values below minus that are negative.
    """
    if quantiles[1] < -least and known.low[0] >= 0:
        return "; it has negative values, and none of them has"
    if quantiles[0] >= 0 and known.high[1] < -least:
        return "; it has no negative values, and all of them have"
    return ""


def spans(report: CaseReport) -> list[float]:
    """Greatest minus least quantile of each channel."""
    return [own[-1] - own[0] for own in report.quantiles]


# ---- words ----


def times(words: Iterator[str]) -> str:
    """Joined as measures are."""
    return " x ".join(words)


def shown(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as measures, such as "2.5 x 1 x 1"."""
    return times(f"{value:.4g}" for value in values)
