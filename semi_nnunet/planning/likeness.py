"""Plans shaped after a trained model, so that a training can start from its weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.networks.pretrained import (
    ENCODER,
    STEM,
    TensorFit,
    compare_weights,
    find_output_layers,
    require_finite,
    summarise_fits,
)
from semi_nnunet.planning.architecture import find_adapter
from semi_nnunet.planning.plan import list_own_configurations
from semi_nnunet.planning.topology import build_planned_network, replace_spacing
from semi_nnunet.util.errors import UserError, shorten_reason
from semi_nnunet.util.validation import fits

# of any image; nnU-Net chooses the others, such as CTNormalization, for the unit of a channel
GENERAL_SCHEMES = ("ZScoreNormalization", "RescaleTo01Normalization")
DEFAULTS = {3: "3d_fullres", 2: "2d"}  # number of axes -> configuration that is shaped
MIN_TAKEN = 0.95  # of the tensors of stem and encoder
INTENSITIES = "foreground_intensity_properties_per_channel"
CT = "CTNormalization"
OPTIONS = ("budget", "patch", "spacing", "architecture")  # of plan, which --like replaces


@dataclass(frozen=True)
class ModelShape:
    """What plans take from a trained model.

    Args:
        path: its checkpoint.
        content: of the checkpoint, with "network_weights".
        dataset: name of the data set that it was trained on.
        configuration: its name, such as "3d_fullres".
        patch_size: in voxels, in the order of its plans.
        spacing: mm along each axis; None: its images had different ones.
        normalization_schemes: of each channel.
        architecture: as in nnU-Net's plans.
        batch_size: in patches.
        intensities: channel -> statistics of the foreground, which CTNormalization needs.
    """

    path: Path
    content: Mapping[str, Any]
    dataset: str
    configuration: str
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...] | None
    normalization_schemes: tuple[str, ...]
    architecture: Mapping[str, Any]
    batch_size: int
    intensities: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_of_adapter(self) -> bool:
        """Whether the network is of another library, which has no deep supervision."""
        return find_adapter(self.architecture["network_class_name"]) is not None


def name_like_plans(plans: str, dataset: str) -> str:
    """Return the name of plans that are shaped after a model of a data set.

    >>> name_like_plans("nnUNetPlans", "Dataset501_LA2018")
    'nnUNetPlans_like501LA2018'
    """
    return f"{plans}_like{re.sub(r'[^A-Za-z0-9]+', '', dataset.removeprefix('Dataset'))}"


def require_no_other_shape(options: Mapping[str, Any]) -> None:
    """Check that no option is given that contradicts the shape of a model.

    Args:
        options: name -> value, of ``semi_nnunet plan``.

    Raises:
        UserError: there is one.
    """
    if given := [f"--{name}" for name in OPTIONS if options[name]]:
        raise UserError(
            f"--like takes spacing, patch and network from the model, so it excludes "
            f"{' and '.join(given)}",
            fix=f"leave out {' and '.join(given)}, or --like; the setting pretrained takes the "
            f"weights that fit plans of another shape",
        )


def choose_shaped_configuration(
    plans: Mapping[str, Any], shape: ModelShape, configurations: Sequence[str] | None
) -> str:
    """Return the configuration that is shaped: the given one, the model's, or nnU-Net's default.

    Raises:
        UserError: it has images of another dimension, or several are given.
    """
    by_name, axes = list_own_configurations(plans), len(shape.patch_size)
    if configurations and len(configurations) > 1:
        raise UserError(
            f"--like shapes one configuration, got -c {' '.join(configurations)}",
            fix=f"-c {DEFAULTS[axes]}",
        )
    matching = [key for key, value in by_name.items() if len(value["patch_size"]) == axes]
    wishes = [*(configurations or (shape.configuration, DEFAULTS[axes])), *matching]
    name = next((wish for wish in wishes if wish in matching), None)
    if name is None or (configurations and name not in configurations):
        names = f"-c {' '.join(configurations)} has" if configurations else "the plans have"
        raise UserError(
            f"{shape.path} is a network for {axes}-D images, and {names} no such configuration",
            fix=f"choose -c {' or '.join(matching)}"
            if matching
            else f"give a network for {5 - axes}-D images",
        )
    return name


def choose_schemes(theirs: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Return the normalisation of each channel: the model's, unless it depends on the unit.

    CTNormalization clips Hounsfield units, so it is only taken for channels that have it anyway.
    Of models with another number of channels a scheme is only taken if all channels have it.

    >>> choose_schemes(["ZScoreNormalization"], ["CTNormalization", "RescaleTo01Normalization"])
    ['ZScoreNormalization', 'ZScoreNormalization']
    >>> choose_schemes(["CTNormalization"], ["ZScoreNormalization"])
    ['ZScoreNormalization']
    """
    if len(theirs) != len(ours):
        if len({*theirs}) != 1:
            return list(ours)
        theirs = [theirs[0]] * len(ours)
    return [
        scheme if scheme in GENERAL_SCHEMES else current
        for scheme, current in zip(theirs, ours, strict=True)
    ]


