"""Submissions measured by ``semi_nnunet efficiency``: quality, and cost of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.reporting.curves import Dot, draw_scatter
from semi_nnunet.reporting.run_pages import Panel
from semi_nnunet.reporting.wording import DASH
from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.files import read_json

EFFICIENCY_FILE = "efficiency.json"
COLUMNS = (  # name in the file, heading, decimals
    ("dice", "Dice", 3), ("nsd", "NSD", 3), ("seconds", "time, s", 1),
    ("gpu_area", "GPU area, MiB s", 0), ("cpu_area", "CPU area, % s", 0),
    ("gpu_memory", "GPU memory, MiB", 0), ("own_memory", "memory, MiB", 0),
)  # fmt: skip
COST_COLUMNS = ("seconds", "gpu_area", "cpu_area", "own_memory")
REQUIRED_MEANS = ("seconds", "cpu_area", "own_memory")


@dataclass(frozen=True)
class Submission:
    """One submission with means over its cases; NaN where nothing was measured.

    Args:
        name: of its folder.
        cases: number of cases.
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
            DASH if math.isnan(value) else f"{value:.{decimals}f}"
            for value, (_, _, decimals) in zip(self.means, COLUMNS, strict=True)
        )

    def get_mean(self, column: str) -> float:
        return self.means[[name for name, _, _ in COLUMNS].index(column)]


@dataclass(frozen=True)
class Submissions:
    """Several submissions, and charts of their Dice against their costs."""

    rows: list[Submission]
    panels: list[Panel]

    @property
    def headings(self) -> list[str]:
        """Headings of the numbers in a row."""
        return [heading for _, heading, _ in COLUMNS]


def read_submissions(folders: Sequence[str | Path]) -> Submissions | None:
    """Read the results of ``semi_nnunet efficiency``.

    Args:
        folders: that it wrote.

    Returns:
        The submissions, or None for no folders.

    Raises:
        UserError: lists all folders without a finished measurement.
    """
    rows, problems = list[Submission](), list[Problem]()
    for folder in map(Path, folders):
        path = folder / EFFICIENCY_FILE
        content = read_json(path) if path.is_file() else {}
        mean = content.get("mean", {}) if isinstance(content, dict) else {}
        if not all(isinstance(mean.get(name), int | float) for name in REQUIRED_MEANS):
            message = f"must hold {EFFICIENCY_FILE} of a finished measurement"
            fix = f"measure it with semi_nnunet efficiency -o {folder}"
            problems.append(Problem(str(folder), message, fix))
            continue
        means = tuple(float(mean.get(name, math.nan)) for name, _, _ in COLUMNS)
        name = folder.absolute().name
        rows.append(Submission(name, len(content["cases"]), str(content["command"]), means))
    raise_if_any("The cost of submissions cannot be shown:", problems)
    return Submissions(rows, draw_submission_panels(rows)) if rows else None


def draw_submission_panels(rows: Sequence[Submission]) -> list[Panel]:
    """Draw Dice against each cost that at least two of the submissions have."""
    legend, panels = [(index, row.name) for index, row in enumerate(rows)], list[Panel]()
    for name, heading, _ in COLUMNS:
        measured = [r for r in rows if not math.isnan(r.get_mean(name) + r.get_mean("dice"))]
        if name not in COST_COLUMNS or len(measured) < 2:
            continue
        title = f"Dice against {heading}"
        dots = [
            Dot(index, row.name, row.get_mean(name), row.get_mean("dice"))
            for index, row in enumerate(rows)
        ]
        panels.append(Panel(title, legend, draw_scatter(dots, title)))
    return panels
