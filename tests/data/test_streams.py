"""The loader of unlabelled patches is like nnU-Net's loader of labelled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.loading.steps import (
    UnlabelledDataLoader,
    get_loader_dataset,
    make_unlabelled_loader,
)
from semi_nnunet.loading.unlabelled import UnlabelledDataset, compute_foreground_prior
from semi_nnunet.raw.layout import get_unlabelled_folder
from semi_nnunet.util.seeds import seeded


@pytest.fixture(params=["2d", "3d_fullres"])
def labelled(request: pytest.FixtureRequest, make_trainer: Callable[..., Any]) -> nnUNetDataLoader:
    """nnU-Net's own loader of a supervised training."""
    trainer = make_trainer("SemiBaselineTrainer", request.param)
    return trainer.dataloader_train.dataset.streams["labelled"]


def unlabelled(
    labelled: nnUNetDataLoader,
    prepared_dataset: Callable[..., Any],
    interpolated: bool = False,
    with_prior: bool = True,
) -> UnlabelledDataLoader:
    dataset, known = prepared_dataset("labels", 1), get_loader_dataset(labelled)
    folder = get_unlabelled_folder(dataset.preprocessed, "nnUNetPlans_3d_fullres")
    prior = compute_foreground_prior(known, known.identifiers) if with_prior else {}
    cases = UnlabelledDataset(folder, UnlabelledDataset.get_identifiers(str(folder)), prior)
    labels = PlansManager(dataset.plans).get_label_manager(dataset.dataset_json)
    return make_unlabelled_loader(labelled, cases, 3, labels, 0.4, interpolated)


def batch_of(loader: nnUNetDataLoader, seed: int = 1) -> dict[str, Any]:
    with seeded(seed):
        return dict(loader.generate_train_batch())


@pytest.mark.parametrize("interpolated", [False, True])
def test_unlabelled_patches_have_the_shape_of_labelled_ones(
    labelled: nnUNetDataLoader, prepared_dataset: Callable[..., Any], interpolated: bool
) -> None:
    ours = batch_of(unlabelled(labelled, prepared_dataset, interpolated))["data"]
    theirs = batch_of(labelled)["data"]
    assert ours.shape == (3, *theirs.shape[1:])


@pytest.mark.parametrize("interpolated", [False, True])
def test_without_interpolation_patches_hold_the_original_voxels(
    labelled: nnUNetDataLoader, prepared_dataset: Callable[..., Any], interpolated: bool
) -> None:
    loader = unlabelled(labelled, prepared_dataset, interpolated)
    folder, as_it_is = get_loader_dataset(loader).source_folder, []
    for seed in range(8):  # nnU-Net turns one patch in five, and scales as many
        batch = batch_of(loader, seed)
        for patch, inside, case in zip(
            *(batch[k] for k in ("data", "target", "keys")), strict=True
        ):
            seen = np.asarray(patch)[np.asarray(inside) == 0]
            image = blosc2.open(f"{folder}/{case}.b2nd")[:]
            as_it_is.append(bool(len(seen) and np.isin(seen, image).all()))
    assert all(as_it_is) != interpolated


def test_foreground_is_sampled_as_often_as_requested(
    labelled: nnUNetDataLoader, prepared_dataset: Callable[..., Any]
) -> None:
    loader = unlabelled(labelled, prepared_dataset)
    assert loader.oversample_foreground_percent == 0.4
    with seeded(2):
        often = np.mean([loader.get_do_oversample(0) for _ in range(2000)])
    assert often == pytest.approx(0.4, abs=0.05)  # of every patch, not of the last of a batch
    blind = unlabelled(labelled, prepared_dataset, with_prior=False)
    with seeded(2):
        assert not any(blind.get_do_oversample(place) for place in [0, 1, 2] * 100)


def test_the_data_set_of_a_loader_is_found(labelled: nnUNetDataLoader) -> None:
    cases = get_loader_dataset(labelled)
    assert {str(key) for key in batch_of(labelled)["keys"]} <= set(cases.identifiers)
    assert list(labelled.indices) == list(cases.identifiers)
