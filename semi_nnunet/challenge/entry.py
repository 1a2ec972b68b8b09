"""What a submission runs: predict the images of one folder into another, nothing else.

``predict.sh`` of the folder that ``semi_nnunet package`` writes calls this module. It needs no
network, no GPU, no writable file but the segmentations, and no variable of nnU-Net's. The exit
status is 0 if every image was predicted, 1 if some were not, which are named, and 2 if none could
be, because of the folders or the model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.util.errors import Problem, UserError, printable, raise_if_any
from semi_nnunet.util.files import read_json, write_json

DESCRIPTION = "submission.json"
MODEL = "model"
IMPORTED = time.perf_counter()
KEYS = ("model", "speed", "step", "device", "limit")


def main(argv: Sequence[str] | None = None) -> int:
    """Predict; see the module for the exit status."""
    parser = argparse.ArgumentParser(prog="predict.sh", description="Predict CASE_0000 files.")
    parser.add_argument("root", type=Path, help=f"folder of {DESCRIPTION} and the model")
    parser.add_argument("inputs", type=Path, nargs="?", help="folder of the images")
    parser.add_argument("outputs", type=Path, nargs="?", help="folder for the segmentations")
    parser.add_argument("--check", action="store_true", help="predict a made-up image instead")
    args = parser.parse_args(argv)
    try:
        if args.check:
            check(args.root)
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
        root: see :func:`described`.
        inputs: folder of the images; nothing is written there.
        outputs: folder for the segmentations.

    Returns:
        0, or 1 if some could not be predicted, which are named on the standard error.

    Raises:
        UserError: the folders or the model cannot be used.
    """
    require_folders(inputs, outputs)
    content = described(root)
    predictor = loaded(root, content, content["device"])
    from semi_nnunet.data.raw_description import cases_in, misnamed
    from semi_nnunet.inference.predict import FolderPredictor

    ending = predictor.predictor.dataset_json["file_ending"]
    cases = cases_in(inputs, ending)
    wrong = [*misnamed(inputs, cases)]
    if not cases and not wrong:
        raise UserError(f"{inputs} holds no image CASE_0000{ending}", fix="put one there")
    begun = time.perf_counter()
    print(f"ready to predict {len(cases)} images after {seconds_since_start():.1f} s", flush=True)
    try:
        FolderPredictor(predictor, inputs, outputs).predict(cases)
    except UserError as error:
        if not error.problems:  # nothing of the images: a full disk, or too little memory
            raise
        wrong += error.problems
    each = (time.perf_counter() - begun) / max(1, len(cases))
    print(f"{each:.1f} s an image, {seconds_since_start():.1f} s with the start")
    if content["limit"] is not None and each > content["limit"]:
        print(f"this machine takes longer than the limit of {content['limit']:g} s an image")
    for problem in wrong:
        print(printable(f"not predicted: {problem}"), file=sys.stderr)
    return 1 if wrong else 0


def require_folders(inputs: Path, outputs: Path) -> None:
    """Check the folders before anything is loaded.

    Raises:
        UserError: one is no folder, both are the same, or nothing can be written to the second.
    """
    wrong = []
    if not inputs.is_dir():
        wrong.append(Problem(str(inputs), "must be a folder of images", "mount it there"))
    if not outputs.is_dir():
        wrong.append(Problem(str(outputs), "must be a folder", "make it and mount it there"))
    elif inputs.is_dir() and inputs.samefile(outputs):
        what = "must be another folder than that of the images, which could be overwritten"
        wrong.append(Problem(str(outputs), what, "mount two folders"))
    elif not os.access(outputs, os.W_OK | os.X_OK):
        what = f"must be writable for user {os.getuid()}, who is not root"
        fix = "chmod a+rwx on the folder outside, or docker run --user $(id -u)"
        wrong.append(Problem(str(outputs), what, fix))
    raise_if_any("the folders cannot be used:", wrong)


def described(root: Path) -> dict[str, Any]:
    """The content of submission.json, which says what is predicted with what.

    Args:
        root: folder with submission.json and model/TRAINER__PLANS__CONFIGURATION.

    Raises:
        UserError: it is not there or lacks something.
    """
    content = read_json(root / DESCRIPTION)
    if missing := [key for key in KEYS if key not in content]:
        raise UserError(
            f"{root / DESCRIPTION} must have {', '.join(missing)}", fix="package the model again"
        )
    return dict(content)


def loaded(root: Path, content: dict[str, Any], device: str) -> Any:
    """The model in memory.

    Args:
        root: see :func:`described`.
        content: of submission.json.
        device: "cpu", or "cuda", which means a GPU if there is one.

    Raises:
        UserError: the model cannot be read.
    """
    import torch

    from semi_nnunet.inference.model import options_of
    from semi_nnunet.inference.predict import predictor_of

    has_gpu = device == "cuda" and torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        print("there is no GPU: predicting on the CPU", file=sys.stderr)
    place = torch.device("cuda" if has_gpu else "cpu")
    options = options_of(content["speed"], place, step=content["step"])
    return predictor_of(root / MODEL / content["model"], None, options, place)


def seconds_since_start() -> float:
    """Since this process began, the start of Python and all imports included."""
    try:
        after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2]
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return uptime - int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # another system
        return time.perf_counter() - IMPORTED


def check(root: Path) -> None:
    """Predict a made-up image of one tile on the CPU, so that anything missing is found early.

    Raises:
        UserError: the model cannot be read, or the image cannot be predicted.
    """
    content = described(root)
    predictor = loaded(root, {**content, "speed": "fast"}, "cpu")
    from semi_nnunet.data.raw_description import cases_in
    from semi_nnunet.inference.predict import FolderPredictor

    with tempfile.TemporaryDirectory() as made:
        inputs, outputs = Path(made, "inputs"), Path(made, "outputs")
        inputs.mkdir()
        outputs.mkdir()
        ending = predictor.predictor.dataset_json["file_ending"]
        channels = len(predictor.predictor.dataset_json["channel_names"])
        size = [*predictor.configuration.patch_size]
        for channel in range(channels):
            made_up_image(inputs / f"check_{channel:04d}{ending}", size, channel)
        FolderPredictor(predictor, inputs, outputs).predict(cases_in(inputs, ending))


def made_up_image(path: Path, size: Sequence[int], seed: int) -> None:
    """Write noise as an image file.

    Args:
        path: its ending says the format.
        size: of its axes; volumes get a third one.
        seed: of the noise.
    """
    import numpy as np

    noise = np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)
    if path.name.endswith((".png", ".bmp")):
        from skimage import io

        io.imsave(path, noise, check_contrast=False)
    elif path.name.endswith((".tif", ".tiff")):
        import tifffile

        tifffile.imwrite(path, noise)
        spacing = path.with_name(path.name.rpartition("_")[0] + ".json")
        write_json(spacing, {"spacing": [1.0] * 3})
    else:
        import SimpleITK as sitk

        volume = noise[None].repeat(3, 0) if noise.ndim == 2 else noise
        sitk.WriteImage(sitk.GetImageFromArray(volume.astype(np.int16)), str(path))


if __name__ == "__main__":
    sys.exit(main())
