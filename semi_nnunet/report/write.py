"""Write a report: one HTML file to open offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.report.choice import read_choice
from semi_nnunet.report.page import render_report
from semi_nnunet.report.report_data import build_report_from_trainings, build_report_from_values
from semi_nnunet.report.submissions import read_submissions
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import require_other, require_place, write_text
from semi_nnunet.workflows.compare import require_default_plans
from semi_nnunet.workflows.crossval import PLANS


@dataclass(frozen=True)
class WrittenReport:
    """A written report.

    Args:
        path: of the HTML file.
        size: of the file, in bytes.
        headline: the answer in a sentence.
        sentences: the evidence for it.
    """

    path: Path
    size: int
    headline: str
    sentences: tuple[str, ...]


def write_report_page(
    dataset: str | None = None,
    *,
    values: Sequence[str | Path] = (),
    plans: str = PLANS,
    baseline: str = BASELINE,
    metric: str = "dice",
    choice: str | Path | None = None,
    efficiency: Sequence[str | Path] = (),
    out: str | Path = "report.html",
) -> WrittenReport:
    """Write one HTML file that answers whether the methods help, and shows their errors.

    Args:
        dataset: number or name of the data set whose trainings are shown; None: show ``values``.
        values: files of ``semi_nnunet compare --write-values``, instead of a data set.
        plans: of the trainings; plans of their seeds are included.
        baseline: trainer to compare with.
        metric: a column of metrics.csv.
        choice: choice.json of ``semi_nnunet auto``: how the method was chosen.
        efficiency: folders of ``semi_nnunet efficiency``: costs of submissions.
        out: the HTML file.

    Returns:
        Where the report is, and its answer.

    Raises:
        UserError: nothing was measured, a name is unknown, or the file cannot be written.
    """
    path, files = Path(out), [Path(file) for file in values]
    require_place(path)
    require_default_plans(dataset, files, plans)
    method_choice = None if choice is None else read_choice(choice)
    method = "" if method_choice is None else method_choice.trainer
    submissions = read_submissions(efficiency)
    if files:
        require_other(path, files)
        report = build_report_from_values(files, baseline, metric, method)
    elif dataset:
        folders = find_folders(dataset)
        report = build_report_from_trainings(folders, plans, baseline, metric, method)
    else:
        raise UserError("there is nothing to report", fix="give a data set, or files of values")
    page = render_report(replace(report, choice=method_choice, submissions=submissions))
    write_text(path, page)
    answer = report.answer
    return WrittenReport(path, len(page.encode()), answer.headline, answer.sentences)
