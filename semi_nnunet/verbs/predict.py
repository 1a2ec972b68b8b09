"""``semi_nnunet predict``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from semi_nnunet.verbs.options import (
    FIRST,
    MORE,
    ComputeDevice,
    Flag,
    Model,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    ModelTrainer,
    OutputFile,
    name_speed,
    one_of,
    option,
)

logger = logging.getLogger(__name__)
SPEED = one_of()


def predict(
    model: Model = None,
    images: Annotated[Any, Parameter(name="-i", group=FIRST, required=True)] = None,
    out: OutputFile = None,
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    exact: Annotated[bool, option(group=(FIRST, SPEED))] = False,
    fast: Annotated[bool, option(group=(FIRST, SPEED))] = False,
    device: ComputeDevice = None,
    mirror: Annotated[
        bool | None, Parameter(negative=("--no-mirror", "--disable_tta"), group=MORE)
    ] = None,
    step_size: Annotated[float | None, option("--step-size", "-step_size", group=MORE)] = None,
    checkpoint: Annotated[str, option("-chk", group=MORE)] = "checkpoint_final.pth",
    resume: Annotated[bool, option("--continue_prediction", "--c", group=MORE)] = False,
    uncertainty: Flag = False,
    largest_component: Annotated[bool | None, Parameter(group=MORE)] = None,
    save_probabilities: Annotated[bool, option("--save_probabilities", show=False)] = False,
    coarse: Annotated[str | None, option(group=MORE)] = None,
    max_memory: Annotated[float | None, option(group=MORE)] = None,
    spacings: Annotated[Sequence[Sequence[float]] | None, Parameter(parse=False)] = None,
) -> list[Any]:
    """Predict images with a trained model as nnUNetv2_predict does, faster and in little memory.

        semi_nnunet predict -m Dataset042_Pancreas/MODEL -i imagesTs -o predictions
        semi_nnunet predict -d 42 -c 3d_fullres -f 0 -i imagesTs -o predictions --exact
        semi_nnunet predict -m MODEL -i imagesTs -o predictions --fast --coarse LOWRES_MODEL
        semi_nnunet predict -m MODEL -i imagesTs -o predictions --uncertainty

    A MODEL is a folder TRAINER__PLANS__CONFIGURATION, any path or below nnUNet_results, of ours or
    nnU-Net's, or a fold in it. The logits of all classes are never held for the whole image, except
    for --uncertainty. --exact gives the labels of nnUNetv2_predict, voxel for voxel. Without it,
    the network computes in the fastest precision of the device; --fast also omits mirrored images.
    A bad image is named, the others are predicted, and the exit status is not 0.

    --uncertainty shows which predictions to review first: it also writes review.csv (predicted
    Dice, uncertainty of each class and a reason, the worst case first), a map of uncertainty for
    each image in the folder uncertainty, label tables for ITK-SNAP and 3D
    Slicer, and for volumes a segmentation of 3D Slicer in the folder segmentations.

    Args:
        model: Folder of a trained model, or a fold in it; or select it by -d, -c, -tr and -p.
        images: Folder of files CASE_0000.ending. In Python also a list of arrays
            (channels, *spatial).
        out: Folder for the segmentations.
        dataset: Without -m: number or name of the data set.
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds whose logits are averaged (default: every finished fold).
        exact: Give exactly the labels of nnUNetv2_predict.
        fast: Predict without mirrored images.
        device: Where the network computes (default: cuda if there is a GPU).
        mirror: Average over images mirrored along all axes of the training (default: the axes that
            semi_nnunet tune selected, if it did; none for --fast).
        step_size: Step between tiles, as a fraction of the patch (default: 0.5, nnU-Net's).
        checkpoint: Name of the file in each fold.
        resume: Keep the complete predictions of unchanged images that are in the folder, and all
            corrected labels. Without this option, corrected labels are an error.
        uncertainty: Also write review.csv, maps of uncertainty, and label tables for viewers.
        largest_component: Keep only the largest connected component of the foreground. Use it where
            every image shows its foreground in one piece (default: as "one_piece" in the model's
            dataset.json says; off with --exact).
        save_probabilities: Refused, as the probabilities of a whole image are never held.
        coarse: Another model, such as 3d_lowres: tiles in which it finds nothing are skipped.
        max_memory: GiB of main memory to use at most; an image that needs more is named (Linux).
        spacings: Spacing of each array in mm (Python only).

    Returns:
        The files, or for arrays the labels.

    Raises:
        UserError: the model or a folder does not exist, or an image could not be predicted.

    Example:
        >>> model = "42/SemiMeanTeacherTrainer__short__2d"
        >>> len(predict(model, "imagesTs", "predictions", device="cpu"))
        2
    """
    from semi_nnunet.deploy.trained import find_model
    from semi_nnunet.inference.predict import predict_images
    from semi_nnunet.inference.review import REVIEW_FILE
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.util.names import format_count
    from semi_nnunet.workflows.selection import name_folds, select_model

    if images is None:
        raise UserError("no images are given", fix="give their folder")
    if save_probabilities:
        raise UserError(
            "predict never holds the probabilities of a whole image, so it cannot save them",
            fix="semi_nnunet pseudo-label --save_probabilities, or nnUNetv2_predict",
        )
    name = select_model(model, dataset, configuration, trainer, plans, checkpoint)
    selected = name_folds(name, folds)
    speed = name_speed(exact, fast)
    common: dict[str, Any] = {"speed": speed, "mirror": mirror, "step": step_size, "coarse": coarse}
    common |= {"device": device, "max_memory": max_memory, "checkpoint": checkpoint}
    common |= {"uncertainty": uncertainty, "largest_component": largest_component}
    try:
        results = predict_images(selected, images, out, spacings=spacings, resume=resume, **common)
    finally:  # a bad image does not cost those of the others
        if out is not None and uncertainty and (Path(out) / REVIEW_FILE).is_file():
            _write_review_files(Path(out), find_model(selected, checkpoint).dataset_json)
    if out is not None:
        logger.info(f"predicted {format_count(results, 'image')}: {out}")
    return list(results)


def _write_review_files(out: Path, description: Mapping[str, Any]) -> None:
    """Write the label tables and segmentations that ITK-SNAP and 3D Slicer open."""
    from semi_nnunet.annotation.segmentations import SEGMENTATIONS, write_segmentations
    from semi_nnunet.reporting.label_tables import write_label_tables

    write_label_tables(out, description)
    labels = sorted(out.glob(f"*{description['file_ending']}"))
    write_segmentations(labels, description, out / SEGMENTATIONS)
