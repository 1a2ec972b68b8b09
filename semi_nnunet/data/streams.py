"""The streams a trainer draws its batches from, made from nnU-Net's own loaders."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from semi_nnunet.data.loading import UnlabelledSampling, geometry_of
from semi_nnunet.data.unlabelled import UnlabelledDataset


def unlabelled_like(
    labelled: nnUNetDataLoader,
    dataset: UnlabelledDataset,
    batch_size: int,
    label_manager: Any,
    foreground_oversampling: float,
    interpolated: bool,
) -> UnlabelledSampling:
    """A loader of unlabelled cases like the one of the labelled cases.

    Args:
        labelled: nnU-Net's loader of the labelled training cases.
        dataset: the unlabelled cases.
        batch_size: patches of a batch.
        label_manager: nnU-Net's.
        foreground_oversampling: probability of a patch to lie where labelled cases have foreground.
        interpolated: rotate and scale as nnU-Net does the labelled patches; else crop inside the
            image and mirror alone, so that the teacher sees the image as it is.
    """
    # nnU-Net draws a larger patch where it rotates, most of it outside small images
    first = 1 if labelled.patch_size_was_2d else 0  # nnU-Net keeps a 2-D patch as a flat 3-D one
    return UnlabelledSampling(
        dataset,
        batch_size,
        (labelled.patch_size if interpolated else labelled.final_patch_size)[first:],
        labelled.final_patch_size[first:],
        label_manager,
        oversample_foreground_percent=foreground_oversampling if dataset.prior else 0.0,
        transforms=geometry_of(labelled.transforms, interpolated),
        probabilistic_oversampling=True,
    )


def cases_of_loader(loader: nnUNetDataLoader) -> nnUNetBaseDataset:
    """The data set that one of nnU-Net's loaders draws from, for which it has no public name."""
    return loader._data
