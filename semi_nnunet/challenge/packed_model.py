"""A trained model reduced to what predicts: weights, plans and labels, and nothing of the training.

The names of training cases, the history, the optimizer, settings and folders of the machine that
trained stay behind. The model is still one that nnU-Net's own predictor reads.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.data.layout import STOCK_TRAINER
from semi_nnunet.deploy.install import install
from semi_nnunet.deploy.loading import trainer_of
from semi_nnunet.deploy.mirrors import mirrors_of
from semi_nnunet.deploy.trained import (
    CHECKPOINT,
    TrainedModel,
    find_model,
    find_models,
    with_folds,
)
from semi_nnunet.training import checkpoints
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file, write_json

OF_PLANS = (
    "dataset_name", "plans_name", "image_reader_writer", "transpose_forward", "transpose_backward",
    "configurations", "experiment_planner_used", "label_manager",
    "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality",
    "original_median_spacing_after_transp", "original_median_shape_after_transp",
)  # fmt: skip
OF_DATASET = (
    "channel_names", "labels", "regions_class_order", "file_ending", "licence",
    "overwrite_image_reader_writer", "license", "reference", "name",
)  # fmt: skip
ENDING = re.compile(r"(\.[A-Za-z0-9]+)+")
OF_CHECKPOINT = ("inference_allowed_mirroring_axes", "current_epoch")


@dataclass(frozen=True)
class Packed:
    """A model that was written.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION.
        dataset: name of its data set.
        trained_by: class name of the trainer that trained it.
        checksums: fold -> SHA-256 of the checkpoint that it was taken from.
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
def opened(model: str | Path, folds: Sequence[str] | None) -> Iterator[TrainedModel]:
    """Inside the block, a model of a folder, or of a zip that is unpacked and checked aside.

    Args:
        model: as :func:`semi_nnunet.deploy.trained.find_model`, or a zip of semi_nnunet export.
        folds: numbers or "all"; None: those that are found.

    Raises:
        UserError: it is missing, damaged, could execute code, or has no such fold.
    """
    path = Path(model).expanduser()
    if not (path.is_file() and path.suffix == ".zip"):
        yield with_folds(find_model(str(model)), folds)
        return
    with tempfile.TemporaryDirectory() as results, variable("nnUNet_results", results):
        models = install(path).models
        if len(models) > 1:
            found = ", ".join(sorted(one.name for one in models))
            raise UserError(f"{path} holds several models: {found}", fix="unpack it and give one")
        yield with_folds(find_model(str(models[0])), folds)


def pack(model: TrainedModel, out: Path) -> Packed:
    """Write the model, and the stage of a cascade before it, below a folder.

    Args:
        model: that is packed.
        out: folder; the model becomes TRAINER__PLANS__CONFIGURATION in it.

    Returns:
        What was written.

    Raises:
        UserError: a checkpoint is damaged or could execute code, or the network is made by a
            trainer that is not nnU-Net's or ours, which no other machine has.
    """
    find_models([str(model.folder)])  # that a cascade has its first stage
    for stage in (model.previous, model):
        if stage is not None:
            packed = pack_stage(stage, out)
    return packed


def pack_stage(model: TrainedModel, out: Path) -> Packed:
    """Write one stage; see :func:`pack`."""
    require_ending(str(model.dataset_json["file_ending"]))
    contents = {
        fold: checkpoints.read_of_any_trainer(path) for fold, path in model.checkpoints.items()
    }
    first = next(iter(contents.values()))
    trainer = portable_trainer(first)
    _, plans, configuration = model.parts
    folder = out / "__".join((trainer, plans, configuration))
    mirrors = mirrors_of(model.folder)
    free = max((int(fold) + 1 for fold in contents if fold != "all"), default=0)
    for fold, content in contents.items():
        others = content.get("semi", {}).get("averaged_with", [])
        names = [fold, *(str(free + number) for number in range(len(others)))]
        free += len(others)
        for name, weights in zip(names, (content["network_weights"], *others), strict=True):
            place = folder / f"fold_{name}"
            place.mkdir(parents=True)
            kept = reduced(content, weights, trainer, configuration)
            if mirrors is not None:
                kept["inference_allowed_mirroring_axes"] = mirrors.axes or None
            checkpoints.save(kept, place / CHECKPOINT)
    write_json(folder / "plans.json", without_others(model.plans, OF_PLANS))
    description = without_others(model.dataset_json, OF_DATASET)
    description.setdefault("channel_names", model.dataset_json.get("modality"))
    write_json(folder / "dataset.json", {**description, "numTraining": 0})
    checksums = {fold: sha256_of_file(path) for fold, path in model.checkpoints.items()}
    trained_by, dataset = str(first["trainer_name"]), str(model.plans.get("dataset_name", "?"))
    epochs = int(first.get("current_epoch", 0))
    return Packed(folder, dataset, trained_by, checksums, epochs, description)


def require_ending(ending: str) -> None:
    """Check that a file ending is one, as it stands in the scripts that organisers run.

    Raises:
        UserError: it is none.
    """
    if not ENDING.fullmatch(ending):
        raise UserError(
            f"file_ending in dataset.json must be letters and digits after points, such as "
            f".nii.gz, got {ending!r}",
            fix="correct it",
        )


def portable_trainer(checkpoint: Mapping[str, Any]) -> str:
    """The name of nnU-Net's trainer that makes the network of a checkpoint.

    Raises:
        UserError: another trainer makes it in a way of its own, which the other machine lacks.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    found = trainer_of(checkpoint)
    stock = nnUNetTrainer.build_network_architecture
    if found.build_network_architecture is stock:
        return STOCK_TRAINER
    if found.__module__.startswith("nnunetv2."):
        return found.__name__
    raise UserError(
        f"the network must be built by nnU-Net's trainers or from the plans, got one that "
        f"{found.__name__} builds, whose file is on this machine alone",
        fix="give the network in the plans, or package a model of another trainer",
    )


def reduced(
    checkpoint: Mapping[str, Any], weights: Mapping[str, Any], trainer: str, configuration: str
) -> dict[str, Any]:
    """What nnU-Net's predictor reads of a checkpoint.

    Args:
        checkpoint: as it was trained.
        weights: of the network.
        trainer: name of nnU-Net's trainer that makes the network.
        configuration: name in the plans.
    """
    kept = {key: checkpoint.get(key) for key in OF_CHECKPOINT}
    weights = {key: value.detach().to("cpu", copy=True) for key, value in weights.items()}
    return {
        "network_weights": weights,
        "trainer_name": trainer,
        "init_args": {"configuration": configuration},
        **kept,
    }


def without_others(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The content with these keys alone."""
    return {key: content[key] for key in keys if key in content}
