"""Write the audit of labels as one HTML file to open offline, in the look of the report."""

from __future__ import annotations

import math
from pathlib import Path

from semi_nnunet.annotation.audit_list import AuditedLabel, LabelAudit
from semi_nnunet.annotation.disagreement import AXES
from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.reporting.contours import WRONG, get_class_colour
from semi_nnunet.reporting.page import fill_page_template, list_script_frames
from semi_nnunet.reporting.shown_cases import Viewer, draw_case_slices, make_frame
from semi_nnunet.util.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
SLICES = 12  # of an image, so that a page of volumes stays below some ten megabytes
PANELS = {
    "image": "Image",
    "reference": "Label",
    "method": "Prediction",
    "disagreement": "Difference",
}


def write_audit_page(
    path: Path, dataset: str, audit: LabelAudit, labelling: Labelling, pictures: int
) -> None:
    """Write one HTML file.

    Args:
        path: of the file.
        dataset: full name of the data set.
        audit: its labels.
        labelling: of its label files.
        pictures: number of cases that are shown as pictures.
    """
    usual = audit.find_usual_dice()
    viewers = [draw_label(label, labelling, usual) for label in audit.labels[:pictures]]
    text = fill_page_template(
        "audit.html.j2",
        TEMPLATES,
        dataset=dataset,
        audit=audit,
        axes=AXES,
        counts=audit.count_classes(),
        usual=usual,
        viewers=viewers,
        frames=[list_script_frames(viewer) for viewer in viewers],
        legend={name: get_class_colour(n) for n, name in enumerate(labelling.classes)},
        wrong=WRONG,
    )
    path.write_text(text, encoding="utf-8")


def draw_label(label: AuditedLabel, labelling: Labelling, usual: dict[str, float]) -> Viewer:
    """Draw the slices of a label next to the prediction, starting with the one to look at."""
    item = label.suspicion
    try:
        slices = draw_case_slices(label.files, labelling, SLICES, (item.axis, item.slice))
    except BrokenFileError as error:
        raise UserError(f"a file of {label.case} {error}", fix=error.fix) from error
    numbers = [drawn.number for drawn in slices]
    scores = [[name, *map(_format, (dice, usual[name]))] for name, dice in item.dice.items()]
    frames = [
        make_frame(drawn, f"slice {drawn.number} of {drawn.depth} along {AXES[item.axis]}", scores)
        for drawn in slices
    ]
    start, cases = numbers.index(item.slice), [label.case] * len(frames)
    columns = ["class", "Dice", "usual Dice"]
    return Viewer(label.case, item.reason, PANELS, columns, frames, start, cases)


def _format(dice: float) -> str:
    return "-" if math.isnan(dice) else f"{dice:.2f}"
