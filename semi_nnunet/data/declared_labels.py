"""What the entry "labels" of ``dataset.json`` declares."""

from __future__ import annotations

from typing import Any

NO_CLASSES = ("background", "ignore")


def declared_values(labels: dict[str, Any]) -> set[int]:
    """All values that label files may hold: those of regions and of "ignore" included.

    Raises:
        TypeError, ValueError: a value is no whole number.
    """
    values: set[int] = set()
    for label in labels.values():
        own = label if isinstance(label, (list, tuple)) else [label]
        if any(isinstance(value, float) and not value.is_integer() for value in own):
            raise ValueError(f"{label} is no whole number")
        values.update(int(value) for value in own)
    return values


def declared_classes(labels: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> the values of each class, or region, but for the background and "ignore"."""
    return {
        name: tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
        for name, value in labels.items()
        if name not in NO_CLASSES
    }


def has_regions(labels: dict[str, Any]) -> bool:
    """Whether nnU-Net takes the labels for regions: one of them is several values."""
    return any(len(values) > 1 for values in declared_classes(labels).values())
