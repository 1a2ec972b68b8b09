"""Domain check: find unlabelled images unlike all labelled ones, warn, and skip them on request.

A method learns from everything in imagesUn, also from an image of a wrong organ, unit, axis or
scanner. Every unlabelled image is compared with the range of the labelled images, widened by a
factor, as a few labelled images do not show all ordinary variation. A reason names the values of
both. Its severity is 1 at the end of the widened range and grows by 1 with every further factor, so
that different quantities can be ranked together.

Widening of the ranges:

* Spacing and physical size of each axis: by 3. One hospital has slices of 1 and of 5 mm, and scans
  of an abdomen and of a whole trunk. (The number of voxels follows from the two.)
* Intensities of a channel that nnU-Net normalises with the same numbers in every image, as its name
  decides (CT, rgb_to_0_1): by 4. They have a unit.
* Intensities of a channel that nnU-Net normalises within each image (MR): by 100. Four labelled
  images of MSD's hippocampus already differ by a factor of 20, 91 by a factor of 39, and the
  normalisation removes the unit; only mistakes and other kinds of images differ by more.
* Negative values, if no labelled image has them, or all have: not at all. They separate CT and MR.
* Colour: not at all. An image whose channels are all equal, a grey picture, is unusual where every
  labelled image has colours, and the other way round.
* Side of the patient to which the axes run: not at all. nnU-Net does not reorient axes, so a
  mirrored image shows the heart on the right. Oblique axes are not compared.
* Origin: only large distances, as a mild reason that makes no outlier by itself: it depends on the
  zero of a scanner, and nnU-Net never uses it. No scanner reaches beyond 10 m.

``outliers.csv`` lists all outliers with their reasons, and ``outliers.png`` shows the worst next to
some labelled images.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    RescaleTo01Normalization,
    ZScoreNormalization,
)
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    get_normalization_scheme,
)

from semi_nnunet.raw.description import UNLABELLED_DOMAIN, RawDataset
from semi_nnunet.raw.layout import DATASET_JSON, UNLABELLED_IMAGES
from semi_nnunet.raw.readers import UNTOLD, Geometry
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_csv
from semi_nnunet.verify.reports import CaseReport

logger = logging.getLogger(__name__)

SPACING_FACTOR = SIZE_FACTOR = 3.0
UNIT_FACTOR, UNITLESS_FACTOR = 4.0, 100.0  # of intensities
PER_IMAGE_NORMALISATIONS = (ZScoreNormalization, RescaleTo01Normalization)
NEGATIVE = 0.02  # of the span of the labelled images: values below minus that are negative
# Distance of channels over the span of values: grey, coloured (22 polyps: .32 to .60)
GREY, COLOURED = 0.01, 0.05
MILD = 0.5  # the severity of a distant origin
FAR_MM, FAR_EXTENTS, UNREAL_MM = 300.0, 3.0, 10_000.0
FOLDER = "domain_check"  # in the preprocessed data set
TABLE, SHEET = "outliers.csv", "outliers.png"
MAX_PRINTED, MAX_PICTURED = 10, 12


@dataclass(frozen=True)
class Reason:
    """A sentence about one property that makes a case unusual, with its severity."""

    text: str
    severity: float


@dataclass(frozen=True)
class Outlier:
    """An unlabelled case that differs much from the labelled ones.

    Args:
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
        """Return the range of rows (cases, N)."""
        table = np.array(rows, dtype=float)
        return cls(table.min(0), table.max(0))

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """Return the distance of each value to its range, 0 inside."""
        return np.maximum(np.maximum(self.low - values, values - self.high), 0)

    def factors_beyond(self, values: np.ndarray, factor: float) -> float:
        """Return by how many factors the farthest value lies outside; all values are positive."""
        logs = Range(np.log(self.low), np.log(self.high)).beyond(np.log(values))
        return float(logs.max()) / math.log(factor)

    def of_last(self, axes: int) -> Range:
        """Return the ranges of the last quantities."""
        return Range(self.low[-axes:], self.high[-axes:])

    def __str__(self) -> str:
        """Return all quantities, such as "2 to 2.5 x 1 x 1"."""
        return " x ".join(
            f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.4g} to {high:.4g}"
            for low, high in zip(self.low, self.high, strict=True)
        )


