"""Export a trained model as a folder and a zip from which stock nnU-Net predicts.

nnU-Net's name of a model is TRAINER__PLANS__CONFIGURATION. An exported model has nnU-Net's own
trainer, and the plans' identifier carries the method, so that exports of several methods and a
model that nnU-Net trained with the same plans can be installed together.
"""

from __future__ import annotations

import copy
import itertools
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import semi_nnunet
from semi_nnunet.deploy.descriptions import REQUIRED, read_model_json
from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.trained import TrainedModel, find_model, select_folds
from semi_nnunet.planning.architecture import find_adapter
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    FINAL_CHECKPOINT,
    FINGERPRINT_FILE,
    HISTORY_CSV,
    PLANS_JSON,
    STOCK_TRAINER,
)
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import (
    folder_aside,
    optional_json,
    read_csv,
    sha256_of_file,
    write_atomically,
    write_json,
)

PROVENANCE_FILE = "semi_nnunet.json"
COPIED = (DATASET_JSON, FINGERPRINT_FILE)  # next to the folds
LEARNING_CURVES = ("progress.png", "semi_history.png", HISTORY_CSV)


@dataclass(frozen=True)
class ExportedModel:
    """A model for stock nnU-Net.

    Args:
        dataset, configuration, plans: for nnU-Net's options -d, -c and -p.
        archive: the zip, for ``nnUNetv2_install_pretrained_model_from_zip``.
        folder: the same, unpacked.
        folds: more than were trained, if several networks are averaged.
    """

    dataset: str
    configuration: str
    plans: str
    archive: Path
    folder: Path
    folds: tuple[str, ...]


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    folds: Sequence[str] | None = None,
    checkpoint: str = FINAL_CHECKPOINT,
) -> ExportedModel:
    """Export a trained model that stock nnU-Net installs and predicts with.

    Writes ``out/DatasetXXX_Name/nnUNetTrainer__PLANS_METHOD__CONFIGURATION`` and a zip of it. If a
    fold deploys the average of several networks, the others become further folds with the first
    free numbers, because nnU-Net averages folds. See :func:`semi_nnunet.export`.
    """
    trained, out = select_folds(find_model(str(model), checkpoint), folds), Path(out)
    trainer, plans, configuration = trained.parts
    dataset, plans = trained.folder.parent.name, f"{plans}_{trainer.replace('__', '_')}"
    relative = Path(dataset) / f"{STOCK_TRAINER}__{plans}__{configuration}"
    target, archive = out / relative, out / f"{dataset}__{trained.folder.name}.zip"
    if target.exists():
        raise UserError(f"{target} exists already", fix="remove it or choose another -o")
    require_stock_network(trained.plans, configuration)
    require_complete_descriptions(trained)
    load_model(trained)  # checks that a prediction can
    with folder_aside(target, "Nothing was exported") as aside:
        write_exported_model(trained, plans, aside)
        write_atomically(archive, lambda temporary: zip_folder(aside, relative, temporary))
    exported = sorted(path.name.removeprefix("fold_") for path in target.glob("fold_*"))
    return ExportedModel(dataset, configuration, plans, archive, target, tuple(exported))


def write_exported_model(model: TrainedModel, identifier: str, folder: Path) -> None:
    """Write the exported files into a new folder.

    Args:
        model: to export.
        identifier: of its plans in stock nnU-Net; our settings are removed from them.
        folder: does not exist yet.
    """
    provenance: dict[str, dict[str, Any]] = {}
    free_numbers = itertools.count(
        max((int(fold) + 1 for fold in model.folds if fold != "all"), default=0)
    )
    for fold, path in model.checkpoints.items():
        provenance |= export_fold(path, fold, free_numbers, folder, identifier)
    plans = model.plans
    semi = plans.pop("semi", {})
    plans.pop("semi_planned", None)
    write_json(folder / PLANS_JSON, plans | {"plans_name": identifier})
    for name in COPIED:
        if (model.folder / name).is_file():
            shutil.copy2(model.folder / name, folder / name)
    about = {"semi_nnunet": semi_nnunet.__version__, "trainer": model.parts[0]}
    write_json(folder / PROVENANCE_FILE, {**about, "plans['semi']": semi, "folds": provenance})


