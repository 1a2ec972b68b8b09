"""The program of a submission: predict the images of one folder into another.

``predict.sh`` of the folder that ``semi_nnunet package`` writes calls this module. It needs no
network, no GPU, no nnU-Net variables, and writes only the segmentations. The exit status is 0 if
every image was predicted, 1 if some were not, which are listed, and 2 if none could be, because of
the folders or the model.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.util.errors import Problem, UserError, printable, raise_if_any
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.messages import show_messages
from semi_nnunet.util.names import format_count

DESCRIPTION = "submission.json"
MODEL = "model"
IMPORTED = time.perf_counter()
KEYS = ("model", "speed", "step", "device", "limit")
logger = logging.getLogger("semi_nnunet.challenge.entry")  # __name__ is __main__ in a container


def main(argv: Sequence[str] | None = None) -> int:
    """Predict a folder and return the exit status, see the module."""
    parser = argparse.ArgumentParser(prog="predict.sh", description="Predict CASE_0000 files.")
    parser.add_argument("root", type=Path, help=f"folder of {DESCRIPTION} and the model")
    parser.add_argument("inputs", type=Path, nargs="?", help="folder of the images")
    parser.add_argument("outputs", type=Path, nargs="?", help="folder for the segmentations")
    parser.add_argument("--check", action="store_true", help="predict a made-up image instead")
    args = parser.parse_args(argv)
    show_messages()
    try:
        if args.check:
            predict_test_image(args.root)
            return 0
        if args.outputs is None:
            parser.error("give the folder of the images and the one for the segmentations")
        return predict_folder(args.root, args.inputs, args.outputs)
    except UserError as error:
        print(f"predict.sh: error: {error}", file=sys.stderr)
        return 2


def predict_folder(root: Path, inputs: Path, outputs: Path) -> int:
    """Predict every image CASE_0000.ending as CASE.ending.

    Args:
        root: see :func:`read_submission`.
        inputs: folder of the images, which stays unchanged.
        outputs: folder for the segmentations.

    Returns:
        0, or 1 if some could not be predicted, which are listed on the standard error.

    Raises:
        UserError: the folders or the model cannot be used.
    """
    require_usable_folders(inputs, outputs)
    content = read_submission(root)
    predictor = load_submission_model(root, content, content["device"])
    from semi_nnunet.inference.folder import FolderPredictor
    from semi_nnunet.raw.description import find_cases, find_misnamed_images

    ending = predictor.loaded.dataset_json["file_ending"]
    cases = find_cases(inputs, ending)
    problems = [*find_misnamed_images(inputs, cases)]
    if not cases and not problems:
        raise UserError(f"{inputs} holds no image CASE_0000{ending}", fix="put one there")
    begun = time.perf_counter()
    logger.info(
        f"ready to predict {format_count(cases, 'image')} after {seconds_since_start():.1f} s"
    )
    try:
        FolderPredictor(predictor, inputs, outputs).predict(cases)
    except UserError as error:
        if not error.problems:  # not caused by an image: a full disk, or too little memory
            raise
        problems += error.problems
    seconds = (time.perf_counter() - begun) / max(1, len(cases))
    logger.info(f"{seconds:.1f} s an image, {seconds_since_start():.1f} s with the start")
    limit = content["limit"]
    if limit is not None and seconds > limit:
        logger.info(f"this machine takes longer than the limit of {limit:g} s an image")
    for problem in problems:
        logger.warning(printable(f"not predicted: {problem}"))
    return 1 if problems else 0


def require_usable_folders(inputs: Path, outputs: Path) -> None:
    """Check the folders before anything is loaded.

    Raises:
        UserError: a folder is missing, both are the same, or the second is not writable.
    """
    problems = []
    if not inputs.is_dir():
        problems.append(Problem(str(inputs), "must be a folder of images", "mount it there"))
    if not outputs.is_dir():
        problems.append(Problem(str(outputs), "must be a folder", "make it and mount it there"))
    elif inputs.is_dir() and inputs.samefile(outputs):
        message = "must be another folder than that of the images, which could be overwritten"
        problems.append(Problem(str(outputs), message, "mount two folders"))
    elif not os.access(outputs, os.W_OK | os.X_OK):
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        message = f"must be writable for {user}, who is not root"
        fix = "chmod a+rwx on the folder outside, or docker run --user $(id -u)"
        problems.append(Problem(str(outputs), message, fix))
    raise_if_any("the folders cannot be used:", problems)


def read_submission(root: Path) -> dict[str, Any]:
    """Read submission.json: the model and the options of its prediction.

    Args:
        root: folder with submission.json and model/TRAINER__PLANS__CONFIGURATION.

    Raises:
        UserError: the file is missing or incomplete.
    """
    content = read_json(root / DESCRIPTION)
    if missing := [key for key in KEYS if key not in content]:
        raise UserError(
            f"{root / DESCRIPTION} must have {', '.join(missing)}", fix="package the model again"
        )
    return dict(content)


def load_submission_model(root: Path, content: dict[str, Any], device: str) -> Any:
    """Load the model of a submission.

    Args:
        root: see :func:`read_submission`.
        content: of submission.json.
        device: "cpu", or "cuda" for a GPU if there is one.

    Returns:
        An :class:`~semi_nnunet.inference.model.ImagePredictor`.

    Raises:
        UserError: the model cannot be read.
    """
    import torch

    from semi_nnunet.deploy.trained import find_model
    from semi_nnunet.inference.model import make_prediction_options
    from semi_nnunet.inference.predict import load_predictor

    has_gpu = device == "cuda" and torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        logger.warning("there is no GPU: predicting on the CPU")
    torch_device = torch.device("cuda" if has_gpu else "cpu")
    options = make_prediction_options(content["speed"], torch_device, step=content["step"])
    model = find_model(str(root / MODEL / content["model"]))
    return load_predictor([model], options, torch_device)


def seconds_since_start() -> float:
    """Return the age of this process, with the start of Python and all imports."""
    try:
        after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2]
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return uptime - int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):  # another system
        return time.perf_counter() - IMPORTED


def predict_test_image(root: Path) -> None:
    """Predict a made-up image of one tile on the CPU, so that missing files are found early.

    Raises:
        UserError: the model cannot be read, or the image cannot be predicted.
    """
    content = read_submission(root)
    predictor = load_submission_model(root, {**content, "speed": "fast"}, "cpu")
    from semi_nnunet.inference.folder import FolderPredictor
    from semi_nnunet.raw.description import find_cases

    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs"), Path(folder, "outputs")
        inputs.mkdir()
        outputs.mkdir()
        description, size = predictor.loaded.dataset_json, [*predictor.configuration.patch_size]
        ending = description["file_ending"]
        reader = predictor.loaded.plans_manager.plans["image_reader_writer"]
        for channel in range(len(description["channel_names"])):
            path = inputs / f"check_{channel:04d}{ending}"
            write_test_image(path, size, channel, is_volume=reader == "Tiff3DIO")
        FolderPredictor(predictor, inputs, outputs).predict(find_cases(inputs, ending))


def write_test_image(path: Path, size: Sequence[int], seed: int, is_volume: bool = False) -> None:
    """Write noise as an image file.

    Args:
        path: its ending decides the format.
        size: of its axes; volumes get a third one.
        seed: of the noise.
        is_volume: whether a TIFF file has slices.
    """
    import numpy as np

    noise = np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)
    if path.name.endswith((".png", ".bmp")):
        from skimage import io

        io.imsave(path, noise, check_contrast=False)
    elif path.name.endswith((".tif", ".tiff")):
        import tifffile

        tifffile.imwrite(path, noise[None].repeat(3, 0) if is_volume and noise.ndim == 2 else noise)
        spacing = path.with_name(path.name.rpartition("_")[0] + ".json")
        write_json(spacing, {"spacing": [1.0] * 3})
    else:
        import SimpleITK as sitk

        volume = noise[None].repeat(3, 0) if noise.ndim == 2 else noise
        sitk.WriteImage(sitk.GetImageFromArray(volume.astype(np.int16)), str(path))


if __name__ == "__main__":
    sys.exit(main())
