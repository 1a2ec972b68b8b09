"""Which cases the report shows as pictures, and the files they are made of."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.evaluation.values import Model, higher_is_better
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.report.case_files import (
    CaseFiles,
    FilesOfCase,
    has_flat_images,
    load_labelling,
    read_metric_rows,
    read_voxels,
)
from semi_nnunet.report.measured import ALL_CLASSES, SubsetResults
from semi_nnunet.report.overlays import CaseDrawing, DrawnSlice, draw_slices
from semi_nnunet.report.wording import format_metric, format_value, name_model
from semi_nnunet.util.errors import UserError

MAX_SLICES, MAX_IMAGES = 24, 200  # of a volume; of a set of 2-D images
SCORES = ("dice", "iou"), ("dice", "hd95_edge")  # of 2-D images; of volumes


@dataclass(frozen=True)
class Frame:
    """One position of a viewer's slider: data URIs, and what was measured."""

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
        note: what is shown of it.
        panels: key of the layer -> title; "image" has none.
        columns: of the scores.
        frames: the slices, or images.
        start: the frame to begin with.
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
    """The worst, the median and the best case, and the one that lost most; or every 2-D image.

    Returns:
        the viewers, and a sentence on what could not be shown.
    """
    ranked = rank_cases(measured, method)
    looked_for = {case: files.find(case, method, baseline) for case in ranked}
    found = {case: one for case, one in looked_for.items() if one}
    there = list(found)
    if not there:
        return [], "Images, references or predictions of the cases are not there any more."
    labelling = load_labelling(files, list(found.values()))
    names = name_viewer_panels(measured, method, baseline)
    problems, made = [], []
    if has_flat_images(found[there[0]], labelling):
        places = np.linspace(0, len(there) - 1, min(MAX_IMAGES, len(there))).round().astype(int)
        titled = [("Every image, the worst first", [there[place] for place in places])]
        if len(places) < len(there):
            titled = [(f"{len(places)} of {len(there)} images, the worst first", titled[0][1])]
    else:
        titled = [
            (title, [case])
            for title, case in select_notable_cases(there, measured, method, baseline).items()
        ]
    for title, cases in titled:
        try:
            of_cases = [found[case] for case in cases]
            made.append(build_viewer(title, of_cases, labelling, names, measured))
        except (BrokenFileError, OSError, ValueError) as error:
            problems.append(f"{title} cannot be shown: {error}.")
    return made, " ".join(problems)


def rank_cases(measured: SubsetResults, method: Model) -> list[str]:
    """The worst first; cases without a value are left out."""
    means = {case: m[ALL_CLASSES] for case, m in measured.of_cases()[method].items()}
    sign = 1 if higher_is_better(measured.metric) else -1
    known = [case for case, value in means.items() if not math.isnan(value)]
    return sorted(known, key=lambda case: (sign * means[case], case))


def select_notable_cases(
    ranked: Sequence[str], measured: SubsetResults, method: Model, baseline: Model | None
) -> dict[str, str]:
    """Title -> case."""
    found = {"Worst case": ranked[0], "Median case": ranked[len(ranked) // 2]}
    found["Best case"] = ranked[-1]
    if baseline:
        means = measured.of_cases()
        sign = 1 if higher_is_better(measured.metric) else -1
        losses = {
            case: sign * (means[method][case][ALL_CLASSES] - means[baseline][case][ALL_CLASSES])
            for case in ranked
            if case in means[baseline]
        }
        lost = min(losses, key=losses.__getitem__, default=None)
        if lost and losses[lost] < 0:
            found["Lost most against the baseline"] = lost
    return {title: case for title, case in found.items() if is_first(title, case, found)}


def is_first(title: str, case: str, found: Mapping[str, str]) -> bool:
    """Whether no earlier title shows the same case."""
    return next(t for t, c in found.items() if c == case) == title


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
    """Make a viewer of the slices of one volume, or of several 2-D images.

    Raises:
        UserError, BrokenFileError: a file cannot be read, or does not fit.
    """
    frames, starts, cases = [], [], []
    flat = len(files) > 1 or has_flat_images(files[0], labelling)
    columns: list[str] = []
    for number_of, item in enumerate(files, 1):
        slices = draw_case_slices(item, labelling)
        columns, scores = tabulate_scores(item, flat, names)
        for one in slices:
            caption = f"slice {one.number} of {one.depth}"
            if flat:
                caption = f"{item.case} ({number_of} of {len(files)})"
            frames.append(make_frame(one, caption, scores))
            starts.append(one.wrong)
            cases.append(item.case)
    start = 0 if flat else int(np.argmax(starts))
    return Viewer(
        title, describe_viewer(files, measured, flat), dict(names), columns, frames, start, cases
    )


def draw_case_slices(files: FilesOfCase, labelling: Labelling) -> list[DrawnSlice]:
    """The pictures."""
    image, geometry = read_voxels(files.image, labelling, False)
    labels = {name: read_voxels(path, labelling, True)[0][0] for name, path in files.labels.items()}
    for name, array in labels.items():
        if array.shape != image.shape[1:]:
            raise UserError(
                f"{files.labels[name].name} ({name}) has the shape {array.shape}, its image "
                f"{image.shape[1:]}"
            )
    natural = labelling.reader.__name__ == "NaturalImage2DIO"
    spacing = (1.0, 1.0, 1.0) if natural else geometry.spacing
    colour = natural and len(image) >= 3
    drawn = CaseDrawing(image, labels, spacing, colour, labelling.ignore)
    return draw_slices(drawn, labelling.classes, MAX_SLICES)


def tabulate_scores(
    files: FilesOfCase, flat: bool, names: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """The head, and a row for each class, of what was measured of these very predictions."""
    rows = {name: read_metric_rows(path, files.case) for name, path in files.tables.items()}
    order = [name for name in ("baseline", "method") if name in rows]
    some = next(iter(rows["method"].values()), {})
    metrics = [column for first in SCORES[not flat] for column in some if column.startswith(first)]
    head, table = ["class"], []
    for metric in metrics:
        head += [f"{format_metric(metric)}, {names[name]}" for name in order]
    for name in rows["method"]:
        cells = [name]
        for metric in metrics:
            texts = [rows[which].get(name, {}).get(metric, "") for which in order]
            cells += [format_value(float(text) if text else math.nan, metric) for text in texts]
        table.append(cells)
    return head, table


def describe_viewer(files: Sequence[FilesOfCase], measured: SubsetResults, flat: bool) -> str:
    """Say what a viewer shows."""
    one = files[0]
    shown = f"predictions of fold {one.fold}, seed {one.seed}"
    if flat:
        return f"The {shown}; Dice and IoU are theirs."
    title, parts = format_metric(measured.metric), []
    means = measured.of_cases()
    for model in measured.models:
        if one.case in means[model]:
            value = format_value(means[model][one.case][ALL_CLASSES], measured.metric)
            parts.append(f"{name_model(model, measured.models)} {value}")
    return f"{one.case}. {title}, mean over classes and seeds: {', '.join(parts)}. Below: {shown}."


def make_frame(one: DrawnSlice, caption: str, scores: list[list[str]]) -> Frame:
    kind = "jpeg" if one.image.startswith(b"\xff\xd8") else "png"
    layers = {name: make_data_uri(layer) for name, layer in one.layers.items()}
    return Frame(caption, round(one.ratio, 4), make_data_uri(one.image, kind), layers, scores)


def make_data_uri(content: bytes, kind: str = "png") -> str:
    """Inline, so that the report needs no other file."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
