"""Predict preprocessed cases: for a cascade's next stage, and to filter unlabelled ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from torch import distributed as dist
from torch import nn
from tqdm import tqdm

from semi_nnunet.data.unlabelled import UnlabelledDataset
from semi_nnunet.networks.average import deep_supervision_switches

T = TypeVar("T")


def predict_pool(
    trainer: Any,
    networks: Mapping[str, nn.Module],
    folder: Path,
    cases: Sequence[str],
    title: str,
    mirror: bool,
) -> Iterator[tuple[str, dict[str, torch.Tensor], dict[str, Any]]]:
    """Predict this process's share of ``cases`` by nnU-Net's sliding window.

    Args:
        trainer: whose configuration it is.
        networks: by name; they are in evaluation mode and without deep supervision meanwhile.
        folder: with cases preprocessed for this configuration, labelled or not.
        cases: of the folder.
        title: of the progress bar.
        mirror: whether to average over mirrored images, as nnU-Net does.

    Yields:
        case, logits (C, *spatial) of each network on the CPU, and nnU-Net's properties.
    """
    predictors = {name: predictor_of(trainer, net, mirror) for name, net in networks.items()}
    previous_stage = trainer.folder_with_segs_from_previous_stage
    dataset = UnlabelledDataset(folder, cases, {}, previous_stage)
    ranks = dist.get_world_size() if trainer.is_ddp else 1
    with ExitStack() as stack:
        for network in networks.values():
            stack.enter_context(ready_to_predict(network))
        for case in tqdm(list(cases)[trainer.local_rank :: ranks], desc=title, disable=None):
            image, _, previous, properties = dataset.load_case(case)
            x = torch.from_numpy(with_previous_stage(image[:], previous, trainer.label_manager))
            logits = {
                name: predictor.predict_sliding_window_return_logits(x).cpu()
                for name, predictor in predictors.items()
            }
            yield case, logits, properties


def of_all_ranks(trainer: Any, found: dict[str, T]) -> dict[str, T]:
    """Case -> what each process of a DDP training found of its share, together."""
    if not trainer.is_ddp:
        return found
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, found)
    return {case: one for part in parts for case, one in part.items()}


def predictor_of(trainer: Any, network: nn.Module, mirror: bool) -> nnUNetPredictor:
    """nnU-Net's predictor with a network of the trainer's plan."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        network, trainer.plans_manager, trainer.configuration_manager, None,
        trainer.dataset_json, type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    return predictor


def with_previous_stage(image: np.ndarray, previous: Any, label_manager: Any) -> np.ndarray:
    """The input channels: the image and, in a cascade, the previous stage's labels one-hot."""
    if previous is None:
        return image
    onehot = convert_labelmap_to_one_hot(
        previous[:], label_manager.foreground_labels, output_dtype=image.dtype
    )
    return np.vstack((image, onehot))


@contextmanager
def ready_to_predict(network: nn.Module) -> Iterator[None]:
    """Inside the block, in evaluation mode and with one output."""
    training, switches = network.training, deep_supervision_switches(network)
    before = [switch.deep_supervision for switch in switches]
    network.eval()
    for switch in switches:
        switch.deep_supervision = False
    try:
        yield
    finally:
        network.train(training)
        for switch, enabled in zip(switches, before, strict=True):
            switch.deep_supervision = enabled
