"""Write the cases to annotate next as one HTML file to open offline, in the look of the report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from semi_nnunet.raw.description import RawCase, RawDataset
from semi_nnunet.reporting.page import fill_page_template
from semi_nnunet.reporting.shown_cases import make_data_uri
from semi_nnunet.verify.contact_sheet import MAX_STRETCH, make_panel

if TYPE_CHECKING:
    from semi_nnunet.annotation.next_cases import NextCases

TEMPLATES = Path(__file__).parent / "templates"
# Said on the page: which rule is better than chance on which data has to be measured.
EVIDENCE = (
    "Whether this rule finds better cases than chance has not been measured yet. Label a few "
    "patients at random as well if you can."
)


def write_next_page(path: Path, raw: RawDataset, found: NextCases) -> None:
    """Write one HTML file with a picture and a reason for each case.

    Args:
        path: of the file.
        raw: the data set.
        found: the chosen cases.
    """
    pictures = [draw_middle_slice(raw, item.case) for item in found.cases]
    text = fill_page_template(
        "next.html.j2", TEMPLATES, dataset=raw.folder.name, number=raw.number, found=found,
        pictures=pictures, evidence=EVIDENCE,
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")


def draw_middle_slice(raw: RawDataset, case: RawCase) -> str:
    """Return the middle slice of a case as an inline PNG, with square pixels."""
    panel = make_panel(raw, case, "")
    picture = Image.fromarray((panel.slice * 255).round().astype(np.uint8))
    aspect = min(max(panel.aspect, 1 / MAX_STRETCH), MAX_STRETCH)
    width, height = picture.width * max(1, 1 / aspect), picture.height * max(1, aspect)
    content = io.BytesIO()
    picture.resize((round(width), round(height))).save(content, "PNG")
    return make_data_uri(content.getvalue())
