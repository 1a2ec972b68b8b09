"""A batch is a function of seed, stream, step and rank."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.loading.steps import (
    StepDataset,
    StepLoader,
    UnlabelledDataLoader,
    compute_sampling_probabilities,
    make_reproducible,
    select_geometry,
)
from semi_nnunet.loading.unlabelled import UnlabelledDataset
from semi_nnunet.raw.layout import get_unlabelled_folder
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.signals import handled

PATCH = (8, 24, 24)


def nnunet_transforms(regions: Any = None, ignore: int | None = None, cascade: bool = False) -> Any:
    return nnUNetTrainer.get_training_transforms(
        PATCH,
        (-0.5, 0.5),
        [[1, 1, 1], [1, 0.5, 0.5]],
        (0, 1, 2),
        False,
        use_mask_for_norm=[False],
        is_cascaded=cascade,
        foreground_labels=[1, 2, 3],
        regions=regions,
        ignore_label=ignore,
    )


@pytest.fixture(scope="module")
def streams(prepared_dataset: Callable[..., Any]) -> dict[str, Any]:
    dataset = prepared_dataset("labels", 1)
    labels = PlansManager(dataset.plans).get_label_manager(dataset.dataset_json)
    folder = dataset.preprocessed / "nnUNetPlans_3d_fullres"
    other = get_unlabelled_folder(dataset.preprocessed, folder.name)
    transforms = make_reproducible(nnunet_transforms())
    options = {"oversample_foreground_percent": 0.33, "probabilistic_oversampling": True}
    initial = (12, 30, 30)
    unlabelled = UnlabelledDataset(other, UnlabelledDataset.get_identifiers(str(other)), {})
    return {
        "labelled": nnUNetDataLoader(
            nnUNetDatasetBlosc2(str(folder)),
            2,
            initial,
            PATCH,
            labels,
            transforms=transforms,
            **options,
        ),
        "unlabelled": UnlabelledDataLoader(
            unlabelled, 2, initial, PATCH, labels, transforms=select_geometry(transforms), **options
        ),
    }


def flat(value: Any) -> list[np.ndarray]:
    """Everything of a step, as a list that can be compared."""
    if isinstance(value, dict):
        return [array for key in sorted(value) for array in flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [array for item in value for array in flat(item)]
    return [np.asarray(value)]


def same(one: Any, other: Any) -> bool:
    pairs = zip(flat(one), flat(other), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def test_a_step_is_the_same_in_any_order_of_access(streams: dict[str, Any]) -> None:
    steps = StepDataset(streams, seed=1, rank=0)
    forwards = [steps[step] for step in range(3)]
    backwards = [steps[step] for step in (2, 1, 0)][::-1]
    assert same(forwards, backwards)


def test_workers_and_a_later_start_change_nothing(streams: dict[str, Any]) -> None:
    steps = StepDataset(streams, seed=1, rank=0)
    here = [steps[step] for step in range(4)]
    with_workers = StepLoader(steps, 0, 2, False)
    assert same(here, list(itertools.islice(with_workers, 4)))
    with_workers.close()
    assert same(here[2:], list(itertools.islice(StepLoader(steps, 2, 0, False), 2)))


@pytest.mark.parametrize("changed", [{"seed": 2}, {"rank": 1}])
def test_another_seed_or_rank_gives_other_batches(
    streams: dict[str, Any], changed: dict[str, int]
) -> None:
    known = {"seed": 1, "rank": 0}
    one, other = StepDataset(streams, **known)[0], StepDataset(streams, **{**known, **changed})[0]
    for stream in streams:
        assert not same(one[0][stream]["data"], other[0][stream]["data"])


def test_steps_accumulated_batches_and_streams_differ(streams: dict[str, Any]) -> None:
    twins = {"labelled": streams["labelled"], "twin": streams["labelled"]}
    first, second = StepDataset(twins, 1, 0, accumulate_batches=2)[0]
    following = StepDataset(twins, 1, 0)[1][0]
    images = [first["labelled"], first["twin"], second["labelled"], following["labelled"]]
    for one, other in itertools.combinations(images, 2):
        assert not same(one["data"], other["data"])


def test_a_stream_does_not_depend_on_the_others(streams: dict[str, Any]) -> None:
    alone = StepDataset({"unlabelled": streams["unlabelled"]}, 1, 0)[5]
    assert same(alone[0]["unlabelled"], StepDataset(streams, 1, 0)[5][0]["unlabelled"])


def test_the_global_generators_are_untouched(streams: dict[str, Any]) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    StepDataset(streams, 1, 0)[0]
    assert draw() == expected


def test_the_cases_of_a_step_are_listed_without_reading_them(streams: dict[str, Any]) -> None:
    steps = StepDataset(streams, seed=1, rank=0, accumulate_batches=2)
    for step in (0, 7):
        drawn = [key for part in steps[step] for name in streams for key in part[name]["keys"]]
        assert steps.cases_of(step) == drawn


def test_the_cases_of_a_killed_worker_are_those_of_its_batches(
    streams: dict[str, Any],
) -> None:
    steps = StepDataset(streams, seed=1, rank=0)
    loader = StepLoader(steps, 5, 2, False)
    next(loader)
    assert loader.list_cases_of_ended_workers() == []
    workers = list(loader._batches._workers)  # type: ignore[union-attr]
    killed = workers[1]
    # torch's handler raises wherever the main thread is when any child of the process ends
    with handled(["SIGCHLD"], lambda *_: None):
        try:
            os.kill(killed.pid, signal.SIGKILL)
            with pytest.raises(RuntimeError, match="DataLoader worker"):
                for _ in range(100):
                    next(loader)
            odd = loader._served if loader._served % 2 else loader._served + 1  # second worker
            expected = steps.cases_of(5 + odd) + steps.cases_of(5 + odd + 2)
            assert loader.list_cases_of_ended_workers() == list(dict.fromkeys(expected))
        finally:
            loader.close()
            for worker in workers:  # a later end would raise in another test
                worker.kill()
                worker.join()


def test_a_worker_that_breaks_its_connection_before_it_ends_is_named() -> None:
    class Batches:
        _workers = (multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,)),)

        def __next__(self) -> None:
            raise EOFError

    loader = StepLoader({}, 0, 1, False)  # type: ignore[arg-type]
    loader._batches = Batches()  # type: ignore[assignment]
    Batches._workers[0].start()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        next(loader)


def test_validation_repeats_after_its_period() -> None:
    class Numbers:
        def __getitem__(self, step: int) -> int:
            return step

    loader = StepLoader(Numbers(), 0, 0, False, period=3)  # type: ignore[arg-type]
    assert list(itertools.islice(loader, 7)) == [0, 1, 2, 0, 1, 2, 0]
    endless = StepLoader(Numbers(), 5, 0, False)  # type: ignore[arg-type]
    assert list(itertools.islice(endless, 3)) == [5, 6, 7]


def kinds(transforms: Any) -> list[type]:
    parts = transforms.transforms
    return [type(p.transform if isinstance(p, RandomTransform) else p) for p in parts]


def test_geometry_is_exactly_the_spatial_parts() -> None:
    every = nnunet_transforms(regions=[(1, 2), (2,)], ignore=4)
    assert {RemoveLabelTransform, DownsampleSegForDSTransform} <= set(kinds(every))
    assert kinds(select_geometry(every)) == [SpatialTransform, MirrorTransform]
    assert kinds(select_geometry(every, interpolated=False)) == [MirrorTransform]
    assert len(kinds(every)) > 8  # the original is as it was


def test_in_a_cascade_the_previous_stage_is_augmented_too() -> None:
    plain, cascade = (kinds(select_geometry(nnunet_transforms(cascade=flag))) for flag in (0, 1))
    assert len(cascade) > len(plain)
    assert {"MoveSegAsOneHotToDataTransform"} <= {kind.__name__ for kind in cascade}


def test_unlabelled_batches_mark_the_padding(
    streams: dict[str, Any],
) -> None:
    batch = StepDataset({"unlabelled": streams["unlabelled"]}, 1, 0)[0][0]["unlabelled"]
    assert batch["data"].shape == (2, 1, *PATCH)
    assert set(np.unique(batch["target"])) <= {-1, 0}
    assert all(isinstance(key, str) for key in batch["keys"])


# ---- probabilities of cases ----

CASES = ["a", "b", "p", "q", "r"]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_labelled_cases_get_their_share(share):
    probabilities = compute_sampling_probabilities(CASES, {"p", "q", "r", "not trained on"}, share)
    assert probabilities is not None
    np.testing.assert_allclose(probabilities, [share / 2] * 2 + [(1 - share) / 3] * 3)
    assert np.isclose(probabilities.sum(), 1)


def test_without_a_share_all_cases_are_equally_likely():
    assert compute_sampling_probabilities(CASES, {"p"}, None) is None


@pytest.mark.parametrize("pseudo, which", [(set(), "none"), (set(CASES), "all")])
def test_a_share_with_one_kind_of_cases_is_refused(pseudo, which):
    with pytest.raises(UserError, match=f"{which} of the 5 training cases"):
        compute_sampling_probabilities(CASES, pseudo, 0.5)
