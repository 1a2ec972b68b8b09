"""Turn a trained model into a folder and a zip that stock nnU-Net predicts from without us.

nnU-Net's name of a model is TRAINER__PLANS__CONFIGURATION. An exported model has nnU-Net's own
trainer, so that the plans' identifier carries the method: exports of several methods, and a model
that nnU-Net trained with the same plans, lie beside each other.
"""

from __future__ import annotations

import copy
import itertools
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import semi_nnunet
from semi_nnunet.data.layout import STOCK_TRAINER, dataset_name, require_paths
from semi_nnunet.planning.architecture import adapter_of
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import (
    folder_aside,
    read_json,
    sha256_of_file,
    write_atomically,
    write_json,
)

PROVENANCE_FILE = "semi_nnunet.json"
SHIPPED = ("progress.png", "semi_history.png", "semi_history.csv")


@dataclass(frozen=True)
class NamedModel:
    """A trained model in nnUNet_results, by the names that its folder is made of."""

    dataset: str
    configuration: str
    trainer: str
    plans: str

    @property
    def folder(self) -> Path:
        """Where its folds are.

        Raises:
            UserError: it is not there.
        """
        require_paths("results")
        folder = Path(nnUNet_results.require()) / self.relative_folder(self.trainer)
        if not folder.is_dir():
            fix = "train it first, or correct -d, -c, -tr and -p"
            raise UserError(f"{folder} does not exist. Fix: {fix}")
        return folder

    def relative_folder(self, trainer: str) -> Path:
        """nnU-Net's folder of this model under the name of ``trainer``."""
        return Path(dataset_name(self.dataset)) / f"{trainer}__{self.plans}__{self.configuration}"

    @property
    def exported_plans(self) -> str:
        """The identifier of the plans in stock nnU-Net's form of this model."""
        return f"{self.plans}_{self.trainer}"

    def exported_to(self, out: Path) -> Path:
        """Where stock nnU-Net's form of this model lies below ``out``."""
        stock = replace(self, trainer=STOCK_TRAINER, plans=self.exported_plans)
        return out / stock.relative_folder(STOCK_TRAINER)


def trained_folds(
    model: NamedModel, folds: Sequence[str] | None, checkpoint_name: str
) -> dict[str, Path]:
    """Fold -> its checkpoint; all that are finished if ``folds`` is None.

    Raises:
        UserError: one of ``folds``, or any fold at all, has no such checkpoint.
    """
    paths = sorted(model.folder.glob(f"fold_*/{checkpoint_name}"))
    found = {path.parent.name.removeprefix("fold_"): path for path in paths}
    if folds is None:
        folds = list(found)
    missing = [
        Problem(f"fold {fold}", f"has no {checkpoint_name}", "finish its training")
        for fold in folds
        if fold not in found
    ]
    if missing:
        known = ", ".join(found) or "none"
        raise UserError(f"{model.folder} has {checkpoint_name} of the folds {known}:", missing)
    if not folds:
        raise UserError(f"{model.folder} has no {checkpoint_name}. Fix: finish the training")
    return {fold: found[fold] for fold in folds}


@dataclass(frozen=True)
class Exported:
    """A model for stock nnU-Net.

    Args:
        plans: its identifier, for nnU-Net's option -p.
        archive: the zip, for ``nnUNetv2_install_pretrained_model_from_zip``.
        folder: the same, unpacked.
        folds: that it has; more than were trained where several networks are averaged.
    """

    plans: str
    archive: Path
    folder: Path
    folds: tuple[str, ...]


