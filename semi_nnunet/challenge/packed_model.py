"""Reduce a trained model to the files of a prediction: weights, plans and labels.

The names of training cases, the history, the optimizer, settings and folders of the training
machine are left out. nnU-Net's own predictor can still read the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.deploy.install import install_models
from semi_nnunet.deploy.loading import find_checkpoint_trainer, load_model
from semi_nnunet.deploy.mirrors import load_mirror_choice
from semi_nnunet.deploy.trained import (
    TrainedModel,
    find_model,
    find_models,
    select_folds,
)
from semi_nnunet.raw.description import get_channel_names
from semi_nnunet.raw.layout import DATASET_JSON, FINAL_CHECKPOINT, PLANS_JSON, STOCK_TRAINER
from semi_nnunet.raw.pieces import ONE_PIECE_KEY
from semi_nnunet.training import checkpoints
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file, write_json

PLANS_KEYS = (
    "dataset_name", "plans_name", "image_reader_writer", "transpose_forward", "transpose_backward",
    "configurations", "experiment_planner_used", "label_manager",
    "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality",
    "original_median_spacing_after_transp", "original_median_shape_after_transp",
)  # fmt: skip
DATASET_KEYS = (
    "channel_names", "labels", "regions_class_order", "file_ending", "licence",
    "overwrite_image_reader_writer", "license", "reference", "name", ONE_PIECE_KEY,
)  # fmt: skip
CHECKPOINT_KEYS = ("inference_allowed_mirroring_axes", "current_epoch")


@dataclass(frozen=True)
class PackedModel:
    """A reduced model on disk.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION.
        dataset: name of its data set.
        trained_by: class name of the trainer that trained it.
        checksums: fold -> SHA-256 of the original checkpoint.
        epochs: of the first fold.
        description: content of its dataset.json.
    """

    folder: Path
    dataset: str
    trained_by: str
    checksums: dict[str, str]
    epochs: int
    description: dict[str, Any]


@contextmanager
def open_model(model: str | Path, folds: Sequence[str] | None) -> Iterator[TrainedModel]:
    """Inside the block, provide a model from a folder, or from a zip unpacked and checked aside.

    Args:
        model: as in :func:`semi_nnunet.deploy.trained.find_model`, or a zip of semi_nnunet export.
        folds: numbers or "all"; None: all that the model has.

    Raises:
        UserError: the model is missing, damaged, could execute code, or lacks a fold.
    """
    path = Path(model).expanduser()
    if not (path.is_file() and path.suffix == ".zip"):
        yield select_folds(find_model(str(model)), folds)
        return
    with tempfile.TemporaryDirectory() as results, variable("nnUNet_results", results):
        models = install_models(path).models
        if len(models) > 1:
            names = ", ".join(sorted(folder.name for folder in models))
            raise UserError(f"{path} holds several models: {names}", fix="unpack it and give one")
        yield select_folds(find_model(str(models[0])), folds)


def pack_model(model: TrainedModel, out: Path, *, exact: bool = False) -> PackedModel:
    """Write the reduced model, and the first stage of its cascade if any, below a folder.

    Args:
        model: to reduce.
        out: folder; the model becomes TRAINER__PLANS__CONFIGURATION in it.
        exact: predict as nnU-Net does: along all axes of mirrored images, also if ``tune`` chose
            some of them, and with all connected components.

    Returns:
        The reduced model.

    Raises:
        UserError: a checkpoint is damaged or could execute code, or the network is built by a
            trainer that is not nnU-Net's or ours, which no other machine has.
    """
    find_models([str(model.folder)])  # checks that a cascade has its first stage
    for stage in (model.previous, model):
        if stage is not None:
            load_model(stage)  # checks that a prediction can
            packed = pack_stage(stage, out, exact)
    return packed


def pack_stage(model: TrainedModel, out: Path, exact: bool) -> PackedModel:
    """Write one stage; see :func:`pack_model`."""
    contents = {
        fold: checkpoints.read_of_any_trainer(path) for fold, path in model.checkpoints.items()
    }
    first = next(iter(contents.values()))
    trainer = find_portable_trainer(first)
    _, plans, configuration = model.parts
    folder = out / "__".join((trainer, plans, configuration))
    mirrors = None if exact else load_mirror_choice(model)
    free = max((int(fold) + 1 for fold in contents if fold != "all"), default=0)
    for fold, content in contents.items():
        averaged = content.get("semi", {}).get("averaged_with", [])
        names = [fold, *(str(free + number) for number in range(len(averaged)))]
        free += len(averaged)
        for name, weights in zip(names, (content["network_weights"], *averaged), strict=True):
            target = folder / f"fold_{name}"
            target.mkdir(parents=True)
            reduced = reduce_checkpoint(content, weights, trainer, configuration)
            if mirrors is not None:
                reduced["inference_allowed_mirroring_axes"] = mirrors.axes or None
            checkpoints.save(reduced, target / FINAL_CHECKPOINT)
    write_json(folder / PLANS_JSON, keep_keys(model.plans, PLANS_KEYS))
    description = keep_keys(model.dataset_json, DATASET_KEYS)
    description.setdefault("channel_names", get_channel_names(model.dataset_json))
    if exact:
        description.pop(ONE_PIECE_KEY, None)
    write_json(folder / DATASET_JSON, {**description, "numTraining": 0})
    checksums = {fold: sha256_of_file(path) for fold, path in model.checkpoints.items()}
    trained_by, dataset = str(first["trainer_name"]), str(model.plans.get("dataset_name", "?"))
    epochs = int(first.get("current_epoch", 0))
    return PackedModel(folder, dataset, trained_by, checksums, epochs, description)


def find_portable_trainer(checkpoint: Mapping[str, Any]) -> str:
    """Return the name of nnU-Net's trainer that builds the network of a checkpoint.

    Raises:
        UserError: a trainer builds it that other machines do not have.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = find_checkpoint_trainer(checkpoint)
    if trainer.build_network_architecture is nnUNetTrainer.build_network_architecture:
        return STOCK_TRAINER
    if trainer.__module__.startswith("nnunetv2."):
        return trainer.__name__
    raise UserError(
        f"the network must be built by nnU-Net's trainers or from the plans, got one that "
        f"{trainer.__name__} builds, whose file is only on this machine",
        fix="give the network in the plans, or package a model of another trainer",
    )


def reduce_checkpoint(
    checkpoint: Mapping[str, Any], weights: Mapping[str, Any], trainer: str, configuration: str
) -> dict[str, Any]:
    """Return the content of a checkpoint that nnU-Net's predictor reads.

    Args:
        checkpoint: as it was trained.
        weights: of the network.
        trainer: name of nnU-Net's trainer that builds the network.
        configuration: name in the plans.
    """
    return {
        "network_weights": {key: value.detach().to("cpu", copy=True)
                            for key, value in weights.items()},
        "trainer_name": trainer,
        "init_args": {"configuration": configuration},
        **{key: checkpoint.get(key) for key in CHECKPOINT_KEYS},
    }  # fmt: skip


def keep_keys(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the content with only these keys.

    >>> keep_keys({"labels": {}, "training": ["a"]}, ("labels", "name"))
    {'labels': {}}
    """
    return {key: content[key] for key in keys if key in content}