@dataclass(frozen=True)
class LabelledRanges:
    """The ranges that the labelled images span.

    Args:
        spacing: of each axis, in mm, in nnU-Net's order (Z, Y, X).
        size: of each axis, in mm, in the same order.
        axes: number of axes, 2 if all images are flat.
        least_axes: 2 if any image is flat.
        origin: in mm; None for formats without one.
        towards: sides to which the axes of the images run; empty if it is unknown for some image.
        quantiles: of the voxels, a range for each channel.
        spans: greatest minus least quantile of each channel.
        colour: see :func:`compute_colour`.
    """

    spacing: Range
    size: Range
    axes: int
    least_axes: int
    origin: Range | None
    towards: frozenset[str]
    quantiles: tuple[Range, ...]
    spans: Range
    colour: Range

    @classmethod
    def of(cls, reports: Sequence[CaseReport]) -> LabelledRanges:
        """Return the ranges of the labelled cases, at least one, among all reports."""
        labelled = [r for r in reports if r.subset == "labelled" and not r.problems]
        geometries = [report.geometry for report in labelled if report.geometry]
        origins = [geometry.origin for geometry in geometries if geometry.origin is not None]
        towards = frozenset(geometry.towards for geometry in geometries)
        channels = zip(*(report.quantiles for report in labelled), strict=True)
        spans = [[values[-1] - values[0] for values in report.quantiles] for report in labelled]
        return cls(
            Range.of([geometry.spacing for geometry in geometries]),
            Range.of([compute_size_mm(geometry) for geometry in geometries]),
            max(count_axes(geometry) for geometry in geometries),
            min(count_axes(geometry) for geometry in geometries),
            Range.of(origins) if len(origins) == len(geometries) else None,
            frozenset() if towards & {"", UNTOLD} else towards,
            tuple(Range.of(rows) for rows in channels),
            Range.of(spans),
            Range.of([[compute_colour(report.quantiles)] for report in labelled]),
        )


def check_domain(
    raw: RawDataset,
    reports: Sequence[CaseReport],
    skipped: Collection[str],
    preprocessed: Path,
    skip_outliers: bool,
) -> dict[str, list[str]]:
    """Compare unlabelled with labelled images; log and write the outliers.

    Args:
        skipped: unlabelled cases that are skipped already.
        preprocessed: the folder of the preprocessed data set. FOLDER is written in it, or removed
            without outliers.

    Returns:
        The skipped outliers -> their reasons.

    Raises:
        UserError: no unlabelled case would be left.
    """
    compared = [report for report in reports if report.case not in skipped]
    total = sum(report.subset == "unlabelled" for report in compared)
    outliers = find_outliers(compared, raw.channels, raw.other_domain)
    folder = preprocessed / FOLDER
    if not outliers:
        shutil.rmtree(folder, ignore_errors=True)
        return {}
    write_outliers(folder, raw, outliers)
    advice = f"look at them, and correct or remove images that do not belong in {UNLABELLED_IMAGES}"
    advice += "" if skip_outliers else "; --skip-outliers skips them"
    advice += '; if they are meant to be of another kind (CT and MR), write "'
    advice += f'{UNLABELLED_DOMAIN}": "other" in {DATASET_JSON}'
    if skip_outliers and len(outliers) == total:
        raise UserError(
            f"--skip-outliers must leave an unlabelled image, but all {total} differ much from the "
            f"labelled ones, as {folder / TABLE} shows",
            fix=advice,
        )
    images, verb = f"{len(outliers)} of {total} unlabelled images", "differ"
    verb += "s" * (len(outliers) == 1)
    text = f"skipped {images} for differing" if skip_outliers else f"WARNING: {images} {verb}"
    shown = outliers[:MAX_PRINTED]
    lines = [f"{text} much from the labelled ones:"]
    lines += [f"  {outlier.case}: {' '.join(outlier.reasons)}" for outlier in shown]
    lines += [f"  ... and {len(outliers) - len(shown)} more"] if len(outliers) > len(shown) else []
    lines += [f"{folder / TABLE} lists all of them, {folder / SHEET} shows the worst."]
    if skip_outliers:
        logger.info("\n".join(lines))
        return {outlier.case: list(outlier.reasons) for outlier in outliers}
    logger.warning("\n".join([*lines, f"Fix: {advice}"]))
    return {}