def export(
    dataset: str,
    configuration: str,
    trainer: str,
    out: str | Path,
    *,
    plans: str = "nnUNetPlans",
    folds: Sequence[str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
) -> Exported:
    """Turn a trained model into one that stock nnU-Net installs and predicts from, without us.

    Args:
        dataset: number or name.
        configuration: such as "3d_fullres".
        trainer: class name.
        out: where the folder and the zip go.
        plans: identifier of the plans.
        folds: numbers or "all"; None: every finished one.
        checkpoint: name of the file in each fold.

    Returns:
        Where the model is.

    Raises:
        UserError: the model or a fold is missing or unreadable, its network is none of nnU-Net's,
            or the target exists.
    """
    model = NamedModel(dataset, configuration, trainer, plans)
    archive = export_model(model, Path(out), folds, checkpoint)
    folder = model.exported_to(Path(out))
    exported = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    return Exported(model.exported_plans, archive, folder, tuple(exported))


def export_model(
    model: NamedModel,
    out: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
) -> Path:
    """Write ``out/DatasetXXX_Name/nnUNetTrainer__PLANS_METHOD__CONFIGURATION`` and a zip of it.

    Where a fold deploys the average of several networks, the others become folds of their own,
    with the first free numbers: nnU-Net averages folds.

    Returns:
        The zip, for ``nnUNetv2_install_pretrained_model_from_zip``.

    Raises:
        UserError: the model or a fold is missing or unreadable, or the target exists.
    """
    found = trained_folds(model, folds, checkpoint_name)
    target = model.exported_to(out)
    if target.exists():
        raise UserError(f"{target} exists already. Fix: remove it or choose another -o")
    plans = read_json(model.folder / "plans.json")
    require_stock_network(plans, model.configuration)
    name = "__".join((target.parent.name, model.trainer, model.plans, model.configuration))
    archive, inside = out / f"{name}.zip", target.relative_to(out)
    with folder_aside(target, "Nothing was exported") as aside:
        fill_model(model, found, plans, aside)
        write_atomically(archive, lambda temporary: zip_folder(aside, inside, temporary))
    return archive


def fill_model(
    model: NamedModel, found: Mapping[str, Path], plans: dict[str, Any], aside: Path
) -> None:
    """Write what is exported into a new folder.

    Args:
        model: that is exported.
        found: fold -> its checkpoint.
        plans: of the model; our settings are taken out.
        aside: the folder, which is not there yet.
    """
    provenance: dict[str, dict[str, Any]] = {}
    free_numbers = itertools.count(
        max((int(fold) + 1 for fold in found if fold != "all"), default=0)
    )
    for fold, path in found.items():
        provenance |= export_fold(path, fold, free_numbers, aside, model.exported_plans)
    semi = plans.pop("semi", {})
    plans.pop("semi_planned", None)
    write_json(aside / "plans.json", plans | {"plans_name": model.exported_plans})
    for name in ("dataset.json", "dataset_fingerprint.json"):
        if (model.folder / name).is_file():  # a model of others may lack the second
            shutil.copy2(model.folder / name, aside / name)
    about = {"semi_nnunet": semi_nnunet.__version__, "trainer": model.trainer}
    write_json(aside / PROVENANCE_FILE, {**about, "plans['semi']": semi, "folds": provenance})


def require_stock_network(plans: Mapping[str, Any], configuration: str) -> None:
    """Check that nnU-Net alone can build the network.

    Raises:
        UserError: it is one of :mod:`semi_nnunet.networks.adapters`.
    """
    manager = PlansManager(copy.deepcopy(dict(plans)))
    if network := adapter_of(manager.get_configuration(configuration).network_arch_class_name):
        raise UserError(
            f"{configuration} has the network {network}, which stock nnU-Net cannot "
            f"build. Fix: predict where semi_nnunet is installed (nnUNetv2_predict), or train "
            f"nnU-Net's own network"
        )


def export_fold(
    checkpoint_file: Path, fold: str, free_numbers: Iterator[int], model: Path, plans: str
) -> dict[str, dict[str, Any]]:
    """Write a fold as nnU-Net's trainer would, with the deployed weights only.

    Args:
        checkpoint_file: what was trained.
        fold: name of the fold.
        free_numbers: names of the folds of further networks to average with.
        model: the folder for the folds.
        plans: identifier of the exported plans.

    Returns:
        Fold -> where it came from: settings, epoch, identity and checksum.
    """
    checkpoint = checkpoints.read(checkpoint_file)
    semi = checkpoint.pop("semi")
    provenance = {
        "trained_fold": fold,
        "source_sha256": sha256_of_file(checkpoint_file),
        "epoch": checkpoint["current_epoch"],
        "identity": semi["identity"],
        "settings": semi["settings"],
    }
    others = semi.get("averaged_with", [])
    names = [fold, *(str(next(free_numbers)) for _ in others)]
    for name, weights in zip(names, [checkpoint["network_weights"], *others], strict=True):
        target = model / f"fold_{name}"
        target.mkdir(parents=True)
        content = stock_checkpoint(checkpoint, weights, plans)
        checkpoints.save(content, target / "checkpoint_final.pth")
        for shipped in SHIPPED:
            if (checkpoint_file.parent / shipped).is_file():
                shutil.copy2(checkpoint_file.parent / shipped, target / shipped)
    return dict.fromkeys(names, provenance)


def stock_checkpoint(
    checkpoint: Mapping[str, Any], weights: Mapping[str, torch.Tensor], plans: str
) -> dict[str, Any]:
    """What stock nnU-Net reads for prediction; optimizer and students stay behind."""
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
