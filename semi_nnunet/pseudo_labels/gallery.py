"""A page of the most and the least certain images of a pool, with what was labelled on them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from semi_nnunet.data.image_files import read_with_nnunet
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.report.contours import Classes, colour_of
from semi_nnunet.report.overlays import Drawn, slice_axis, slices_of

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 12  # of each end


@dataclass(frozen=True)
class Picture:
    """A case on the page; the pictures are data URIs."""

    case: str
    uncertainty: float
    kept: bool
    image: str
    layer: str
    ratio: float


def write_page(
    path: Path, request: Request, scores: dict[str, float], kept: Sequence[str], score: str
) -> None:
    """Write one HTML file that opens offline.

    Args:
        path: the file.
        request: the labelled pool.
        scores: case -> uncertainty.
        kept: the cases that were selected.
        score: its name.
    """
    ranked = sorted(scores, key=lambda case: (scores[case], case))
    ends = {"The most certain": ranked[:SHOWN]}
    if len(ranked) > SHOWN:
        ends["The least certain"] = ranked[SHOWN:][-SHOWN:][::-1]
    example = str(request.labels / f"{ranked[0]}{ending_of(request)}")
    description = request.trained[0].folder / "dataset.json"
    classes = read_labelling(description, example).classes
    sections = {
        title: [
            picture_of(request, case, scores[case], case in set(kept), classes) for case in part
        ]
        for title, part in ends.items()
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("gallery.html.j2").render(
        sections=sections,
        score=score,
        kept=len(kept),
        total=len(ranked),
        models=list(map(str, request.trained)),
        bars=histogram(list(scores.values()), max((scores[case] for case in kept), default=0.0)),
        lowest=scores[ranked[0]],
        highest=scores[ranked[-1]],
        legend={name: colour_of(number) for number, name in enumerate(classes)},
    )
    path.write_text(text, encoding="utf-8")


def ending_of(request: Request) -> str:
    return str(request.trained[0].dataset_json["file_ending"])


def picture_of(
    request: Request, case: str, uncertainty: float, kept: bool, classes: Classes
) -> Picture:
    """The slice on which most is labelled; the middle one if nothing is."""
    description, files = request.trained[0].dataset_json, request.cases[case]
    reader = reader_class(description, files)
    image, geometry, _ = read_with_nnunet(files[0], reader, is_label=False)
    path = str(request.labels / f"{case}{ending_of(request)}")
    labels = read_with_nnunet(path, reader, is_label=True)[0][0]
    ignored = max(value for values in classes.values() for value in values) + 1
    labels = np.where(labels >= ignored, 0, labels)
    axis = slice_axis(geometry.spacing)
    area = np.count_nonzero(np.moveaxis(labels, axis, 0), axis=(1, 2))
    z = int(area.argmax()) if area.any() else len(area) // 2
    image, labels = np.take(image, [z], axis + 1), np.take(labels, [z], axis)
    both = {"reference": labels, "method": labels}  # there is one opinion alone
    drawn = Drawn(image, both, geometry.spacing, colour=len(image) == 3)
    (shown,) = slices_of(drawn, classes, limit=1)
    kind = "jpeg" if drawn.colour else "png"
    layer = shown.layers["reference"]
    return Picture(
        case, uncertainty, kept, as_uri(shown.image, kind), as_uri(layer, "png"), shown.ratio
    )


def as_uri(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def histogram(values: Sequence[float], limit: float) -> list[tuple[float, float, bool]]:
    """Lower edge, height (of the highest) and whether cases there were kept, of each bar."""
    counts, edges = np.histogram(values, bins=min(30, max(5, len(values) // 4)))
    heights = counts / max(1, counts.max())
    return [
        (float(edge), float(height), bool(edge <= limit))
        for edge, height in zip(edges[:-1], heights, strict=True)
    ]
