"""The page of the cases to annotate next: a picture and a sentence for each."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.annotation.choosing import AnnotationChoice, Rule
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.pseudo_labels.select import view_case
from semi_nnunet.raw.classes import get_declared_classes
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.reporting.contours import get_class_colour
from semi_nnunet.reporting.page import fill_page_template, list_script_frames
from semi_nnunet.util.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
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


def describe_evidence(rule: Rule) -> str:
    """Return what is known of a rule in comparison with a random choice."""
    return f"{MEASURED.get(rule, BASELINE_RULE)} {COMPARE}"


def write_next_page(
    choice: AnnotationChoice, raw: RawDataset, request: LabellingRequest | None
) -> None:
    """Write one HTML file that opens offline.

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
        scored = "" if chosen.uncertainty is None else f"uncertainty {chosen.uncertainty:.3f}"
        files = images[chosen.case]
        viewers[chosen.case] = view_case(
            chosen.case, raw.description, files, drawn, classes, scored or "image"
        )
    text = fill_page_template(
        "next.html.j2",
        TEMPLATES,
        choice=choice,
        rule=TITLES[choice.rule],
        evidence=describe_evidence(choice.rule),
        models=[] if request is None else list(map(str, request.trained)),
        viewers=viewers,
        frames={case: list_script_frames(viewer) for case, viewer in viewers.items()},
        legend={name: get_class_colour(n) for n, name in enumerate(classes)} if request else {},
    )
    write_text(choice.page, text)
