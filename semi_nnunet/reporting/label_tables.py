"""Names and colours of labels for ITK-SNAP and 3D Slicer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageColor

from semi_nnunet.raw.classes import get_declared_classes, has_regions
from semi_nnunet.reporting.contours import CLASS_COLOURS, get_class_colour
from semi_nnunet.util.files import write_text

ITKSNAP_FILE = "itksnap_labels.txt"  # Segmentation > Import Label Descriptions
SLICER_FILE = "slicer_colors.ctbl"  # Add Data
GREY = (128, 128, 128)  # of the ignore label
DARKER = 0.65  # factor on the colours each time that they repeat

Colour = tuple[int, int, int]


def name_label_values(description: Mapping[str, Any]) -> dict[int, tuple[str, Colour]]:
    """Return value in predicted labels -> name and colour of its class, without the background.

    The ignore label is among them, for reviewers of sparse labels.

    A region is painted with the value that ``regions_class_order`` gives it.

    >>> name_label_values({"labels": {"background": 0, "liver": 1}})
    {1: ('liver', (240, 228, 66))}

    Args:
        description: content of dataset.json.
    """
    labels, named = description["labels"], dict[int, tuple[str, Colour]]()
    classes = get_declared_classes(labels)
    values = [group[0] for group in classes.values()]
    if has_regions(labels):
        values = [int(value) for value in description["regions_class_order"]]
    for place, (name, value) in enumerate(zip(map(clean_name, classes), values, strict=True)):
        factor = DARKER ** (place // len(CLASS_COLOURS))
        rgb = ImageColor.getrgb(get_class_colour(place))
        red, green, blue = (round(factor * channel) for channel in rgb[:3])
        named[value] = (name or f"class {value}", (red, green, blue))
    if "ignore" in labels:
        named[int(labels["ignore"])] = ("ignore", GREY)
    return named


def clean_name(name: str) -> str:
    """Return a name that both programs read: without quotes around it, line ends and tabs.

    >>> clean_name(' left  "lobe" ')
    "left 'lobe"
    """
    return " ".join(name.replace('"', "'").split()).strip("'")


def write_label_tables(folder: Path, description: Mapping[str, Any]) -> list[Path]:
    """Write the label descriptions of ITK-SNAP and the colour table of 3D Slicer.

    Args:
        folder: of the predictions.
        description: content of dataset.json.
    """
    named = name_label_values(description)
    snap = ["# ITK-SnAP Label Description File", "# IDX -R- -G- -B- -A- VIS MSH LABEL"]
    snap += ['0 0 0 0 0 0 0 "Clear Label"']
    slicer = ["# Color table file", f"# {len(named) + 1} values", "0 background 0 0 0 0"]
    for value, (name, colour) in sorted(named.items()):
        numbers = " ".join(map(str, colour))
        snap.append(f'{value} {numbers} 1 1 1 "{name}"')
        slicer.append(f"{value} {name.replace(' ', '_')} {numbers} 255")
    paths = [folder / ITKSNAP_FILE, folder / SLICER_FILE]
    for path, lines in zip(paths, (snap, slicer), strict=True):
        write_text(path, "\n".join(lines) + "\n")
    return paths
