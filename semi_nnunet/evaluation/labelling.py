"""Meaning of the values in the label files of a data set, and the reader of these files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.raw.classes import AnnotatedClasses, get_declared_classes, get_declared_values
from semi_nnunet.raw.description import read_description
from semi_nnunet.raw.pieces import is_one_piece
from semi_nnunet.raw.readers import choose_reader


@dataclass(frozen=True)
class Labelling:
    """The description of label files in ``dataset.json``.

    Args:
        reader: nnU-Net's reader of the files.
        classes: name of the class or region -> its values.
        allowed: all values that a file may hold.
        ignore: value of voxels that do not count, or None.
        annotated: the classes that each case annotates; None: all cases annotate all classes.
        one_piece: whether only the largest connected piece of a prediction counts.
    """

    reader: type[Any]
    classes: Mapping[str, tuple[int, ...]]
    allowed: frozenset[int]
    ignore: int | None
    annotated: AnnotatedClasses | None = None
    one_piece: bool = False

    @property
    def foreground(self) -> frozenset[int]:
        """All values but those of background and ignored voxels."""
        return self.allowed - {0, self.ignore}

    @property
    def is_complete(self) -> bool:
        """Whether references annotate all classes in all voxels."""
        return self.annotated is None and self.ignore is None

    def list_classes(self, case: str) -> Collection[str]:
        """Return the classes that the reference of a case annotates."""
        return self.classes if self.annotated is None else self.annotated.names(case)


def read_labelling(dataset_json: Path, example: str) -> Labelling:
    """Read the labelling of a data set.

    Args:
        dataset_json: of the data set.
        example: one of the label files, to choose the reader.

    Raises:
        UserError: ``dataset.json`` cannot be used.
    """
    description = read_description(dataset_json.parent, dataset_json.name)
    labels = description["labels"]
    reader, allowed = choose_reader(description, [example]), frozenset(get_declared_values(labels))
    annotated = AnnotatedClasses.of(description)
    return Labelling(
        reader, get_declared_classes(labels), allowed, labels.get("ignore"), annotated,
        is_one_piece(description),
    )  # fmt: skip