def apply_shape(plans: Mapping[str, Any], shape: ModelShape, key: str, name: str) -> dict[str, Any]:
    """Return a copy of ``plans`` with one configuration, which has the shape of a model.

    The others would keep their networks, but share the intensities of CTNormalization.

    Args:
        plans: nnU-Net's plans.
        shape: of the model.
        key: of the configuration.
        name: of the new plans.
    """
    original = list_own_configurations(plans)[key]
    configuration = replace_spacing(original, shape.spacing or original["spacing"])
    configuration.pop("next_stage", None)
    configuration |= {
        "patch_size": list(shape.patch_size),
        "batch_size": shape.batch_size,
        "architecture": copy.deepcopy(dict(shape.architecture)),
        "normalization_schemes": choose_schemes(
            shape.normalization_schemes, original["normalization_schemes"]
        ),
    }
    intensities = copy.deepcopy(dict(plans[INTENSITIES]))
    for channel, scheme in enumerate(configuration["normalization_schemes"]):
        theirs = shape.intensities.get(str(channel if len(shape.intensities) > 1 else 0), {})
        ours = intensities.get(str(channel), {})
        if scheme == CT and fits(dict[str, float], theirs) and ours.keys() <= theirs.keys():
            intensities[str(channel)] = {statistic: theirs[statistic] for statistic in ours}
    changed = [
        value
        for value in ("spacing", "normalization_schemes")
        if configuration[value] != original[value]
    ]
    if changed or intensities != plans[INTENSITIES]:
        configuration["data_identifier"] = f"{name}_{key}"
    return {**plans, "configurations": {key: configuration}, INTENSITIES: intensities}


def fit_weights(
    plans: Mapping[str, Any], description: Mapping[str, Any], shape: ModelShape, key: str
) -> list[TensorFit]:
    """Compare the network of plans with the weights of the model after which they are shaped.

    The network is built without memory, on the meta device.

    Args:
        plans: of :func:`apply_shape`.
        description: content of dataset.json.
        shape: of the model.
        key: of the configuration.

    Raises:
        UserError: the network cannot be built, or lacks weights of the encoder.
    """
    manager = PlansManager(copy.deepcopy(dict(plans)))
    heads = manager.get_label_manager(dict(description)).num_segmentation_heads
    channels = determine_num_input_channels(manager, key, dict(description))
    configuration = manager.get_configuration(key).configuration

    def build(outputs: int) -> torch.nn.Module:
        return build_planned_network(configuration, channels, outputs, allow_init=False)

    try:
        with torch.device("meta"):
            network = build(heads)
        outputs = find_output_layers(build)
    except UserError:
        raise
    except Exception as error:  # of any network's library
        reason = shorten_reason(error)
        raise UserError(
            f"{shape.path} must describe a network that can be built ({reason})",
            fix="give another model",
        ) from error
    tensors = compare_weights(network, shape.content, outputs)
    require_encoder(tensors, shape.path)
    require_finite({fit.name: fit.value for fit in tensors if fit.value is not None})
    return tensors


def require_encoder(tensors: Sequence[TensorFit], path: Path) -> None:
    """Raise a UserError if a model provides less than :data:`MIN_TAKEN` of stem and encoder."""
    parts = [part for part in summarise_fits(tensors) if part.part in (STEM, ENCODER)]
    total, taken = (sum(getattr(part, name) for part in parts) for name in ("tensors", "taken"))
    if taken < MIN_TAKEN * total:
        reason = next(part.note for part in parts if part.taken < part.tensors)
        raise UserError(
            f"{path} has {taken} of {total} tensors of the encoder that it describes: {reason}",
            fix="give the checkpoint of a finished training whose trainer builds the network of "
            "its plans, or set pretrained to take only the weights that fit your plans",
        )
