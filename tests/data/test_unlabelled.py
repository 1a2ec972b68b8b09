"""Unlabelled images: where they are sampled, and that only the image is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.loading.steps import UnlabelledDataLoader
from semi_nnunet.loading.unlabelled import UnlabelledDataset, compute_foreground_prior
from semi_nnunet.raw.layout import get_unlabelled_folder
from semi_nnunet.util.seeds import seeded

KINDS = ("labels", "regions", "ignore", "regions_ignore")


def folders(dataset: Any) -> tuple[Path, Path]:
    labelled = dataset.preprocessed / "nnUNetPlans_3d_fullres"
    return labelled, get_unlabelled_folder(dataset.preprocessed, labelled.name)


def prior_of(dataset: Any) -> dict[Any, np.ndarray]:
    labelled = nnUNetDatasetBlosc2(str(folders(dataset)[0]))
    return compute_foreground_prior(labelled, labelled.identifiers, locations_per_class=200)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_lies_inside_the_image_without_the_ignore_label(
    kind: str, prepared_dataset: Callable[..., Any]
) -> None:
    prior = prior_of(prepared_dataset(kind, 1))
    assert prior
    for key, locations in prior.items():
        assert not (isinstance(key, tuple) and -1 in key)
        assert locations.shape[1] == 3 and 0 < len(locations) < 1000
        assert locations.min() >= 0 and locations.max() < 1


def test_a_case_is_its_image_and_nothing_else(prepared_dataset: Callable[..., Any]) -> None:
    dataset = prepared_dataset("labels", 3)
    folder = folders(dataset)[1]
    prior = prior_of(dataset)
    cases = UnlabelledDataset.get_identifiers(str(folder))
    assert len(cases) == 4
    for case in cases:
        data, seg, previous, properties = UnlabelledDataset(folder, cases, prior).load_case(case)
        np.testing.assert_array_equal(data[:], blosc2.open(str(folder / f"{case}.b2nd"))[:])
        assert seg.shape == (1, *data.shape[1:]) and not seg.any() and not seg.flags.writeable
        assert previous is None
        for key, locations in properties["class_locations"].items():
            assert len(locations) == len(prior[key])
            assert (locations >= 0).all() and (locations[:, 1:] < data.shape[1:]).all()
            assert (locations[:, 0] == 0).all()


def batch_of(dataset: Any, folder: Path, patch: tuple[int, ...]) -> dict[str, Any]:
    labels = PlansManager(dataset.plans).get_label_manager(dataset.dataset_json)
    cases = UnlabelledDataset(
        folder, UnlabelledDataset.get_identifiers(str(folder)), prior_of(dataset)
    )
    loader = UnlabelledDataLoader(cases, 4, patch, patch, labels, oversample_foreground_percent=0.5)
    with seeded(1):
        return dict(loader.generate_train_batch())


@pytest.mark.parametrize("kind", KINDS)
def test_nnunets_loader_pads_with_minus_one(
    kind: str, prepared_dataset: Callable[..., Any]
) -> None:
    dataset = prepared_dataset(kind, 1)
    batch = batch_of(dataset, folders(dataset)[1], (16, 40, 40))
    seg = np.asarray(batch["target"])
    assert set(np.unique(seg)) == {-1, 0}
    assert ((seg == 0).sum(axis=(1, 2, 3, 4)) == 12 * 32 * 32).all()  # the whole image, once


def test_garbage_named_like_a_label_changes_no_batch(
    prepared_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    dataset = prepared_dataset("labels", 1)
    copy = tmp_path / "copy"
    shutil.copytree(folders(dataset)[1], copy)
    clean = batch_of(dataset, copy, (8, 24, 24))
    for case in UnlabelledDataset.get_identifiers(str(copy)):
        blosc2.asarray(np.full((1, 12, 32, 32), 3), urlpath=str(copy / f"{case}_seg.b2nd"))
    assert len(UnlabelledDataset.get_identifiers(str(copy))) == 4
    dirty = batch_of(dataset, copy, (8, 24, 24))
    for key in ("data", "target"):
        np.testing.assert_array_equal(np.asarray(clean[key]), np.asarray(dirty[key]))
