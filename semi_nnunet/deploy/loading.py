"""Load the networks of trained models without executing code from their files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from semi_nnunet.deploy.descriptions import find_size_problems, find_unknown_networks
from semi_nnunet.deploy.trained import TrainedModel, select_class_channels
from semi_nnunet.networks.frozen import SelectedClasses, unwrap_compiled
from semi_nnunet.raw.layout import PLANS_JSON, STOCK_TRAINER
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError, raise_if_any, shorten_reason
from semi_nnunet.util.failures import is_of_machine, is_of_memory

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

FIX = "give plans and checkpoint of one training"


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in memory, on the CPU; attributes as in nnU-Net's predictor.

    Args:
        network: with the weights of the first fold, without deep supervision.
        list_of_parameters: the weights of every fold, and of all networks that a fold averages.
        plans_manager, configuration_manager, label_manager: nnU-Net's.
        dataset_json: content of the file.
        trainer_name: class name.
        allowed_mirroring_axes: spatial axes along which images may be mirrored, or None.
    """

    network: nn.Module
    list_of_parameters: list[dict[str, torch.Tensor]]
    plans_manager: PlansManager
    configuration_manager: Any
    label_manager: Any
    dataset_json: dict[str, Any]
    trainer_name: str
    allowed_mirroring_axes: tuple[int, ...] | None


def load_model(model: TrainedModel) -> LoadedModel:
    """Load a model without executing code from its files.

    Modules that only trainings need are not imported, so that predictions start fast.

    Raises:
        UserError: a checkpoint is damaged, holds more than tensors and plain values, or the weights
            of another network; the plans name untrusted code; or the trainer is not found.
    """
    unknown = find_unknown_networks(model.plans, str(model.folder / PLANS_JSON))
    raise_if_any("This model is not opened:", unknown)
    contents = [checkpoints.read_of_any_trainer(path) for path in model.checkpoints.values()]
    plans, first = PlansManager(model.plans), contents[0]
    configuration = plans.get_configuration(read_configuration_name(first, model.plans, str(model)))
    arguments, file_name = configuration.network_arch_init_kwargs, str(model.folder / PLANS_JSON)
    too_large = find_size_problems(arguments, first["network_weights"], file_name)
    raise_if_any(f"{model} cannot be read:", too_large)
    try:
        labels = plans.get_label_manager(model.dataset_json)
        channels = determine_num_input_channels(plans, configuration, model.dataset_json)
        heads = labels.num_segmentation_heads
        network = build_empty_network(first, plans, configuration, channels, heads)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        raise build_impossible_error(file_name, error) from error
    except (RuntimeError, ValueError) as error:
        if isinstance(error, UserError) or is_of_machine(error) or is_of_memory(error):
            raise
        raise build_impossible_error(file_name, error) from error
    networks = [
        (path, network_weights)
        for path, content in zip(model.checkpoints.values(), contents, strict=True)
        for network_weights in (
            content["network_weights"], *content.get("semi", {}).get("averaged_with", [])
        )
    ]  # fmt: skip
    paths, all_weights = zip(*networks, strict=True)
    unfit = find_unfit_checkpoints(paths, all_weights, network)
    raise_if_any(f"{model} cannot be read:", unfit)
    network.load_state_dict(all_weights[0])
    axes = first.get("inference_allowed_mirroring_axes")
    return LoadedModel(
        network, list(all_weights), plans, configuration, labels, model.dataset_json,
        first["trainer_name"], None if axes is None else tuple(axes),
    )  # fmt: skip


def build_impossible_error(file_name: str, error: Exception) -> UserError:
    """Return the error for plans whose network cannot be built, for any of torch's reasons."""
    reason = shorten_reason(error)
    return UserError(f"{file_name} must describe a network that can be built ({reason})", fix=FIX)


