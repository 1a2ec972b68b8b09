"""What is asked of ``semi_nnunet plan``, checked before anything is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.planning.architecture import adapter_of
from semi_nnunet.util.errors import UserError

OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")  # of nnU-Net, beside the plans


def require_plans_name(name: str) -> None:
    """Check the name of new plans, of which files and nnU-Net's folders of results get theirs.

    Raises:
        UserError: it could not be told from what stands around it, or is of another file.
    """
    if name in OTHER_FILES or name.startswith("semi_"):
        raise UserError(
            f"--name must not be {name!r}, as {name}.json is another file of the data set. ",
            fix="choose another, such as nnUNetPlans_again",
        )
    if "__" in name or name.endswith("_") or set(name) & {"/", "\\"}:
        raise UserError(
            f"--name must have no '__' and no '_' at its end, as results lie in folders "
            f"TRAINER__PLANS__CONFIGURATION, and no path separators; got {name!r}",
            fix="choose another, such as nnUNetPlans_again",
        )


def require_own_network(plans: dict[str, Any], name: str) -> None:
    """Check that plans have nnU-Net's networks, whose features and strides the rules start from.

    Raises:
        UserError: they have others.
    """
    for key, configuration in plans["configurations"].items():
        architecture = configuration.get("architecture", {})
        if network := adapter_of(architecture.get("network_class_name", "")):
            raise UserError(
                f"{key} of {name} has the network {network} already",
                fix="start from nnU-Net's "
                "plans (-p), and give --budget or --patch, and --architecture, together",
            )


def weights_of(text: str) -> str | None:
    """ "imagenet", a file from the root, or None.

    Raises:
        UserError: there is no such file.
    """
    if text in ("none", "imagenet"):
        return None if text == "none" else text
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"--weights {path} does not exist", fix="correct the path, or imagenet")
    return str(path)


def device_of(name: str) -> torch.device:
    """The device to measure on.

    Raises:
        UserError: there is none of that name.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used ({reason})", fix="--device cpu") from error


def ready_configurations(plans: dict[str, Any], folder: Path) -> list[str]:
    """Those that are preprocessed."""
    manager = PlansManager(plans)
    return [
        name
        for name in plans["configurations"]
        if (folder / manager.get_configuration(name).data_identifier).is_dir()
    ]
