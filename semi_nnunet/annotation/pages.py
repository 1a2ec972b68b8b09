"""The pages of ``audit`` and ``next``: HTML that opens offline, in the look of the report."""

from __future__ import annotations

import math
from pathlib import Path

from semi_nnunet.annotation.audit_list import AuditedLabel, LabelAudit
from semi_nnunet.annotation.choosing import AnnotationChoice, Rule
from semi_nnunet.annotation.disagreement import AXES
from semi_nnunet.evaluation.labelling import Labelling
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.pseudo_labels.select import view_case
from semi_nnunet.raw.classes import get_declared_classes
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.reporting.contours import WRONG, get_class_colour
from semi_nnunet.reporting.page import fill_page_template, list_script_frames
from semi_nnunet.reporting.shown_cases import Viewer, draw_case_slices, make_frame
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_text

TEMPLATES = Path(__file__).parent / "templates"

# ---- labels to look at again ----

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
    """Write the page: the most suspicious labels next to their predictions.

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


# ---- cases to annotate next ----

TITLES: dict[Rule, str] = {
    "typical": "typical images that differ from each other",
    "uncertain": "images in which the models are uncertain",
    "random": "random images",
    "random-foreground": "random images in which the models see a class",
}
MEASURED: dict[Rule, str] = {
    "typical": "On Hippocampus, the only data set measured so far, such cases were as good as "
    "random ones or slightly better (0.1 to 0.4 points of Dice), which may be chance.",
    "uncertain": "On Hippocampus, the only data set measured so far, such cases were not better "
    "than random ones (0.0 to 0.5 points of Dice worse).",
}
COMPARE = "docs/annotation.md has the numbers, and names the script that measures a rule."
BASELINE_RULE = "This is the choice with which the other rules are compared."


def describe_rule(rule: Rule) -> str:
    """Return a sentence that compares a rule with a random choice."""
    return f"{MEASURED.get(rule, BASELINE_RULE)} {COMPARE}"


def write_next_page(
    choice: AnnotationChoice, raw: RawDataset, request: LabellingRequest | None
) -> None:
    """Write the page: a picture and a sentence for each case.

    Args:
        choice: the chosen cases.
        raw: the data set.
        request: of the pool that models labelled, whose labels are drawn; or None.
    """
    images = {case.case: case.images for case in raw.cases if case.subset == "unlabelled"}
    classes = get_declared_classes(raw.description["labels"])
    viewers = {}
    for chosen in choice.cases:
        label = None if request is None else request.label_path(chosen.case)
        drawn = label if label is not None and label.is_file() else None
        caption = "image"
        if chosen.uncertainty is not None:
            caption = f"uncertainty {chosen.uncertainty:.3f}"
        files = images[chosen.case]
        viewers[chosen.case] = view_case(
            chosen.case, raw.description, files, drawn, classes, caption
        )
    text = fill_page_template(
        "next.html.j2",
        TEMPLATES,
        choice=choice,
        rule=TITLES[choice.rule],
        evidence=describe_rule(choice.rule),
        models=[] if request is None else list(map(str, request.trained)),
        viewers=viewers,
        frames={case: list_script_frames(viewer) for case, viewer in viewers.items()},
        legend={name: get_class_colour(n) for n, name in enumerate(classes)} if request else {},
    )
    write_text(choice.page, text)
