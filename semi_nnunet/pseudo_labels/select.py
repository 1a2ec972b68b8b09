"""Choose the unlabelled images to train on, by how sure models are of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.data.layout import (
    SELECTED_FILE,
    UNLABELLED_IMAGES,
    preprocessed_dataset,
    raw_dataset,
    set_aside,
)
from semi_nnunet.deploy.trained import require_models_of
from semi_nnunet.pseudo_labels.choice import Choice, case_scores, choose, score_problems
from semi_nnunet.pseudo_labels.gallery import write_page
from semi_nnunet.pseudo_labels.label import label_pool
from semi_nnunet.pseudo_labels.places import labelled_by
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.runs.launching import Launcher, UnfinishedError
from semi_nnunet.training.filtering import write_table
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json, require_place, write_atomically, write_json


@dataclass(frozen=True)
class Selected:
    """The unlabelled images that trainings use from now on.

    Args:
        dataset: full name of the data set.
        kept: their names.
        total: how many unlabelled images there are.
        page, table: what shows and lists their scores.
    """

    dataset: str
    kept: tuple[str, ...]
    total: int
    page: Path
    table: Path


def select(
    dataset: str,
    models: Sequence[str],
    choice: Choice,
    *,
    views: Sequence[str] = (),
    page: str | Path = "selection.html",
    launcher: Launcher | None = None,
) -> Selected:
    """Label imagesUn with models, and have trainings use the surest images alone.

    Args:
        dataset: number or name of the data set with imagesUn.
        models: folders of trained models, see :func:`~.label.pseudo_label`.
        choice: how many images are kept, and by which score.
        views: test-time views to average.
        page: an HTML file that shows the images at both ends and around the threshold; a table of
            all scores lies beside it, as .csv.
        launcher: where the images are labelled; None: on this machine.

    Returns:
        What is selected.

    Raises:
        UnfinishedError: no image could be labelled, or shards failed; it was printed.
        UserError: a model is missing or does not fit, the page cannot be written where it is to be,
            or the choice leaves nothing.
    """
    if not models or not choice.keep > 0:
        raise UserError("select needs models (-m) and a --keep above 0", fix="give them, or --undo")
    page = Path(page)
    problems = list(score_problems(choice.score, choice.before))
    if page.suffix == ".csv":
        what = "is an HTML file, beside which a .csv is written"
        problems.append(Problem("--page", what, "x.html"))
    raise_if_any("select cannot start:", problems)
    for file in (page, page.with_suffix(".csv")):  # the labelling takes long
        require_place(file)
    choice = choice.located()
    path, raw = preprocessed_dataset(dataset) / SELECTED_FILE, raw_dataset(dataset)
    request = Request(
        raw / UNLABELLED_IMAGES, labelled_by(raw, models, views), tuple(models), tuple(views)
    )
    require_models_of(request.trained, read_json(raw / "dataset.json"), raw.name)
    labelled = label_pool(request, launcher or Launcher())
    if labelled is None or not labelled.cases:
        raise UnfinishedError("no image is labelled. Fix: see above")
    aside = set_aside(path.parent)  # no training sees these
    scores = case_scores(request, choice, aside)
    kept, table = sorted(choose(scores, choice)), page.with_suffix(".csv")
    write_atomically(page, lambda out: write_page(out, request, scores, kept, choice.score))
    write_table(table, scores, kept)
    write_json(path, {**request.record(), **choice.record(), "cases": kept})
    return Selected(raw.name, tuple(kept), len(scores), page, table)


def select_all(dataset: str) -> None:
    """Have trainings use all unlabelled images again.

    Args:
        dataset: number or name.
    """
    (preprocessed_dataset(dataset) / SELECTED_FILE).unlink(missing_ok=True)
