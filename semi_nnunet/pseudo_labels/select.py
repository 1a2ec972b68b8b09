"""Select the unlabelled images to train on, by the certainty of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.deploy.trained import require_same_data
from semi_nnunet.pseudo_labels.choice import (
    SelectionRule,
    find_score_problems,
    score_cases,
    select_cases,
)
from semi_nnunet.pseudo_labels.gallery import write_gallery
from semi_nnunet.pseudo_labels.label import label_pool
from semi_nnunet.pseudo_labels.label_folders import locate_model_labels
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.raw.layout import (
    SELECTED_FILE,
    UNLABELLED_IMAGES,
    find_raw_dataset,
    get_preprocessed_dataset,
    read_skipped_cases,
)
from semi_nnunet.runs.launching import JobLauncher, UnfinishedError
from semi_nnunet.training.filtering import write_filter_table
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json, require_place, write_atomically, write_json


@dataclass(frozen=True)
class Selection:
    """The unlabelled images that trainings use from now on.

    Args:
        dataset: full name of the data set.
        kept: names of these images.
        total: number of all unlabelled images.
        page, table: files that show and list the scores.
    """

    dataset: str
    kept: tuple[str, ...]
    total: int
    page: Path
    table: Path


def select_images(
    dataset: str,
    models: Sequence[str],
    choice: SelectionRule,
    *,
    views: Sequence[str] = (),
    page: str | Path = "selection.html",
    launcher: JobLauncher | None = None,
) -> Selection:
    """Label imagesUn with models, and have trainings use only the most certain images.

    :func:`semi_nnunet.select` documents the arguments and errors.
    """
    if not models or not choice.keep > 0:
        raise UserError("select needs models (-m) and a --keep above 0", fix="give them, or --undo")
    page = Path(page)
    problems = list(find_score_problems(choice.score, choice.before))
    if page.suffix == ".csv":
        message = "is an HTML file, next to which a .csv is written"
        problems.append(Problem("--page", message, "x.html"))
    raise_if_any("select cannot start:", problems)
    table = page.with_suffix(".csv")
    for file in (page, table):  # the labelling takes long
        require_place(file)
    choice = choice.with_absolute_paths()
    path, raw = get_preprocessed_dataset(dataset) / SELECTED_FILE, find_raw_dataset(dataset)
    folder = locate_model_labels(raw, models, views)
    request = LabellingRequest(raw / UNLABELLED_IMAGES, folder, tuple(models), tuple(views))
    require_same_data(request.trained, read_json(raw / "dataset.json"), raw.name)
    labelled = label_pool(request, launcher or JobLauncher())
    if labelled is None or not labelled.cases:
        raise UnfinishedError("no image is labelled", fix="see above")
    scores = score_cases(
        request, choice, read_skipped_cases(path.parent)
    )  # trainings do not see the latter
    selected = sorted(select_cases(scores, choice))
    write_atomically(page, lambda out: write_gallery(out, request, scores, selected, choice.score))
    write_filter_table(table, scores, selected)
    write_json(path, {**request.record(), **choice.record(), "cases": selected})
    return Selection(raw.name, tuple(selected), len(scores), page, table)


def select_all(dataset: str) -> None:
    """Have trainings use all unlabelled images again.

    Args:
        dataset: number or name.
    """
    (get_preprocessed_dataset(dataset) / SELECTED_FILE).unlink(missing_ok=True)
