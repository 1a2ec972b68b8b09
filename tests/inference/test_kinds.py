"""Labels of all kinds, in slices and volumes, on any grid, are those of nnU-Net to the voxel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets.phantom import LABEL_KINDS
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.inference.predict import predict
from semi_nnunet.util.files import read_json, write_json
from tests.pseudo_labels.conftest import as_trained
from tests.pseudo_labels.labelling import read


def nnunet_predicts(folder: Path, images: Path, out: Path, channels: int) -> None:
    """nnUNetv2_predict on one thread, in this process."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), ("0",))
    reader = predictor.plans_manager.image_reader_writer_class()
    out.mkdir()
    names = sorted({path.name.rsplit("_", 1)[0] for path in images.glob("*.nii.gz")})
    for name in names:
        files = [str(images / f"{name}_{channel:04d}.nii.gz") for channel in range(channels)]
        image, properties = reader.read_images(files)
        predictor.predict_single_npy_array(image, properties, None, str(out / name), False)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    ("kind", "channels"), [(kind, 1) for kind in LABEL_KINDS] + [("labels", 2)]
)
def test_labels_are_nnunets(
    make_trainer, prepared_dataset, tmp_path, monkeypatch, kind, channels, configuration
):
    monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())
    dataset = prepared_dataset(kind, channels)
    trainer = make_trainer("SemiBaselineTrainer", configuration, dataset=dataset, start=False)
    trainer.initialize()
    name = f"SemiBaselineTrainer__nnUNetPlans__{configuration}"
    model = as_trained(trainer, tmp_path / dataset.raw.name / name, seed=3)
    plans = read_json(model.folder / "plans.json")  # another grid than the images'
    settings = plans["configurations"][configuration]
    settings["spacing"] = [
        size * factor for size, factor in zip(settings["spacing"], (1.2, 0.9, 1.3), strict=False)
    ]
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]
    write_json(model.folder / "plans.json", plans)
    images = tmp_path / "images"
    shutil.copytree(dataset.raw / "imagesTs", images)
    for path in images.glob("*.nii.gz"):  # a border that nnU-Net crops
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        array[:2], array[..., -3:] = 0, 0
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 1.1, 2.0))
        sitk.WriteImage(image, str(path))
    nnunet_predicts(model.folder, images, tmp_path / "nnunet", channels)
    files = predict(model.folder, images, tmp_path / "ours", speed="exact", device="cpu")
    assert files
    for file in files:
        expected = read(tmp_path / "nnunet" / file.name)
        assert len(np.unique(expected)) > 1
        assert np.array_equal(read(file), expected)
