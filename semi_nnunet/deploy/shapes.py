"""Read the shape of a trained model: a model folder, or a checkpoint of nnU-Net or nnssl.

A checkpoint of nnU-Net holds its plans in ``init_args``. One of nnssl holds under
``nnssl_adaptation_plan`` what nnU-Net's own fine-tuning needs: ``nnUNetv2_preprocess_like_nnssl``
and ``nnUNetv2_train_pretrained``, which came after nnU-Net 2.8.1 (in MIC-DKFZ/nnUNet:
documentation/finetuning_from_nnssl_checkpoints.md; in MIC-DKFZ/nnssl:
src/nnssl/adaptation_planning/adaptation_plan.py). As there, the patch is the recommended one, the
spacing that of the pre-training, the batch has two patches, and images get zero mean and unit
variance if the file names no normalisation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.deploy.descriptions import (
    find_plans_problems,
    find_size_problems,
    find_unknown_networks,
)
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.networks.pretrained import ADAPTATION_KEY
from semi_nnunet.planning.architecture import PRIMUS, replace_architecture
from semi_nnunet.planning.likeness import DEFAULTS, INTENSITIES, ModelShape
from semi_nnunet.raw.layout import PLANS_JSON
from semi_nnunet.training.checkpoints import read_of_any_trainer, to_plain_values
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.validation import fits

FIX = "give another model"
UNETS = ("PlainConvUNet", "ResidualEncoderUNet")
RES_ENC_L = {  # nnssl's preset, whose arguments its files do not hold
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "conv_op": "torch.nn.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 5],
    "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
    "n_conv_per_stage_decoder": [1] * 5,
    "conv_bias": True,
    "norm_op": "torch.nn.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
IMPORTED = ["conv_op", "norm_op", "nonlin"]  # of these arguments


def read_model_shape(text: str) -> ModelShape:
    """Read what plans take from a trained model.

    Args:
        text: path of a checkpoint, or a model as :func:`~semi_nnunet.deploy.trained.find_model`
            accepts it; of several folds, the first.

    Raises:
        UserError: there is no such model; a file is damaged, could execute code, or describes no
            network; the model is the second stage of a cascade.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        model = find_model(text)
        path = model.checkpoints[model.folds[0]]
        plans_file = str(model.folder / PLANS_JSON)
        return shape_of_plans(
            model.plans, model.configuration, path, read_of_any_trainer(path), plans_file
        )
    content, path = read_of_any_trainer(path), path.absolute()
    arguments = content.get("init_args", {})
    plans = to_plain_values(arguments.get("plans"))
    if fits(dict[str, Any], plans) and "configurations" in plans:
        return shape_of_plans(plans, arguments.get("configuration"), path, content, str(path))
    if ADAPTATION_KEY in content:
        return shape_of_nnssl(to_plain_values(content[ADAPTATION_KEY]), path, content)
    raise UserError(
        f"{path} must describe its network, by the plans of nnU-Net or the {ADAPTATION_KEY} of "
        f"nnssl, got neither",
        fix="give the folder TRAINER__PLANS__CONFIGURATION of the model, or set pretrained for "
        "plans of the same network",
    )


