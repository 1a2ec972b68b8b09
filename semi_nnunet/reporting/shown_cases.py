"""Choose the cases that the report shows as pictures, and draw them."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.evaluation.pieces import keep_largest_component
from semi_nnunet.evaluation.values import Model, higher_is_better
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.reporting.case_files import (
    CaseFiles,
    FilesOfCase,
    has_flat_images,
    load_labelling,
    read_metric_rows,
    read_voxels,
)
from semi_nnunet.reporting.measured import ALL_CLASSES, SubsetResults
from semi_nnunet.reporting.overlays import CaseDrawing, DrawnSlice, draw_slices
from semi_nnunet.reporting.wording import format_metric, format_value, name_model
from semi_nnunet.util.errors import UserError

MAX_SLICES, MAX_IMAGES = 24, 200  # of a volume; of a set of 2-D images
FLAT_SCORES, VOLUME_SCORES = ("dice", "iou"), ("dice", "hd95_edge")


@dataclass(frozen=True)
class Frame:
    """One position of a viewer's slider: pictures as data URIs, and scores."""

    caption: str
    ratio: float
    image: str
    layers: dict[str, str]
    scores: list[list[str]]


@dataclass(frozen=True)
class Viewer:
    """A case, or a set of 2-D images, to scroll through.

    Args:
        title: why it is shown.
        note: which case and predictions it shows.
        panels: key of the layer -> title; "image" has no layer.
        columns: of the scores.
        frames: the slices or images.
        start: index of the first frame to show.
        cases: the case of each frame.
    """

    title: str
    note: str
    panels: dict[str, str]
    columns: list[str]
    frames: list[Frame]
    start: int
    cases: list[str]


def build_viewers(
    files: CaseFiles, measured: SubsetResults, method: Model, baseline: Model | None
) -> tuple[list[Viewer], str]:
    """Draw the worst, the median, the best and the most deteriorated case, or all 2-D images.

    Returns:
        The viewers, and a sentence on the cases that could not be drawn.
    """
    candidates = {case: files.find(case, method, baseline) for case in rank_cases(measured, method)}
    existing = {case: case_files for case, case_files in candidates.items() if case_files}
    ranked = list(existing)
    if not ranked:
        return [], "Images, references or predictions of the cases are missing."
    labelling = load_labelling(files, list(existing.values()))
    names = name_viewer_panels(measured, method, baseline)
    try:
        is_flat = has_flat_images(existing[ranked[0]], labelling)
    except BrokenFileError as error:
        return [], f"The reference of {ranked[0]} {error}."
    if is_flat:
        indices = np.linspace(0, len(ranked) - 1, min(MAX_IMAGES, len(ranked))).round().astype(int)
        title = "Every image, the worst first"
        if len(indices) < len(ranked):
            title = f"{len(indices)} of {len(ranked)} images, the worst first"
        titled = [(title, [ranked[index] for index in indices])]
    else:
        notable = select_notable_cases(ranked, measured, method, baseline)
        titled = [(title, [case]) for title, case in notable.items()]
    problems, viewers = [], []
    for title, cases in titled:
        try:
            shown_files = [existing[case] for case in cases]
            viewers.append(build_viewer(title, shown_files, labelling, names, measured))
        except (BrokenFileError, OSError, ValueError) as error:
            problems.append(f"{title} cannot be shown: {error}.")
    return viewers, " ".join(problems)


def rank_cases(measured: SubsetResults, method: Model) -> list[str]:
    """Return the cases from the worst to the best, without undefined ones."""
    means = {case: m[ALL_CLASSES] for case, m in measured.case_means()[method].items()}
    sign = 1 if higher_is_better(measured.metric) else -1
    defined = [case for case, value in means.items() if not math.isnan(value)]
    return sorted(defined, key=lambda case: (sign * means[case], case))