def is_exported_from(exported: Path, checkpoint: Path) -> bool:
    """Return whether an exported model has the weights of a checkpoint, and its dataset.json."""
    folds = optional_json(exported / PROVENANCE_FILE).get("folds", {})
    has_weights = sha256_of_file(checkpoint) in [fold["source_sha256"] for fold in folds.values()]
    model = checkpoint.parent.parent
    theirs, ours = (optional_json(folder / DATASET_JSON) for folder in (exported, model))
    return has_weights and theirs == ours


def require_complete_descriptions(model: TrainedModel) -> None:
    """Check the files next to the folds that are exported as they are.

    Raises:
        UserError: one is torn.
    """
    problems: list[Problem] = []
    for name in COPIED:
        path = model.folder / name
        if path.is_file():  # models of other programs may lack the second
            with collect_errors(problems, str(path)):
                read_model_json(path, REQUIRED.get(name))
    for checkpoint in model.checkpoints.values():
        path = checkpoint.with_name(HISTORY_CSV)
        if path.is_file():
            with collect_errors(problems, str(path)):
                read_csv(path)
    raise_if_any("This model cannot be exported:", problems)


def require_stock_network(plans: Mapping[str, Any], configuration: str) -> None:
    """Check that stock nnU-Net can build the network.

    Raises:
        UserError: it is one of :mod:`semi_nnunet.networks.adapters`.
    """
    manager = PlansManager(copy.deepcopy(dict(plans)))
    if network := find_adapter(manager.get_configuration(configuration).network_arch_class_name):
        raise UserError(
            f"{configuration} has the network {network}, which stock nnU-Net cannot build",
            fix="predict where semi_nnunet is installed (nnUNetv2_predict), or train "
            "nnU-Net's own network",
        )


def export_fold(
    checkpoint_file: Path, fold: str, free_numbers: Iterator[int], model: Path, plans: str
) -> dict[str, dict[str, Any]]:
    """Write a fold as nnU-Net's trainer would, with only the deployed weights.

    Args:
        checkpoint_file: of the trained fold.
        fold: its name.
        free_numbers: names of the folds of further networks to average with.
        model: the folder for the folds.
        plans: identifier of the exported plans.

    Returns:
        Fold -> its provenance: settings, epoch, identity and checksum.
    """
    checkpoint = checkpoints.read_of_any_trainer(checkpoint_file)
    semi = checkpoint.pop("semi", None)
    if semi is None:
        raise UserError(
            f"{checkpoint_file} was not trained by semi_nnunet",
            fix="nnUNetv2_export_model_to_zip exports models of nnU-Net",
        )
    provenance = {
        "trained_fold": fold,
        "source_sha256": sha256_of_file(checkpoint_file),
        "epoch": checkpoint["current_epoch"],
        "identity": semi["identity"],
        "settings": semi["settings"],
    }
    averaged = semi.get("averaged_with", [])
    names = [fold, *(str(next(free_numbers)) for _ in averaged)]
    for name, weights in zip(names, [checkpoint["network_weights"], *averaged], strict=True):
        target = model / f"fold_{name}"
        target.mkdir(parents=True)
        content = make_stock_checkpoint(checkpoint, weights, plans)
        checkpoints.save(content, target / FINAL_CHECKPOINT)
        for curves in LEARNING_CURVES:
            if (checkpoint_file.parent / curves).is_file():
                shutil.copy2(checkpoint_file.parent / curves, target / curves)
    return dict.fromkeys(names, provenance)


def make_stock_checkpoint(
    checkpoint: Mapping[str, Any], weights: Mapping[str, torch.Tensor], plans: str
) -> dict[str, Any]:
    """Return the content that stock nnU-Net reads for prediction, without optimizer or students."""
    init_args = copy.deepcopy(dict(checkpoint["init_args"]))
    for key in ("semi", "semi_planned"):
        init_args["plans"].pop(key, None)
    init_args["plans"]["plans_name"] = plans
    return {
        "network_weights": {key: weights[key].detach().to("cpu", copy=True) for key in weights},
        "init_args": init_args,
        "trainer_name": STOCK_TRAINER,
        "inference_allowed_mirroring_axes": checkpoint["inference_allowed_mirroring_axes"],
        "current_epoch": checkpoint["current_epoch"],
        "_best_ema": checkpoint["_best_ema"],
        "logging": checkpoint["logging"],
    }


def zip_folder(folder: Path, name: Path, archive: Path) -> None:
    """Zip ``folder`` under another name, as nnU-Net's installer expects it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, name / path.relative_to(folder))
