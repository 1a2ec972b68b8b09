"""Checks of the options of ``semi_nnunet plan``, before anything is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.planning.architecture import find_adapter
from semi_nnunet.util.errors import UserError

OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")  # in the folder of the plans


def require_plans_name(name: str) -> None:
    """Check the name of new plans, which is part of the names of files and result folders.

    Raises:
        UserError: the name is that of another file, or ambiguous in the name of a folder.
    """
    if name in OTHER_FILES or name.startswith("semi_"):
        raise UserError(
            f"--new-plans must not be {name!r}, as {name}.json is another file of the data set",
            fix="choose another name, such as nnUNetPlans_again",
        )
    if "__" in name or name.endswith("_") or set(name) & {"/", "\\"}:
        raise UserError(
            f"--new-plans must not contain '__' or path separators, nor end with '_', because "
            f"results are stored in folders TRAINER__PLANS__CONFIGURATION; got {name!r}",
            fix="choose another name, such as nnUNetPlans_again",
        )


def require_own_network(plans: dict[str, Any], name: str) -> None:
    """Check that plans have nnU-Net's networks, from whose features and strides the rules start.

    Raises:
        UserError: a configuration has another network.
    """
    for key, configuration in plans["configurations"].items():
        architecture = configuration.get("architecture", {})
        if network := find_adapter(architecture.get("network_class_name", "")):
            raise UserError(
                f"{key} of {name} already has the network {network}",
                fix="start from nnU-Net's plans (-p), and give --architecture together with "
                "--budget or --patch",
            )


def parse_encoder_weights(text: str) -> str | None:
    """Return "imagenet", the absolute path of a file, or None for "none".

    >>> parse_encoder_weights("imagenet")
    'imagenet'

    Raises:
        UserError: the file does not exist.
    """
    if text in ("none", "imagenet"):
        return None if text == "none" else text
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"--encoder-weights {path} does not exist",
            fix="correct the path, or use imagenet or none",
        )
    return str(path)


def parse_device(name: str) -> torch.device:
    """Return a device that exists.

    >>> parse_device("cpu")
    device(type='cpu')

    Raises:
        UserError: the device cannot be used.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used ({reason})", fix="--device cpu") from error


def list_preprocessed_configurations(plans: dict[str, Any], folder: Path) -> list[str]:
    """Return the configurations that are preprocessed in a folder."""
    manager = PlansManager(plans)
    return [
        name
        for name in plans["configurations"]
        if (folder / manager.get_configuration(name).data_identifier).is_dir()
    ]
