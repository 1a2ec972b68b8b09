"""Submissions that ``semi_nnunet efficiency`` measured: what a case costs beside how good it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.report.run_pages import Panel
from semi_nnunet.report.scatter import Dot, draw_scatter
from semi_nnunet.report.wording import DASH
from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.files import read_json

EFFICIENCY_FILE = "efficiency.json"
COLUMNS = (  # name in the file, as a heading, digits behind the point
    ("dice", "Dice", 3), ("nsd", "NSD", 3), ("seconds", "time, s", 1),
    ("gpu_area", "GPU area, MiB s", 0), ("cpu_area", "CPU area, % s", 0),
    ("gpu_memory", "GPU memory, MiB", 0), ("own_memory", "memory, MiB", 0),
)  # fmt: skip
COST_COLUMNS = ("seconds", "gpu_area", "cpu_area", "own_memory")
REQUIRED_MEANS = ("seconds", "cpu_area", "own_memory")


@dataclass(frozen=True)
class Submission:
    """One submission: means over its cases, NaN where nothing was measured.

    Args:
        name: of its folder.
        cases: how many.
        command: that was measured.
        means: a number for every one of :data:`COLUMNS`.
    """

    name: str
    cases: int
    command: str
    means: tuple[float, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The :attr:`means` as people read them."""
        return tuple(
            DASH if math.isnan(value) else f"{value:.{digits}f}"
            for value, (_, _, digits) in zip(self.means, COLUMNS, strict=True)
        )

    def of(self, column: str) -> float:
        """The mean of a column."""
        return self.means[[name for name, _, _ in COLUMNS].index(column)]


@dataclass(frozen=True)
class Submissions:
    """Several of them, and charts of their Dice against what they cost."""

    rows: list[Submission]
    panels: list[Panel]

    @property
    def headings(self) -> list[str]:
        """Of the numbers in a row."""
        return [heading for _, heading, _ in COLUMNS]


def read_submissions(folders: Sequence[str | Path]) -> Submissions | None:
    """Read what was measured.

    Args:
        folders: that ``semi_nnunet efficiency`` wrote; with none there is nothing.

    Raises:
        UserError: naming all folders without a finished measurement.
    """
    rows, problems = list[Submission](), list[Problem]()
    for folder in map(Path, folders):
        content = (
            read_json(folder / EFFICIENCY_FILE) if (folder / EFFICIENCY_FILE).is_file() else {}
        )
        mean = content.get("mean", {}) if isinstance(content, dict) else {}
        if not all(isinstance(mean.get(name), int | float) for name in REQUIRED_MEANS):
            what = f"must hold {EFFICIENCY_FILE} of a finished measurement, got none"
            problems.append(Problem(str(folder), what, "semi_nnunet efficiency -o there"))
            continue
        means = tuple(float(mean.get(name, math.nan)) for name, _, _ in COLUMNS)
        named = folder.absolute().name
        rows.append(Submission(named, len(content["cases"]), str(content["command"]), means))
    raise_if_any("the cost of submissions cannot be shown:", problems)
    return Submissions(rows, draw_submission_panels(rows)) if rows else None


def draw_submission_panels(rows: Sequence[Submission]) -> list[Panel]:
    """Draw Dice against each cost that more than one of the submissions has."""
    legend, found = [(place, row.name) for place, row in enumerate(rows)], list[Panel]()
    for name, heading, _ in COLUMNS:
        known = [row for row in rows if not math.isnan(row.of(name) + row.of("dice"))]
        if name not in COST_COLUMNS or len(known) < 2:
            continue
        title = f"Dice against {heading}"
        dots = [
            Dot(place, row.name, row.of(name), row.of("dice")) for place, row in enumerate(rows)
        ]
        found.append(Panel(title, legend, draw_scatter(dots, title)))
    return found