def shape_of_plans(
    plans: Mapping[str, Any],
    configuration: Any,
    path: Path,
    content: Mapping[str, Any],
    plans_file: str,
) -> ModelShape:
    """Return the shape of a model of nnU-Net's plans, after all checks.

    Args:
        plans: untrusted content; plans of nnU-Net before 2.3 have other keys for networks.
        configuration: of the model.
        path, content: of its checkpoint.
        plans_file: in errors.

    Raises:
        UserError: the plans lack something, or name code outside the trusted packages.
    """
    if not isinstance(configuration, str) or configuration not in plans["configurations"]:
        raise UserError(
            f"{plans_file} must have the configuration of the checkpoint, got none named "
            f"{configuration!r:.80}",
            fix=FIX,
        )
    problems = [*find_unknown_networks(plans, plans_file)]
    problems += find_plans_problems(plans, configuration, plans_file)
    raise_if_any("This model is not opened:", problems)
    try:
        manager = PlansManager(copy.deepcopy(dict(plans))).get_configuration(configuration)
        if manager.previous_stage_name is not None:
            raise UserError(
                f"{path} is the second stage of a cascade, whose input contains predictions",
                fix="give the first stage, or a model of 3d_fullres",
            )
        shape = ModelShape(
            path=path,
            content=content,
            dataset=str(plans.get("dataset_name", "")),
            configuration=configuration,
            patch_size=tuple(manager.patch_size),
            spacing=tuple(manager.spacing),
            normalization_schemes=tuple(manager.normalization_schemes),
            architecture=drop_encoder_weights(manager.configuration["architecture"]),
            batch_size=manager.batch_size,
            intensities=plans.get(INTENSITIES) or {},
        )
        arguments = shape.architecture["arch_kwargs"]
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{plans_file} must describe {configuration} as nnU-Net's plans do "
            f"({type(error).__name__}: {error!s:.80})",
            fix=FIX,
        ) from error
    weights = content["network_weights"]
    raise_if_any("This model is not opened:", find_size_problems(arguments, weights, plans_file))
    return shape


def drop_encoder_weights(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture without initial weights of the encoder, which the model replaces."""
    arguments = architecture["arch_kwargs"]
    known = {"weights": None} if "weights" in arguments else {}
    return {**architecture, "arch_kwargs": {**arguments, **known}}


def shape_of_nnssl(description: Any, path: Path, content: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a checkpoint of nnssl, after all checks.

    Args:
        description: untrusted, of :data:`ADAPTATION_KEY`.
        path, content: of the checkpoint.

    Raises:
        UserError: the description lacks something, or names an unknown network.
    """
    try:
        pretraining = description["pretrain_plan"]
        (used, *_) = pretraining["configurations"].values()
        patch = list(description["recommended_downstream_patchsize"])
        architecture = build_nnssl_architecture(description["architecture_plans"], patch)
        configuration = {
            "patch_size": patch,
            "spacing": used.get("spacing"),
            "normalization_schemes": used.get("normalization_schemes") or ["ZScoreNormalization"],
            "architecture": architecture,
            "batch_size": 2,
        }
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error.what}", fix=error.fix) from error
        raise UserError(
            f"the {ADAPTATION_KEY} of {path} must have the keys that nnssl writes "
            f"({type(error).__name__}: {error!s:.80})",
            fix=FIX,
        ) from error
    spacing = configuration["spacing"]
    if spacing is None:  # images of different spacing
        configuration["spacing"] = [1.0] * len(patch)
    name = DEFAULTS.get(len(patch), "")
    plans = {"dataset_name": pretraining.get("dataset_name", "nnssl")}
    plans |= {"configurations": {name: configuration}}
    shape = shape_of_plans(plans, name, path, content, str(path))
    return shape if spacing else replace(shape, spacing=None)


def build_nnssl_architecture(plans: Mapping[str, Any], patch: list[int]) -> dict[str, Any]:
    """Return an architecture of nnssl as nnU-Net's plans spell it.

    Args:
        plans: nnssl's "architecture_plans".
        patch: edges in voxels.

    Raises:
        UserError: no network here has this name.
    """
    name, arguments = plans["arch_class_name"], plans.get("arch_kwargs")
    imported = plans.get("arch_kwargs_requiring_import")
    if name == "ResEncL":
        name, arguments, imported = "ResidualEncoderUNet", copy.deepcopy(RES_ENC_L), IMPORTED
    if name in UNETS and arguments:
        return {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": dict(arguments),
            "_kw_requires_import": list(imported or IMPORTED),
        }
    primus = {f"Primus{size}": f"primus.{size}" for size in PRIMUS}
    if name in primus and fits(tuple[int, int, int], patch):
        replaced = replace_architecture({"patch_size": patch}, primus[name], "", None)
        return dict(replaced["architecture"]) if replaced else {}
    raise UserError(
        f"its network must be one of {', '.join((*UNETS, 'ResEncL', *primus))}, got {name!r:.80}",
        fix=FIX,
    )
