"""Compare what 2-D models predict in labelled patches and in the same patches with a box.

    python scripts/boxes_in_patches.py 42/SemiBaselineTrainer__P__2d 42/SemiUnifiedTrainer__P__2d

A box of a third of the edge shows another labelled patch, as boxes of unlabelled patches do in a
training. For each class, the first line of a model has the Dice and the predicted size relative to
the true one in whole patches, the second line those outside the boxes. A network that has learned
from patches with boxes only is right there, and makes classes too large in whole images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from semi_nnunet.augment.mixing import sample_boxes
from semi_nnunet.deploy.loading import LoadedModel, load_model
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.settings.methods import UnifiedSettings

LEAST_FOREGROUND = 50  # pixels of a patch
SHIFT = 0.2  # of the foreground from the middle of a patch, relative to its edge


def read_patches(model: LoadedModel, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches around the foreground of all labelled slices.

    Returns:
        Images (N, C, Y, X), float32, and their labels (N, Y, X), int64.
    """
    configuration = model.configuration_manager
    folder = Path(nnUNet_preprocessed.require(), model.plans_manager.dataset_name)
    dataset = nnUNetDatasetBlosc2(str(folder / configuration.data_identifier))
    edges = np.array(configuration.patch_size)
    images, labels = [], []
    for case in dataset.identifiers:
        data, segmentation, _, _ = dataset.load_case(case)
        data, segmentation = np.asarray(data[:]), np.asarray(segmentation[0])
        for number, slice_ in enumerate(segmentation):
            where = np.argwhere(slice_ > 0)
            if len(where) < LEAST_FOREGROUND or np.any(slice_.shape < edges):
                continue
            middle = where.mean(0) + rng.uniform(-SHIFT, SHIFT, 2) * edges
            start = np.clip(middle - edges / 2, 0, slice_.shape - edges).astype(int)
            y, x = (slice(first, first + edge) for first, edge in zip(start, edges, strict=True))
            images.append(data[:, number, y, x])
            labels.append(slice_[y, x])
    images_of_all = torch.from_numpy(np.stack(images)).float()
    return images_of_all, torch.from_numpy(np.stack(labels)).long()


@torch.inference_mode()
def predict(model: LoadedModel, images: torch.Tensor) -> torch.Tensor:
    """Return the class of each pixel, from the first fold."""
    model.network.load_state_dict(model.list_of_parameters[0])
    model.network.eval()
    return torch.cat([model.network(batch).argmax(1) for batch in images.split(16)])


def describe(prediction: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> str:
    """Return the Dice and the relative size of each class in the counted pixels."""
    rows = []
    for value in range(1, int(labels.max()) + 1):
        ours, true = (prediction == value) & counted, (labels == value) & counted
        dice = 2 * (ours & true).sum() / (ours.sum() + true.sum())
        rows.append(f"{value}: Dice {dice:.3f}, size {ours.sum() / true.sum():.2f}")
    return "; ".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="folders of trained 2-D models")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.models:
        torch.manual_seed(args.seed)
        model = load_model(find_model(name))
        images, labels = read_patches(model, np.random.default_rng(args.seed))
        box = sample_boxes(len(images), images.shape[2:], UnifiedSettings.box_edge, images.device)
        mixed = torch.where(box, images[torch.randperm(len(images))], images)
        everywhere, outside = torch.ones_like(box[:, 0]), ~box[:, 0]
        print(f"{name}, {len(images)} patches")
        print(f"  whole patches:  {describe(predict(model, images), labels, everywhere)}")
        print(f"  outside boxes:  {describe(predict(model, mixed), labels, outside)}")


if __name__ == "__main__":
    main()
