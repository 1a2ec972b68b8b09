"""Law l: within an epoch, no trainer waits for the GPU.

A step is run on PyTorch's ``meta`` device, which has shapes and no values: code that needs a value
on the host (``item``, ``cpu``, ``if tensor``, boolean indices) fails there. Two modes refuse the
rest: tensors made from Python values on the device, blocking copies, and operators whose CUDA
kernels read their own results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.util.seeds import seeded
from tests.data.same_patches import CASES, batch_of, nnunet_transforms
from tests.trainers import TRAINERS, WITHOUT_RAMP, each_of, partially_annotated

DEVICE = "meta"
aten = torch.ops.aten
SYNCHRONOUS = {aten.bincount, aten.histc, aten.nonzero, aten.masked_select, aten._unique2}
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


class Waited(AssertionError):
    """The program would have waited for its GPU."""


class NoCopies(TorchDispatchMode):
    """A mode that refuses operators for which a program waits for its GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in SYNCHRONOUS:
            raise Waited(f"{func} reads its result on the host")
        result = func(*args, **kwargs)
        if func.overloadpacket in (aten._to_copy, aten.copy_):
            source = args[0] if func.overloadpacket is aten._to_copy else args[1]
            if source.device != result.device and not kwargs.get("non_blocking"):
                raise Waited(f"a blocking copy from {source.device} to {result.device}")
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            if any(index is not None and index.device != args[0].device for index in args[1]):
                raise Waited("the index comes from the host")
            if any(index is not None and index.dtype == torch.bool for index in args[1]):
                raise Waited("the index is a mask, whose number of elements is unknown")
        return result


class NoValues(TorchFunctionMode):
    """A mode that refuses tensors made from Python values on the device: a blocking copy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FROM_VALUES and result.device.type == DEVICE and result is not args[0]:
            raise Waited(f"{func.__name__} of Python values on the device")
        return result


@pytest.mark.law("l")
@each_of([*TRAINERS, "SemiPretrainTrainer"])
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("configuration", "kind", "fold"), [("2d", "labels", "all"), ("3d_fullres", "regions", 0)]
)
def test_a_step_does_not_wait_for_the_device(
    name, configuration, kind, fold, partial, make_trainer, prepared_dataset
):
    dataset = prepared_dataset(kind, 1)
    dataset = partially_annotated(dataset, kind) if partial else dataset
    settings = {"steps_per_epoch": 3, **WITHOUT_RAMP}
    trainer = make_trainer(
        name, configuration, dataset=dataset, fold=fold, device=DEVICE, **settings
    )
    batches = [next(trainer.dataloader_train) for _ in range(3)]
    with NoValues(), NoCopies():
        for batch in batches:
            trainer.train_step(batch)


@pytest.mark.law("l")
@each_of([*TRAINERS, "SemiPretrainTrainer"])
@pytest.mark.parametrize(
    ("configuration", "kind"), [("2d", "regions_ignore"), ("3d_fullres", "labels")]
)
def test_augmentation_on_the_device_does_not_wait_for_it(name, configuration, kind, make_trainer):
    settings = {"augmentation": "device", "unlabelled_rotation_and_scaling": True, **WITHOUT_RAMP}
    trainer = make_trainer(name, configuration, kind, device=DEVICE, **settings)
    batches = [next(trainer.dataloader_train) for _ in range(2)]
    with NoValues(), NoCopies():
        for batch in batches:
            trainer.train_step(batch)


@pytest.mark.law("l")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_transform_of_nnunet_waits(case: dict[str, Any]) -> None:
    """The batch is so large that each transform changes some samples."""
    transforms = nnunet_transforms(
        case, noise=True, use_mask_for_norm=[True, False], regions=[(1, 2), 2], ignore_label=3
    )
    ours, (x, labels) = BatchedTransforms(transforms), batch_of(case, 64)
    with seeded(0):
        drawn = ours.draw(x)
    assert [number for number, *_ in drawn["steps"]] == list(range(len(ours.steps)))
    x, labels = (t.to(DEVICE, non_blocking=True) for t in (x, labels))
    with NoValues(), NoCopies():
        ours(x, labels, drawn)


@pytest.mark.law("l")
@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": [1.0, 2.0, 3.0, 1.0]},
        {"class_weights_from": "pseudo_labels", "unlabelled_gradient_limit": 0.5},
        {"optimizer": "adam", "supervised_loss": "dice_focal", "accumulate_batches": 2},
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_common_settings_do_not_wait(settings, partial, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset()) if partial else None
    settings = {**WITHOUT_RAMP, **settings}
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, device=DEVICE, **settings)
    batch = next(trainer.dataloader_train)
    with NoValues(), NoCopies():
        trainer.train_step(batch)


@pytest.mark.law("l")
@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: float(x[0]),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: (x > 0).nonzero(),
        lambda x: x.long().bincount(),
        lambda x: x.unique(),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_waiting_is_noticed(waits: Callable[[torch.Tensor], Any]) -> None:
    x = torch.ones(3, device=DEVICE)
    with pytest.raises((Waited, RuntimeError, NotImplementedError)), NoValues(), NoCopies():
        waits(x)


@pytest.mark.law("l")
def test_code_that_does_not_wait_passes() -> None:
    with NoValues(), NoCopies():
        x = torch.ones(3).to(DEVICE, non_blocking=True) * torch.tensor(2.0)
        x = torch.where(x > 0, x, torch.full((), 3.0, device=DEVICE))
        x = x[torch.arange(6, device=DEVICE) % 3] + torch.rand(6, device=DEVICE)
    assert x.shape == (6,)