def load_networks(
    models: Sequence[TrainedModel], description: Mapping[str, Any] | None = None
) -> list[nn.Module]:
    """Load the networks of all folds of all models, on the CPU, without deep supervision.

    Args:
        models: to load.
        description: content of the dataset.json whose classes the networks shall predict; None:
            their own.
    """
    networks = list[nn.Module]()
    for model in models:
        loaded = load_model(model)
        channels = description and select_class_channels(model.dataset_json, description)
        for weights in loaded.list_of_parameters:
            network = copy.deepcopy(unwrap_compiled(loaded.network))
            network.load_state_dict(weights)
            is_same = channels in (None, tuple(range(loaded.label_manager.num_segmentation_heads)))
            networks.append(network if is_same else SelectedClasses(network, channels or ()))
    return networks


def read_configuration_name(
    checkpoint: Mapping[str, Any], plans: Mapping[str, Any], model: str
) -> str:
    """Return the configuration that a checkpoint was trained with.

    Args:
        checkpoint: of a fold.
        plans: of the model.
        model: its name in errors.

    Raises:
        UserError: the checkpoint lacks its configuration or trainer, or the plans lack the
            configuration.
    """
    name = checkpoint.get("init_args", {}).get("configuration")
    if not isinstance(name, str) or name not in plans["configurations"]:
        message = f"must have the configuration of its checkpoint, got none named {name!r:.80}"
        raise UserError(f"the plans of {model} {message}", fix=FIX)
    if not str(trainer := checkpoint.get("trainer_name")).isidentifier() or trainer is None:
        rule = f"must have the name of its trainer, got {trainer!r:.80}"
        raise UserError(f"a checkpoint of {model} {rule}", fix="give another model")
    return name


def find_unfit_checkpoints(
    paths: Iterable[Path], weights: Iterable[Mapping[str, torch.Tensor]], network: nn.Module
) -> Iterator[Problem]:
    """Yield a problem for every checkpoint with weights of another network.

    >>> network = nn.Linear(3, 2)
    >>> list(find_unfit_checkpoints([Path("a.pth")], [network.state_dict()], network))
    []

    Args:
        paths: checkpoints of the folds.
        weights: of each.
        network: that the plans describe.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for path, state in zip(paths, weights, strict=True):
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        if differing := sorted(k for k in shapes | expected if shapes.get(k) != expected.get(k)):
            key = differing[0]
            message = "must hold the weights of the network that plans.json describes, got "
            message += f"{key!r:.120} of shape {shapes.get(key)}, not {expected.get(key)}"
            yield Problem(str(path), message, FIX)


def build_empty_network(
    checkpoint: Mapping[str, Any],
    plans: PlansManager,
    configuration: Any,
    channels: int,
    heads: int,
) -> nn.Module:
    """Build the network of a checkpoint with random weights.

    Args:
        checkpoint: of a fold.
        plans, configuration: nnU-Net's managers.
        channels: of its input.
        heads: channels of its output.

    Raises:
        UserError: nnU-Net does not find the trainer.
    """
    if checkpoint["trainer_name"] == STOCK_TRAINER:  # as the trainer does, without importing it
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels, heads, allow_init=True, deep_supervision=False,
        )  # fmt: skip
    else:
        network = find_checkpoint_trainer(checkpoint).build_network_architecture(
            plans, configuration, channels, heads, enable_deep_supervision=False
        )
    return cast(nn.Module, network)


def find_checkpoint_trainer(checkpoint: Mapping[str, Any]) -> type[nnUNetTrainer]:
    """Return the trainer class that builds the network of a checkpoint.

    Raises:
        UserError: nnU-Net does not find it.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        trainer = recursive_find_trainer_class_by_name(checkpoint["trainer_name"])
    except RuntimeError as error:
        if "semi" in checkpoint:  # our trainers build their networks as nnU-Net's trainer does
            return nnUNetTrainer
        raise UserError(
            f"the model was trained by {checkpoint['trainer_name']}, which nnU-Net does not find",
            fix="name the folder of that trainer in nnUNet_extTrainer",
        ) from error
    return cast(type[nnUNetTrainer], trainer)
