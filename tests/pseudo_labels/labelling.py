"""Label a pool in this process, and predict the same images with nnU-Net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.pseudo_labels.pool import LabellingRequest, run_shard
from semi_nnunet.pseudo_labels.predictor import Labeller
from semi_nnunet.util.shards import Shard

CPU = torch.device("cpu")


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def predict_with_nnunet(
    model, images: Path, out: Path, mirror: bool, npz: bool = False, previous: Path | None = None
) -> None:
    """nnUNetv2_predict, in this process; ``previous`` is -prev_stage_predictions."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model.folder), model.folds)
    files = [[str(path)] for path in sorted(images.glob("*.nii.gz"))]
    out.mkdir()
    for (file,) in files:
        name = Path(file).name.removesuffix("_0000.nii.gz")
        reader = predictor.plans_manager.image_reader_writer_class()
        image, properties = reader.read_images([file])
        previous_labels = previous and reader.read_seg(str(previous / f"{name}.nii.gz"))[0]
        predictor.predict_single_npy_array(image, properties, previous_labels, str(out / name), npz)


def label(request: LabellingRequest) -> None:
    """All of a pool, in this process."""
    request.begin()
    shard = Shard(request, 0, 1)
    list(run_shard(shard, Labeller(request.trained, request.views, CPU), shard.find_unfinished()))
