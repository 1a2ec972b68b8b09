"""Trained models in memory: their networks, and nnU-Net's own predictor of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from semi_nnunet.data.layout import STOCK_TRAINER
from semi_nnunet.deploy.descriptions import require_known_networks
from semi_nnunet.deploy.fitting import told_configuration, unfit
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.networks.frozen import unwrapped
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import UserError, raise_if_any

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in memory, on the CPU, by the names of nnU-Net's predictor.

    Args:
        network: with the weights of the first fold, without deep supervision.
        list_of_parameters: the weights of each fold.
        plans_manager, configuration_manager, label_manager: nnU-Net's.
        dataset_json: content of the file.
        trainer_name: class name.
        allowed_mirroring_axes: spatial axes along which images may be mirrored, None: none.
    """

    network: nn.Module
    list_of_parameters: list[dict[str, torch.Tensor]]
    plans_manager: PlansManager
    configuration_manager: Any
    label_manager: Any
    dataset_json: dict[str, Any]
    trainer_name: str
    allowed_mirroring_axes: tuple[int, ...] | None


def load_parts(model: TrainedModel) -> LoadedModel:
    """Read a model without executing anything of it.

    Nothing is imported that only trainings need, so that a program that predicts starts soon.

    Raises:
        UserError: a checkpoint is damaged or holds more than tensors and plain values, or the
            weights of another network; the plans name code that is no network, or the trainer is
            not found.
    """
    require_known_networks(model.plans, str(model.folder / "plans.json"))
    contents = [checkpoints.read_of_any_trainer(path) for path in model.checkpoints.values()]
    plans, first = PlansManager(model.plans), contents[0]
    configuration = plans.get_configuration(told_configuration(first, model.plans, str(model)))
    labels = plans.get_label_manager(model.dataset_json)
    channels = determine_num_input_channels(plans, configuration, model.dataset_json)
    network = built_network(first, plans, configuration, channels, labels.num_segmentation_heads)
    weights = [content["network_weights"] for content in contents]
    raise_if_any(f"{model} cannot be read:", unfit(model.checkpoints.values(), weights, network))
    network.load_state_dict(weights[0])
    axes = first.get("inference_allowed_mirroring_axes")
    return LoadedModel(
        network, weights, plans, configuration, labels, model.dataset_json, first["trainer_name"],
        None if axes is None else tuple(axes),
    )  # fmt: skip


def load(model: TrainedModel, mirror: bool, device: torch.device) -> nnUNetPredictor:
    """nnU-Net's predictor of a model, whose checkpoints are read without executing anything.

    Raises:
        UserError: as :func:`load_parts`.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    parts = load_parts(model)
    predictor = nnUNetPredictor(use_mirroring=mirror, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        parts.network, parts.plans_manager, parts.configuration_manager, parts.list_of_parameters,
        parts.dataset_json, parts.trainer_name, parts.allowed_mirroring_axes,
    )  # fmt: skip
    return predictor


def built_network(
    checkpoint: Mapping[str, Any],
    plans: PlansManager,
    configuration: Any,
    channels: int,
    heads: int,
) -> nn.Module:
    """The network that a checkpoint's weights are of, with other weights.

    Args:
        checkpoint: of a fold.
        plans, configuration: nnU-Net's managers.
        channels: of its input.
        heads: channels of its output.

    Raises:
        UserError: nnU-Net does not find the trainer.
    """
    if checkpoint["trainer_name"] == STOCK_TRAINER:  # as it does, but without its import
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels, heads, allow_init=True, deep_supervision=False,
        )  # fmt: skip
    else:
        network = trainer_of(checkpoint).build_network_architecture(
            plans, configuration, channels, heads, enable_deep_supervision=False
        )
    return cast(nn.Module, network)


def trainer_of(checkpoint: Mapping[str, Any]) -> type[nnUNetTrainer]:
    """The class whose way of building networks a checkpoint's weights need.

    Raises:
        UserError: nnU-Net does not find it.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        found = recursive_find_trainer_class_by_name(checkpoint["trainer_name"])
    except RuntimeError as error:
        if "semi" in checkpoint:  # one of ours: they build their networks as nnU-Net's trainer does
            return nnUNetTrainer
        raise UserError(
            f"the model was trained by {checkpoint['trainer_name']}, which nnU-Net does not find. ",
            fix="name the folder of that trainer in nnUNet_extTrainer",
        ) from error
    return cast(type[nnUNetTrainer], found)


def load_networks(models: Sequence[TrainedModel]) -> list[nn.Module]:
    """The networks of all folds of all models, on the CPU, without deep supervision."""
    networks = []
    for model in models:
        predictor = load(model, mirror=False, device=torch.device("cpu"))
        bare = unwrapped(predictor.network)
        for weights in predictor.list_of_parameters:
            network = copy.deepcopy(bare)
            network.load_state_dict(weights)
            networks.append(network)
    return networks
