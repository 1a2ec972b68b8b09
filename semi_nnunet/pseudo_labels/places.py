"""Where the labels of models are kept between commands: beside what was preprocessed.

People list the data sets of nnUNet_raw, so that nothing in between lies there.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.data.layout import preprocessed_dataset
from semi_nnunet.deploy.trained import find_models
from semi_nnunet.pseudo_labels.pool import REQUEST, Request
from semi_nnunet.util.files import folder_aside, optional_json

FOLDER = "pseudo_labels"  # in the preprocessed folder of a data set
COMPLETED = "completed_labels"  # the same, for labels of people


def labelled_pool(raw: Path) -> Path:
    """The folder in which the pool is labelled for a data set that ``distil`` writes.

    Args:
        raw: its raw folder; version 0.2.0 labelled beside it, which is gone on with.
    """
    before = raw.parent / f"{FOLDER}_{raw.name}"
    return before if before.is_dir() else preprocessed_dataset(raw.name) / FOLDER


def completed_labels(raw: Path) -> Path:
    """The folder in which labels of people are completed for a data set that ``distil`` writes."""
    return preprocessed_dataset(raw.name) / COMPLETED


def labelled_by(raw: Path, models: Sequence[str], views: Sequence[str]) -> Path:
    """The folder for what these very models say of imagesUn: other ones have another.

    Args:
        raw: folder of the data set.
        models: see :func:`~.label.pseudo_label`.
        views: test-time views to average.

    Raises:
        UserError: there is no such model.
    """
    found = find_models(models)
    stages = [*found, *(model.previous for model in found if model.previous is not None)]
    asked = " ".join([*models, *sorted(views), *(str(model.checksums()) for model in stages)])
    digest = f"{zlib.crc32(asked.encode()):08x}"
    before = raw.parent / f"{FOLDER}_{raw.name}_{digest}"
    return before if before.is_dir() else preprocessed_dataset(raw.name) / FOLDER / digest


def adopt_labels(request: Request, raw: Path) -> None:
    """Take what the same models have already said of the same images, in ``select``.

    Args:
        request: what is to be labelled; nothing is taken where that was begun.
        raw: folder of the data set that the images are of.
    """
    if request.out.exists():
        return
    known = labelled_by(raw, request.models, request.views)
    if optional_json(known / REQUEST) == request.record():
        print(f"taken from {known}: what the same models said of the same images")
        with folder_aside(request.out, "No label was taken") as aside:
            shutil.copytree(known, aside, dirs_exist_ok=True)
