"""The list of audited labels, the most suspicious first: on the screen and as audit.csv."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from semi_nnunet.annotation.disagreement import AXES
from semi_nnunet.annotation.suspicion import Suspicion
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.reporting.case_files import FilesOfCase
from semi_nnunet.util.markdown import plain, table

FIRST = 0.2  # of the list: the labels to look at first
SHOWN_ROWS = 20  # on the screen
COLUMNS = (
    "rank", "case", "score", "reason", "class", "dice", "usual_dice", "slice", "axis", "fold",
    "label",
)  # fmt: skip


@dataclass(frozen=True)
class AuditedLabel:
    """A label with its place in the list.

    Args:
        case: name of the case.
        suspicion: how suspicious the label is, and why.
        files: image, label and prediction.
    """

    case: str
    suspicion: Suspicion
    files: FilesOfCase


@dataclass(frozen=True)
class LabelAudit:
    """The labels of a data set, the most suspicious first.

    Args:
        labels: all audited ones.
        page, table: files that show and list them.
    """

    labels: tuple[AuditedLabel, ...]
    page: Path
    table: Path

    @property
    def first(self) -> tuple[AuditedLabel, ...]:
        """The first 20 % of the list."""
        return self.labels[: max(1, round(FIRST * len(self.labels)))]

    def find_usual_dice(self) -> dict[str, float]:
        """Return class -> median Dice of its labels; NaN if no case shows it."""
        values = defaultdict[str, list[float]](list)
        for label in self.labels:
            for name, dice in label.suspicion.dice.items():
                values[name] += [] if math.isnan(dice) else [dice]
        return {name: median(dice) if dice else math.nan for name, dice in values.items()}

    def count_classes(self) -> dict[str, int]:
        """Return class -> number of labels among the first ones that differ most in this class."""
        return dict(Counter(label.suspicion.name for label in self.first).most_common())


def list_rows(audit: LabelAudit, raw: RawDataset) -> Iterator[list[object]]:
    """Yield a row of the list for each class of each label, the most suspicious label first."""
    usual = audit.find_usual_dice()
    labels = {case.case: case.label for case in raw.cases if case.subset == "labelled"}
    for rank, label in enumerate(audit.labels, start=1):
        item = label.suspicion
        for name, dice in item.dice.items():
            number, axis = item.places[name]
            yield [
                rank, label.case, f"{item.score:.2f}", item.reason, name, _format_dice(dice),
                _format_dice(usual[name]), number, AXES[axis],
                label.files.fold, labels.get(label.case, ""),
            ]  # fmt: skip


def _format_dice(dice: float) -> str:
    return "" if math.isnan(dice) else f"{dice:.3f}"


def format_first_labels(audit: LabelAudit) -> str:
    """Return the first labels as a table for the screen, and the classes that they concern."""
    rows = [["", "case", "score", "slice", "why"]]
    for rank, label in enumerate(audit.first[:SHOWN_ROWS], start=1):
        item = label.suspicion
        slice_name = f"{AXES[item.axis]} {item.slice}"
        rows.append(
            [str(rank), plain(label.case), f"{item.score:.1f}", slice_name, plain(item.reason)]
        )
    counts = [f"{plain(name)} {count}" for name, count in audit.count_classes().items()]
    return f"{table(rows)}\n\nthe first {len(audit.first)} by class: {', '.join(counts)}"
