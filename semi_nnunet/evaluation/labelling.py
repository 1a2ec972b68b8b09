"""How the label files of a data set are read, and what their values mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.data.declared_labels import declared_classes, declared_values
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.data.raw_description import read_description


@dataclass(frozen=True)
class Labelling:
    """What ``dataset.json`` says of label files.

    Args:
        reader: nnU-Net's reader of them.
        classes: name -> the values that are this class, or this region.
        allowed: the values that a file may hold.
        ignore: the value of voxels that do not count, or None.
        annotated: which of the classes each case annotates; None: all.
    """

    reader: type[Any]
    classes: Mapping[str, tuple[int, ...]]
    allowed: frozenset[int]
    ignore: int | None
    annotated: AnnotatedClasses | None = None

    def classes_of(self, case: str) -> Collection[str]:
        """The classes that the reference of a case tells."""
        return self.classes if self.annotated is None else self.annotated.names(case)


def read_labelling(dataset_json: Path, example: str) -> Labelling:
    """What is said there.

    Args:
        dataset_json: of the data set.
        example: one of the files, to choose the reader by.

    Raises:
        UserError: ``dataset.json`` cannot be used.
    """
    description = read_description(dataset_json.parent, dataset_json.name)
    labels = description["labels"]
    reader, allowed = reader_class(description, [example]), frozenset(declared_values(labels))
    annotated = AnnotatedClasses.of(description)
    return Labelling(reader, declared_classes(labels), allowed, labels.get("ignore"), annotated)
