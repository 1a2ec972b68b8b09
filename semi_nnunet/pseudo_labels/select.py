"""Select the unlabelled images to train on, by the certainty of models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.deploy.trained import require_same_data
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.loading.unlabelled import hash_images
from semi_nnunet.pseudo_labels.choice import (
    SelectionRule,
    find_score_problems,
    score_cases,
    select_cases,
)
from semi_nnunet.pseudo_labels.label import label_pool
from semi_nnunet.pseudo_labels.label_folders import locate_model_labels
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    SELECTED_FILE,
    UNLABELLED_IMAGES,
    find_raw_dataset,
    get_preprocessed_dataset,
    get_unlabelled_folder,
    read_skipped_cases,
)
from semi_nnunet.raw.readers import BrokenFileError, choose_reader, read_with_nnunet
from semi_nnunet.reporting.contours import Classes, get_class_colour
from semi_nnunet.reporting.curves import draw_histogram
from semi_nnunet.reporting.overlays import CaseDrawing, draw_slices, find_slice_axis
from semi_nnunet.reporting.page import fill_page_template, list_script_frames
from semi_nnunet.reporting.shown_cases import Viewer, make_frame
from semi_nnunet.runs.launching import JobLauncher, UnfinishedError
from semi_nnunet.training.filtering import write_filter_table
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json, require_place, write_atomically, write_json

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 8  # of each end, and around the threshold
SLICES = 8  # of an image, so that a page of volumes stays below some ten megabytes
CERTAIN, THRESHOLD, UNCERTAIN = "The most certain", "Around the threshold", "The least certain"


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
    problems = list(find_score_problems(choice.score, choice.before, len(models)))
    if page.suffix == ".csv":
        message = "is an HTML file, next to which a .csv is written"
        problems.append(Problem("-o", message, "x.html"))
    raise_if_any("select cannot start:", problems)
    table = page.with_suffix(".csv")
    for file in (page, table):  # the labelling takes long
        require_place(file)
    choice = choice.with_absolute_paths()
    path, raw = get_preprocessed_dataset(dataset) / SELECTED_FILE, find_raw_dataset(dataset)
    folder = locate_model_labels(raw, models, views)
    request = LabellingRequest(raw / UNLABELLED_IMAGES, folder, tuple(models), tuple(views))
    require_same_data(request.trained, read_json(raw / DATASET_JSON), raw.name)
    labelled = label_pool(request, launcher or JobLauncher())
    if labelled is None or not labelled.cases:
        raise UnfinishedError("no image is labelled", fix="see above")
    scores = score_cases(
        request, choice, read_skipped_cases(path.parent)
    )  # trainings do not see the latter
    selected = sorted(select_cases(scores, choice))
    write_atomically(page, lambda out: write_gallery(out, request, scores, selected, choice.score))
    write_filter_table(table, scores, selected)
    images = hash_preprocessed_images(path.parent, selected)
    write_json(path, {**request.record(), **choice.record(), "cases": selected, "images": images})
    return Selection(raw.name, tuple(selected), len(scores), page, table)


def hash_preprocessed_images(preprocessed: Path, cases: Sequence[str]) -> dict[str, str]:
    """Return the short image hash of each preprocessed case."""
    hashes = dict[str, str]()
    for folder in sorted(preprocessed.glob(get_unlabelled_folder("", "*").name)):
        if folder.is_dir():
            hashes |= hash_images(folder)
    return {case: hashes[case] for case in cases if case in hashes}


def select_all(dataset: str) -> None:
    """Have trainings use all unlabelled images again.

    Args:
        dataset: number or name.
    """
    (get_preprocessed_dataset(dataset) / SELECTED_FILE).unlink(missing_ok=True)


# ---- the page of a selection: scores, and images at both ends and around the threshold ----


@dataclass(frozen=True)
class GalleryPicture:
    """A case on the page, with its slices to scroll through."""

    case: str
    uncertainty: float
    kept: bool
    viewer: Viewer


def write_gallery(
    path: Path,
    request: LabellingRequest,
    scores: dict[str, float],
    selection: Sequence[str],
    score: str,
) -> None:
    """Write one HTML file that opens offline.

    Args:
        path: of the file.
        request: of the labelled pool.
        scores: case -> uncertainty.
        selection: the selected cases.
        score: its name.
    """
    ranked = sorted(scores, key=lambda case: (scores[case], case))
    selected = set(selection)
    example = str(request.label_path(ranked[0]))
    description = request.trained[0].folder / DATASET_JSON
    classes = read_labelling(description, example).classes
    sections = {
        title: [
            make_gallery_picture(request, case, scores[case], case in selected, classes)
            for case in cases
        ]
        for title, cases in split_into_sections(ranked, selected).items()
    }
    pictures = [picture for section in sections.values() for picture in section]
    text = fill_page_template(
        "gallery.html.j2",
        TEMPLATES,
        sections=sections,
        score=score,
        kept=len(selected),
        total=len(ranked),
        models=list(map(str, request.trained)),
        histogram=draw_histogram(
            [scores[case] for case in ranked if case in selected],
            [scores[case] for case in ranked if case not in selected],
        ),
        lowest=scores[ranked[0]],
        threshold=max((scores[case] for case in selected), default=None),
        highest=scores[ranked[-1]],
        legend={name: get_class_colour(number) for number, name in enumerate(classes)},
        frames={picture.case: list_script_frames(picture.viewer) for picture in pictures},
    )
    path.write_text(text, encoding="utf-8")


def split_into_sections(ranked: Sequence[str], selected: Collection[str]) -> dict[str, list[str]]:
    """Return title -> cases: both ends, and those around the threshold, each case once.

    >>> split_into_sections(["a", "b"], selected=["a"])
    {'The most certain': ['a', 'b']}

    Args:
        ranked: all cases, the most certain first.
        selected: the selected cases.
    """
    end = SHOWN if len(ranked) > SHOWN else len(ranked)
    uncertain = list(ranked[end:][-SHOWN:])
    limit = max((rank for rank, case in enumerate(ranked) if case in selected), default=-1) + 1
    near = [
        ranked[rank]
        for rank in range(end, len(ranked) - len(uncertain))
        if abs(rank - limit + 0.5) < SHOWN / 2
    ]
    sections = {CERTAIN: list(ranked[:end]), THRESHOLD: near, UNCERTAIN: uncertain[::-1]}
    return {title: cases for title, cases in sections.items() if cases}


def make_gallery_picture(
    request: LabellingRequest, case: str, uncertainty: float, is_selected: bool, classes: Classes
) -> GalleryPicture:
    """Draw the labelled slices of a case, starting with the largest labelled area."""
    title = f"{uncertainty:.4f}, {'selected' if is_selected else 'left out'}"
    description, files = request.trained[0].dataset_json, request.cases[case]
    viewer = view_case(case, description, files, request.label_path(case), classes, title)
    return GalleryPicture(case, uncertainty, is_selected, viewer)


def view_case(
    case: str,
    description: dict[str, Any],
    files: Sequence[str],
    label: Path | None,
    classes: Classes,
    title: str,
) -> Viewer:
    """Draw the labelled slices of an image, or its middle slice if it has no label.

    Args:
        case: its name.
        description: content of dataset.json.
        files: channel files of the image; the first one is drawn.
        label: file of a segmentation, or None.
        classes: of the segmentation.
        title: text below the picture.

    Raises:
        UserError: a file cannot be read.
    """
    reader = choose_reader(description, files)
    path = files[0]
    try:
        image, geometry, _ = read_with_nnunet(path, reader, is_label=False)
        labels = np.zeros(image.shape[1:], np.uint8)
        if label is not None:
            path = str(label)
            labels = read_with_nnunet(path, reader, is_label=True)[0][0]
    except BrokenFileError as error:
        again = "copy the image again; or remove the label, and it is made again"
        raise UserError(f"{path} {error}", fix=again) from error
    ignored = max(value for values in classes.values() for value in values) + 1
    labels = np.where(labels >= ignored, 0, labels)
    area = np.count_nonzero(np.moveaxis(labels, find_slice_axis(geometry.spacing), 0), axis=(1, 2))
    layers = {"reference": labels, "method": labels}  # the viewer compares two
    drawn = CaseDrawing(image, layers, geometry.spacing, colour=len(image) == 3)
    slices = draw_slices(drawn, classes, limit=SLICES)
    frames = [make_frame(shown, f"slice {shown.number} of {shown.depth}", []) for shown in slices]
    start = int(np.argmax([area[shown.number - 1] for shown in slices]))
    panels = {"image" if label is None else "reference": title}
    return Viewer(case, "", panels, [], frames, start, [case] * len(frames))