def write_outliers(folder: Path, raw: RawDataset, outliers: Sequence[Outlier]) -> None:
    """Write the table of all outliers and the sheet of the worst."""
    from semi_nnunet.verify.contact_sheet import (  # imports Matplotlib
        make_panel,
        share_window,
        write_sheet,
    )

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (rank, outlier.case, f"{outlier.score:.2f}", " ".join(outlier.reasons))
        for rank, outlier in enumerate(outliers, start=1)
    ]
    write_csv(folder / TABLE, [("rank", "case", "score", "reason"), *rows])
    unlabelled = {case.case: case for case in raw.cases if case.subset == "unlabelled"}
    labelled = [case for case in raw.cases if case.subset == "labelled"]
    spread = {0, len(labelled) // 2, len(labelled) - 1}  # up to three of them
    worst = outliers[:MAX_PICTURED]
    known = [make_panel(raw, labelled[index], "labelled") for index in sorted(spread)]
    has_unit = get_intensity_factor(raw.channels[0]) == UNIT_FACTOR
    window = share_window(known) if has_unit and not raw.other_domain else None
    others = [make_panel(raw, unlabelled[o.case], o.reasons[0], window) for o in worst]
    write_sheet(folder / SHEET, known, others)


def find_outliers(
    reports: Sequence[CaseReport], channels: Sequence[str], other_domain: bool = False
) -> list[Outlier]:
    """Return the unlabelled cases that differ much from the labelled ones, the worst first.

    Args:
        reports: of all cases; unlabelled ones with problems are ignored.
        channels: their names, by which nnU-Net chooses the normalisation.
        other_domain: whether the unlabelled images are declared to be of another kind, such as MR
            and CT; then only the axes are compared.
    """
    labelled = LabelledRanges.of(reports)
    outliers = []
    for report in reports:
        if report.subset != "unlabelled" or report.problems or report.geometry is None:
            continue
        reasons = list(compare_axes(report.geometry, labelled))
        if not other_domain:
            reasons += compare_geometry(report.geometry, labelled)
            reasons += compare_intensities(report, labelled, channels)
            reasons += compare_colour(report, labelled)
        score = sum(reason.severity for reason in reasons)
        if score >= 1:
            reasons.sort(key=lambda reason: -reason.severity)
            outliers.append(Outlier(report.case, score, tuple(r.text for r in reasons)))
    return sorted(outliers, key=lambda outlier: (-outlier.score, outlier.case))


# ---- geometry ----


def compare_axes(geometry: Geometry, labelled: LabelledRanges) -> Iterator[Reason]:
    """Yield a reason if the axes run to sides to which no labelled image's axes run.

    The third axis of a flat image says nothing if the labelled ones are flat, too.
    """
    axes = max(count_axes(geometry), labelled.axes)
    known = {towards[:axes] for towards in labelled.towards}
    if geometry.towards and labelled.towards and geometry.towards[:axes] not in known:
        if geometry.towards == UNTOLD:
            text = "Its header does not tell where its axes x, y, z run to (qform and sform are 0)"
        else:
            text = f"Its axes x, y, z run towards {geometry.towards} of the patient"
        theirs = " or ".join(sorted(labelled.towards))
        yield Reason(f"{text}, those of the labelled images towards {theirs}.", 1.0)


def compare_geometry(geometry: Geometry, labelled: LabelledRanges) -> Iterator[Reason]:
    """Yield reasons for an unusual spacing, physical size or origin."""
    spacing, size = np.array(geometry.spacing), np.array(compute_size_mm(geometry))
    axes = min(count_axes(geometry), labelled.axes)
    if labelled.least_axes > axes:
        yield Reason("It is flat, the labelled images are volumes.", 1.0)
    elif count_axes(geometry) > axes:
        yield Reason("It is a volume, the labelled images are flat.", 1.0)
    unit = "pixels" if axes == 2 and geometry.origin is None else "mm"
    order = f"{unit} ({'z, y, x' if axes == 3 else 'y, x'})"
    severity = labelled.spacing.of_last(axes).factors_beyond(spacing[-axes:], SPACING_FACTOR)
    if severity > 1:
        text = f"Its spacing is {format_lengths(spacing[-axes:])} {order}"
        theirs = labelled.spacing.of_last(axes)
        yield Reason(f"{text}, that of the labelled images {theirs}.", severity)
    severity = labelled.size.of_last(axes).factors_beyond(size[-axes:], SIZE_FACTOR)
    if severity > 1:
        text = f"It measures {format_lengths(size[-axes:])} {order}"
        theirs = labelled.size.of_last(axes)
        yield Reason(f"{text}, the labelled images measure {theirs}.", severity)
    if labelled.origin is not None and geometry.origin is not None:
        distances = labelled.origin.beyond(np.array(geometry.origin))[:axes]  # X, Y, Z
        distance = float(np.linalg.norm(distances))
        if distance > max(FAR_MM, FAR_EXTENTS * float(size[-axes:].max())):
            text = f"Its origin is {distance:.4g} mm away from those of the labelled images"
            yield Reason(f"{text}.", 1.0 if distance > UNREAL_MM else MILD)


def compute_size_mm(geometry: Geometry) -> list[float]:
    """Return the physical size in mm, (Z, Y, X)."""
    return [size * mm for size, mm in zip(geometry.shape, geometry.spacing, strict=True)]


def count_axes(geometry: Geometry) -> int:
    """Return 3, or 2 for a flat image, whose third axis nnU-Net makes up if the file has two."""
    return 2 if geometry.shape[0] == 1 else 3


def format_lengths(values: np.ndarray) -> str:
    """Return lengths as text, such as "2.5 x 1 x 1"."""
    return " x ".join(f"{value:.4g}" for value in values)


# ---- intensities ----


def compare_intensities(
    report: CaseReport, labelled: LabelledRanges, channels: Sequence[str]
) -> Iterator[Reason]:
    """Yield at most one reason a channel, for values that lie elsewhere or spread differently."""
    ranges = zip(labelled.quantiles, labelled.spans.low, labelled.spans.high, strict=True)
    rows = zip(channels, report.quantiles, ranges, strict=True)
    for number, (name, values, (theirs, *span)) in enumerate(rows):
        quantiles = np.array(values)
        severity = compute_intensity_severity(quantiles, theirs, span, get_intensity_factor(name))
        sign = describe_other_sign(quantiles, theirs, NEGATIVE * span[1])
        severity = max(severity, 1.0 if sign else 0.0)
        if severity >= 1:
            text = f"Channel {number} ({name!r}) has values from {values[0]:.4g} to "
            text += f"{values[-1]:.4g}, in the labelled images from {theirs.low[0]:.4g} to "
            text += f"{theirs.high[-1]:.4g} (without the outermost 0.5 %){sign}."
            yield Reason(text, severity)


def compare_colour(report: CaseReport, labelled: LabelledRanges) -> Iterator[Reason]:
    """Yield a reason for a grey picture among coloured ones, or the other way round.

    Pictures have three channels and no origin. The channels of a scan, such as T1 and T2, may have
    nearly equal values by chance.
    """
    if len(report.quantiles) != 3 or report.geometry is None or report.geometry.origin is not None:
        return
    colour = compute_colour(report.quantiles)
    if colour <= GREY and labelled.colour.low[0] >= COLOURED:
        text = "Its channels are equal, as in a grey picture; in all labelled images they differ."
        yield Reason(text, 1.0)
    if colour >= COLOURED and labelled.colour.high[0] <= GREY:
        text = "Its channels differ, as in a coloured picture; in all labelled images they are"
        yield Reason(f"{text} equal.", 1.0)


def compute_colour(quantiles: Sequence[Sequence[float]]) -> float:
    """Return the largest distance of a channel's quantiles to those of the first one.

    >>> compute_colour([[0, 5, 10], [0, 5, 10]]), compute_colour([[0, 5, 10], [0, 2, 10]])
    (0.0, 0.3)

    Args:
        quantiles: of each channel.

    Returns:
        The distance over the widest span of a channel; 0 with one channel.
    """
    table = np.array(quantiles, dtype=float)
    span = float((table[:, -1] - table[:, 0]).max())
    return float(np.abs(table - table[0]).max()) / span if span > 0 else 0.0


def get_intensity_factor(channel: str) -> float:
    """Return the factor that widens the range of a channel's intensities.

    >>> get_intensity_factor("CT"), get_intensity_factor("T1")
    (4.0, 100.0)
    """
    is_unitless = issubclass(get_normalization_scheme(channel), PER_IMAGE_NORMALISATIONS)
    return UNITLESS_FACTOR if is_unitless else UNIT_FACTOR


def compute_intensity_severity(
    quantiles: np.ndarray, labelled: Range, span: Sequence[float], factor: float
) -> float:
    """Return the severity of an unusual span or of distant values; below 1 is ordinary.

    Args:
        quantiles: of a channel (Q,).
        labelled: the same quantiles of the labelled images.
        span: the least and the greatest span of a labelled image. If both are 0, nearly all voxels
            of each image have one value, and nothing can be compared.
        factor: the span may be that many times narrower or wider; values may lie as far outside as
            those of an image that is wider by the factor.
    """
    low, high = span
    if high <= 0:
        return 0.0
    width = float(quantiles[-1] - quantiles[0])
    ratio = max(low / max(width, 1e-9 * high), width / high)
    distance = float(labelled.beyond(quantiles).max()) / ((factor - 1) * high)
    severities = [math.log(ratio) if ratio > 1 else 0.0]
    severities += [math.log(distance) + math.log(factor)] if distance > 1 else []
    return max(severities) / math.log(factor)


def describe_other_sign(quantiles: np.ndarray, labelled: Range, least: float) -> str:
    """Say that only the image or only the labelled images have negative values, or return "".

    Args:
        quantiles: of a channel (Q,); the second one belongs to 5 % of the voxels.
        labelled: the same quantiles of the labelled images.
        least: values below minus ``least`` count as negative.
    """
    if quantiles[1] < -least and labelled.low[0] >= 0:
        return "; it has negative values, and none of them has"
    if quantiles[0] >= 0 and labelled.high[1] < -least:
        return "; it has no negative values, and all of them have"
    return ""
