"""Locate the folders of pseudo labels, next to the preprocessed data.

People list the data sets of nnUNet_raw, so intermediate files do not belong there.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.deploy.trained import find_models
from semi_nnunet.pseudo_labels.pool import REQUEST, LabellingRequest
from semi_nnunet.raw.layout import get_preprocessed_dataset
from semi_nnunet.util.files import folder_aside, optional_json

FOLDER = "pseudo_labels"  # in the preprocessed folder of a data set
COMPLETED = "completed_labels"  # the same, for completed annotations
logger = logging.getLogger(__name__)


def locate_pool_labels(raw: Path) -> Path:
    """Return the folder in which ``pseudo-dataset`` labels the pool for a new data set.

    Args:
        raw: its raw folder; labels that version 0.2.0 left next to it are continued.
    """
    old = raw.parent / f"{FOLDER}_{raw.name}"
    return old if old.is_dir() else get_preprocessed_dataset(raw.name) / FOLDER


def locate_completed_labels(raw: Path) -> Path:
    """Return the folder in which ``pseudo-dataset`` completes annotations for a new data set."""
    return get_preprocessed_dataset(raw.name) / COMPLETED


def locate_model_labels(raw: Path, models: Sequence[str], views: Sequence[str]) -> Path:
    """Return the folder of the labels that these models give to imagesUn.

    Its name holds a checksum of the models and views, so that others have another folder.

    Args:
        raw: folder of the data set.
        models: see :func:`~.label.pseudo_label`.
        views: test-time views to average.

    Raises:
        UserError: a model is missing.
    """
    trained = find_models(models)
    stages = [*trained, *(model.previous for model in trained if model.previous is not None)]
    key = " ".join([*models, *sorted(views), *(str(model.checksums()) for model in stages)])
    digest = f"{zlib.crc32(key.encode()):08x}"
    old = raw.parent / f"{FOLDER}_{raw.name}_{digest}"
    return old if old.is_dir() else get_preprocessed_dataset(raw.name) / FOLDER / digest


def reuse_labels(request: LabellingRequest, raw: Path) -> None:
    """Copy the labels that ``select`` made of the same images with the same models.

    Args:
        request: of the labelling; nothing is copied if it was begun.
        raw: folder of the data set of the images.
    """
    if request.out.exists():
        return
    existing = locate_model_labels(raw, request.models, request.views)
    if optional_json(existing / REQUEST) == request.record():
        logger.info(f"taken from {existing}: labels of the same images by the same models")
        with folder_aside(request.out, "No label was taken") as aside:
            shutil.copytree(existing, aside, dirs_exist_ok=True)