def select_notable_cases(
    ranked: Sequence[str], measured: SubsetResults, method: Model, baseline: Model | None
) -> dict[str, str]:
    """Return title -> case, each case once."""
    titled = {"Worst case": ranked[0], "Median case": ranked[len(ranked) // 2]}
    titled["Best case"] = ranked[-1]
    if baseline:
        means = measured.case_means()
        sign = 1 if higher_is_better(measured.metric) else -1
        gains = {
            case: sign * (means[method][case][ALL_CLASSES] - means[baseline][case][ALL_CLASSES])
            for case in ranked
            if case in means[baseline]
        }
        lowest = min(gains, key=gains.__getitem__, default=None)
        if lowest and gains[lowest] < 0:
            titled["Largest loss against the baseline"] = lowest
    first_titles: dict[str, str] = {}
    for title, case in titled.items():
        first_titles.setdefault(case, title)
    return {title: case for case, title in first_titles.items()}


def name_viewer_panels(
    measured: SubsetResults, method: Model, baseline: Model | None
) -> dict[str, str]:
    names = {"image": "Image", "reference": "Reference"}
    if baseline:
        names["baseline"] = name_model(baseline, measured.models)
    names["method"] = name_model(method, measured.models)
    return {**names, "disagreement": "Disagreement" if baseline else "Errors"}


def build_viewer(
    title: str,
    files: Sequence[FilesOfCase],
    labelling: Labelling,
    names: Mapping[str, str],
    measured: SubsetResults,
) -> Viewer:
    """Draw the slices of one volume, or several 2-D images.

    Raises:
        UserError, BrokenFileError: a file cannot be read, or does not fit.
    """
    frames, errors, cases = [], [], []
    flat = len(files) > 1 or has_flat_images(files[0], labelling)
    columns: list[str] = []
    for number, case_files in enumerate(files, 1):
        slices = draw_case_slices(case_files, labelling)
        columns, scores = tabulate_scores(case_files, flat, names)
        for drawn in slices:
            caption = f"slice {drawn.number} of {drawn.depth}"
            if flat:
                caption = f"{case_files.case} ({number} of {len(files)})"
            frames.append(make_frame(drawn, caption, scores))
            errors.append(drawn.errors)
            cases.append(case_files.case)
    start = 0 if flat else int(np.argmax(errors))
    note = describe_viewer(files, measured, flat)
    return Viewer(title, note, dict(names), columns, frames, start, cases)


def draw_case_slices(
    files: FilesOfCase,
    labelling: Labelling,
    limit: int = MAX_SLICES,
    place: tuple[int, int | None] = (0, None),
) -> list[DrawnSlice]:
    """Draw at most ``limit`` slices of a case.

    Args:
        place: the axis across which it is sliced unless its slices are thick, and the number of a
            slice that is drawn in any case, from 1.

    Raises:
        UserError: a segmentation does not have the shape of the image.
    """
    image, geometry = read_voxels(files.image, labelling, False)
    labels = {name: read_voxels(path, labelling, True)[0][0] for name, path in files.labels.items()}
    if labelling.one_piece:  # as they are measured
        for name in labels.keys() - {"reference"}:
            labels[name] = keep_largest_component(labels[name], labelling.foreground)
    for name, array in labels.items():
        if array.shape != image.shape[1:]:
            raise UserError(
                f"{files.labels[name].name} ({name}) has the shape {array.shape}, its image "
                f"{image.shape[1:]}"
            )
    natural = labelling.reader.__name__ == "NaturalImage2DIO"
    spacing = (1.0, 1.0, 1.0) if natural else geometry.spacing
    colour = natural and len(image) >= 3
    axis, number = place
    image = np.moveaxis(image, axis + 1, 1)
    labels = {name: np.moveaxis(array, axis, 0) for name, array in labels.items()}
    spacing = (spacing[axis], *(size for other, size in enumerate(spacing) if other != axis))
    case = CaseDrawing(image, labels, spacing, colour, labelling.ignore)
    annotated = labelling.list_classes(files.case)  # others keep their colours, and are not drawn
    classes = {name: v if name in annotated else () for name, v in labelling.classes.items()}
    return draw_slices(case, classes, limit, number)


def tabulate_scores(
    files: FilesOfCase, flat: bool, names: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return the heading, and a row of scores of the shown predictions for each class."""
    rows = {name: read_metric_rows(path, files.case) for name, path in files.tables.items()}
    order = [name for name in ("baseline", "method") if name in rows]
    columns = next(iter(rows["method"].values()), {})
    starts = FLAT_SCORES if flat else VOLUME_SCORES
    metrics = [column for start in starts for column in columns if column.startswith(start)]
    head, table = ["class"], []
    for metric in metrics:
        head += [f"{format_metric(metric)}, {names[name]}" for name in order]
    for class_name in rows["method"]:
        cells = [class_name]
        for metric in metrics:
            texts = [rows[name].get(class_name, {}).get(metric, "") for name in order]
            cells += [format_value(float(text) if text else math.nan, metric) for text in texts]
        table.append(cells)
    return head, table


def describe_viewer(files: Sequence[FilesOfCase], measured: SubsetResults, flat: bool) -> str:
    """Return the note of a viewer: the case, its means, and the predictions shown."""
    first = files[0]
    shown = f"predictions of fold {first.fold}, seed {first.seed}"
    if flat:
        return f"The {shown}, with their Dice and IoU."
    title, values = format_metric(measured.metric), []
    means = measured.case_means()
    for model in measured.models:
        if first.case in means[model]:
            value = format_value(means[model][first.case][ALL_CLASSES], measured.metric)
            values.append(f"{name_model(model, measured.models)} {value}")
    return (
        f"{first.case}. {title}, mean over classes and seeds: {', '.join(values)}. Below: {shown}."
    )


def make_frame(drawn: DrawnSlice, caption: str, scores: list[list[str]]) -> Frame:
    """Return a frame with the pictures of a slice inline."""
    image_format = "jpeg" if drawn.image.startswith(b"\xff\xd8") else "png"
    layers = {name: make_data_uri(layer) for name, layer in drawn.layers.items()}
    image = make_data_uri(drawn.image, image_format)
    return Frame(caption, round(drawn.ratio, 4), image, layers, scores)


def make_data_uri(content: bytes, image_format: str = "png") -> str:
    """Return an inline picture, so that the report needs no other file."""
    return f"data:image/{image_format};base64,{b64encode(content).decode()}"
