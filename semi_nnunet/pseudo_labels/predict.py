"""Predict files or arrays with one trained model, one after another, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from tqdm import tqdm

from semi_nnunet.data.file_bytes import require_whole
from semi_nnunet.data.raw_description import cases_in
from semi_nnunet.deploy.trained import find_model, find_models
from semi_nnunet.pseudo_labels.predictor import LoadedModel
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import could_not_write, write_json


@overload
def predict(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    mirror: bool = True,
    device: str | None = None,
) -> list[Path]: ...


@overload
def predict(
    model: str | Path,
    images: Sequence[np.ndarray],
    *,
    spacings: Sequence[Sequence[float]],
    mirror: bool = True,
    device: str | None = None,
) -> list[np.ndarray]: ...


def predict(
    model: str | Path,
    images: str | Path | Sequence[np.ndarray],
    out: str | Path | None = None,
    *,
    spacings: Sequence[Sequence[float]] | None = None,
    mirror: bool = True,
    device: str | None = None,
) -> list[Path] | list[np.ndarray]:
    """Predict images with a trained model, as ``nnUNetv2_predict`` does: files, or arrays.

    A cascade's second stage asks its first one before it. For a large folder, see
    :func:`semi_nnunet.pseudo_label`, which shares the work and goes on where it was interrupted.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION, or a fold in it, as it is or below
            nnUNet_results; the logits of its folds are averaged.
        images: folder of files CASE_0000.ending; or arrays (channels, *spatial) with the axes in
            the order in which nnU-Net's readers give them, for 2-D images (channels, 1, y, x).
        out: folder for the segmentations, where ``images`` is a folder.
        spacings: of each array, in mm in the order of its axes, for 2-D images (999, y, x).
        mirror: average over mirrored images, where the training allows it.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one, else the CPU.

    Returns:
        The files that were written, or an array of labels (*spatial) for each image.

    Raises:
        UserError: the model or the images are not there, ``out`` or ``spacings`` is missing, or the
            device does not exist.
    """
    find_models([str(model)])  # raises if it has no first stage
    found = find_model(str(model))
    place = torch.device(find_resources(device).device)
    views = ("flips",) if mirror else ()
    if not isinstance(images, (str, Path)):
        if spacings is None or len(spacings) != len(images):
            raise UserError(
                f"spacings must be given for each of the {len(images)} arrays, got "
                f"{'none' if spacings is None else len(spacings)}. Fix: spacings=[(z, y, x), ...]"
            )
        loaded = LoadedModel(found, views, place)
        pairs = zip(images, spacings, strict=True)
        return [
            loaded(np.asarray(image, np.float32), {"spacing": list(spacing)})[0]
            for image, spacing in pairs
        ]
    if out is None:
        raise UserError("predictions of a folder need another for themselves. Fix: out=FOLDER")
    ending = found.dataset_json["file_ending"]
    cases = cases_in(Path(images), ending)
    if not cases:
        raise UserError(f"{images} holds no image CASE_0000{ending}. Fix: correct the folder")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "dataset.json", found.dataset_json)  # says what the labels are
    loaded = LoadedModel(found, views, place)
    bar = tqdm(cases.items(), desc="predicting", unit="case", disable=None)
    return [_written(loaded, files, folder / f"{case}{ending}") for case, files in bar]


def _written(model: LoadedModel, files: Sequence[str | Path], path: Path) -> Path:
    """Predict a case and write its labels.

    Raises:
        DiskError: the disk is full or not writable; no half-written file stays.
    """
    reader: Any = model.reader_writer
    labels, _, properties = model(*reader.read_images(list(map(str, files))))
    try:
        reader.write_seg(labels, str(path), properties)
        require_whole(path)
    except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as RuntimeError
        path.unlink(missing_ok=True)
        left = "The cases that were predicted before are whole"
        raise could_not_write(path, error, path.parent, left=left) from error
    return path
