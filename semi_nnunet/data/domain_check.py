"""Warn of unlabelled images of another world, show them, and set them aside on request.

``outliers.csv`` lists all of them with their reasons (see :mod:`semi_nnunet.data.domain`), and
``outliers.png`` shows the worst beside some labelled images.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from semi_nnunet.data.domain import Outlier, find_outliers
from semi_nnunet.data.integrity import CaseReport
from semi_nnunet.data.layout import UNLABELLED_IMAGES
from semi_nnunet.data.raw_description import JSON, UNLABELLED_DOMAIN, RawDataset
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_csv

FOLDER = "domain_check"  # in the preprocessed data set
TABLE, SHEET = "outliers.csv", "outliers.png"
PRINTED, PICTURED = 10, 12


def check_domain(
    raw: RawDataset,
    reports: Sequence[CaseReport],
    skipped: Collection[str],
    preprocessed: Path,
    skip_outliers: bool,
) -> dict[str, list[str]]:
    """Compare the unlabelled images with the labelled ones; print and write down what differs.

    Args:
        raw: the data set.
        reports: of all its cases.
        skipped: unlabelled cases that are set aside already.
        preprocessed: the folder of the preprocessed data set. FOLDER is written in it, or removed
            where nothing differs.
        skip_outliers: set aside what differs.

    Returns:
        the cases set aside -> their reasons.

    Raises:
        UserError: no unlabelled case would be left.
    """
    left = [report for report in reports if report.case not in skipped]
    total = sum(report.subset == "unlabelled" for report in left)
    outliers = find_outliers(left, raw.channels, raw.other_domain)
    folder = preprocessed / FOLDER
    if not outliers:
        shutil.rmtree(folder, ignore_errors=True)
        return {}
    write_outliers(folder, raw, outliers)
    if skip_outliers and len(outliers) == total:
        raise UserError(
            f"--skip-outliers must leave an unlabelled image, but all {total} differ much from the "
            f"labelled ones: {folder / TABLE} says how",
            fix=f"{fix(with_skipping=False)}",
        )
    print("\n".join(told(outliers, total, folder, skip_outliers)), flush=True)
    return {one.case: list(one.reasons) for one in outliers} if skip_outliers else {}


def told(outliers: Sequence[Outlier], total: int, folder: Path, skipped: bool) -> list[str]:
    """The lines of the warning."""
    images, verb = f"{len(outliers)} of {total} unlabelled images", "differ"
    verb += "s" * (len(outliers) == 1)
    what = f"set aside {images} for differing" if skipped else f"WARNING: {images} {verb}"
    lines = [f"{what} much from the labelled ones:"]
    lines += [f"  {one.case}: {' '.join(one.reasons)}" for one in outliers[:PRINTED]]
    if len(outliers) > PRINTED:
        lines.append(f"  ... and {len(outliers) - PRINTED} more")
    lines.append(f"All are listed in {folder / TABLE}, the worst are shown in {folder / SHEET}.")
    return lines if skipped else [*lines, f"Fix: {fix(with_skipping=True)}"]


def fix(with_skipping: bool) -> str:
    """What to do about outliers."""
    others = "; --skip-outliers sets them aside" if with_skipping else ""
    return (
        f"look at them, and correct or remove those that do not belong in {UNLABELLED_IMAGES}"
        f'{others}; where they are meant to be of another kind (CT and MR), write "'
        f'{UNLABELLED_DOMAIN}": "other" in {JSON}'
    )


def write_outliers(folder: Path, raw: RawDataset, outliers: Sequence[Outlier]) -> None:
    """Write the table of all and the sheet of the worst."""
    from semi_nnunet.data.contact_sheet import picture_of, write_sheet  # imports Matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (rank, one.case, f"{one.score:.2f}", " ".join(one.reasons))
        for rank, one in enumerate(outliers, start=1)
    ]
    write_csv(folder / TABLE, [("rank", "case", "score", "reason"), *rows])
    unlabelled = {case.case: case for case in raw.cases if case.subset == "unlabelled"}
    labelled = [case for case in raw.cases if case.subset == "labelled"]
    spread = {0, len(labelled) // 2, len(labelled) - 1}  # three of them, if there are
    write_sheet(
        folder / SHEET,
        [picture_of(raw, labelled[place], "labelled") for place in sorted(spread)],
        [picture_of(raw, unlabelled[one.case], one.reasons[0]) for one in outliers[:PICTURED]],
    )
