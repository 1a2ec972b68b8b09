"""Correct predicted PNG labels in napari, the worst case first.

    pip install "napari[pyqt6]"
    python scripts/review_png.py PREDICTIONS IMAGES CORRECTED

PREDICTIONS is written by `semi_nnunet predict --uncertainty`. Close a window to save its label in
CORRECTED and to open the next one; labels that exist there are skipped. Then `semi_nnunet accept
-i CORRECTED --proposals PREDICTIONS`. napari itself cannot save a label as PNG.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image

from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.reporting.label_tables import name_label_values
from semi_nnunet.util.files import read_json


def read(path: Path) -> np.ndarray:
    """Read a picture."""
    return np.array(Image.open(path))


def review(
    row: dict[str, str], predictions: Path, images: Path, colours: dict[int, str]
) -> Image.Image:
    """Show a case until its window is closed; return the corrected label."""
    viewer = napari.Viewer(title=f"{row['case']}: {row['reason']}")
    viewer.add_image(read(images / f"{row['case']}_0000.png"), name="image")
    options: dict[str, Any] = {
        "colormap": "inferno",
        "blending": "additive",
        "contrast_limits": (0, 100),
    }
    uncertainty = read(predictions / row["map"])
    viewer.add_image(uncertainty, name="uncertainty", visible=False, **options)
    colormap: dict[Any, str] = {None: "transparent", **colours}
    label = read(predictions / row["label"])
    layer = viewer.add_labels(label, name="label", opacity=0.4, colormap=colormap)
    napari.run()
    return Image.fromarray(layer.data)


def main() -> None:
    """Review all cases that have no corrected label."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    predictions, images, corrected = map(Path, sys.argv[1:])
    corrected.mkdir(exist_ok=True)
    named = name_label_values(read_json(predictions / DATASET_JSON))
    colours = {value: "#{:02x}{:02x}{:02x}".format(*colour) for value, (_, colour) in named.items()}
    with (predictions / "review.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if not (corrected / row["label"]).exists():
            review(row, predictions, images, colours).save(corrected / row["label"])


if __name__ == "__main__":
    main()
