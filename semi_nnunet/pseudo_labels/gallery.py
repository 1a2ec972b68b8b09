"""A page of a selection: how sure the models are, and the images at both ends and the threshold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semi_nnunet.data.image_files import read_with_nnunet
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.report.contours import Classes, colour_of
from semi_nnunet.report.curves import histogram
from semi_nnunet.report.overlays import Drawn, slice_axis, slices_of
from semi_nnunet.report.page import frames_for_script, page_of
from semi_nnunet.report.shown_cases import Viewer, as_frame

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 8  # of each end, and around the threshold
SLICES = 8  # of an image, so that a page of volumes stays below some ten megabytes
CERTAIN, THRESHOLD, UNCERTAIN = "The most certain", "Around the threshold", "The least certain"


@dataclass(frozen=True)
class Picture:
    """A case on the page, with its slices to scroll through."""

    case: str
    uncertainty: float
    kept: bool
    viewer: Viewer


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
    chosen = set(kept)
    example = str(request.label_of(ranked[0]))
    description = request.trained[0].folder / "dataset.json"
    classes = read_labelling(description, example).classes
    sections = {
        title: [picture_of(request, case, scores[case], case in chosen, classes) for case in part]
        for title, part in sections_of(ranked, chosen).items()
    }
    pictures = [one for part in sections.values() for one in part]
    text = page_of(
        "gallery.html.j2",
        TEMPLATES,
        sections=sections,
        score=score,
        kept=len(chosen),
        total=len(ranked),
        models=list(map(str, request.trained)),
        histogram=histogram(
            [scores[case] for case in ranked if case in chosen],
            [scores[case] for case in ranked if case not in chosen],
        ),
        lowest=scores[ranked[0]],
        threshold=max((scores[case] for case in chosen), default=None),
        highest=scores[ranked[-1]],
        legend={name: colour_of(number) for number, name in enumerate(classes)},
        frames={one.case: frames_for_script(one.viewer) for one in pictures},
    )
    path.write_text(text, encoding="utf-8")


def sections_of(ranked: Sequence[str], kept: Collection[str]) -> dict[str, list[str]]:
    """Title -> cases, each of them once: both ends, and those that were only just decided.

    Args:
        ranked: all cases, the most certain first.
        kept: the cases that were selected.
    """
    end = SHOWN if len(ranked) > SHOWN else len(ranked)
    certain = list(ranked[:end])
    uncertain = list(ranked[end:][-SHOWN:])
    between = range(end, len(ranked) - len(uncertain))
    limit = max((place for place, case in enumerate(ranked) if case in kept), default=-1) + 1
    near = [place for place in between if abs(place - limit + 0.5) < SHOWN / 2]
    found = {CERTAIN: certain, THRESHOLD: [ranked[place] for place in near]}
    found[UNCERTAIN] = uncertain[::-1]
    return {title: cases for title, cases in found.items() if cases}


def picture_of(
    request: Request, case: str, uncertainty: float, kept: bool, classes: Classes
) -> Picture:
    """Slices on which something is labelled, beginning with that on which most is."""
    description, files = request.trained[0].dataset_json, request.cases[case]
    reader = reader_class(description, files)
    image, geometry, _ = read_with_nnunet(files[0], reader, is_label=False)
    path = str(request.label_of(case))
    labels = read_with_nnunet(path, reader, is_label=True)[0][0]
    ignored = max(value for values in classes.values() for value in values) + 1
    labels = np.where(labels >= ignored, 0, labels)
    area = np.count_nonzero(np.moveaxis(labels, slice_axis(geometry.spacing), 0), axis=(1, 2))
    both = {"reference": labels, "method": labels}  # there is one opinion alone
    drawn = Drawn(image, both, geometry.spacing, colour=len(image) == 3)
    slices = slices_of(drawn, classes, limit=SLICES)
    frames = [as_frame(one, f"slice {one.number} of {one.depth}", []) for one in slices]
    start = int(np.argmax([area[one.number - 1] for one in slices]))
    title = f"{uncertainty:.4f}, {'selected' if kept else 'left out'}"
    panels = {"reference": title}
    viewer = Viewer(case, "", panels, [], frames, start, [case] * len(frames))
    return Picture(case, uncertainty, kept, viewer)
