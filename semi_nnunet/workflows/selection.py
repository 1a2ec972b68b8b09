"""Select a trained model: by its folder, or by data set, configuration, trainer and plans."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunetv2.paths import nnUNet_results

from semi_nnunet.discovery.names import DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.raw.layout import (
    FINAL_CHECKPOINT,
    find_fold_folders,
    require_paths,
    resolve_dataset_name,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import list_first

logger = logging.getLogger(__name__)
PREFERRED = {0: RECOMMENDED, 1: DEFAULT_PLANS}  # of several, by place in a model's name


def select_model(
    model: str | None,
    dataset: str | None,
    configuration: str | None,
    trainer: str | None,
    plans: str | None,
    checkpoint: str = FINAL_CHECKPOINT,
) -> str:
    """Return the name of a model, as :func:`~semi_nnunet.deploy.trained.find_model` takes it.

    Of a data set's trained models that match, the only one is taken and logged; of several, that of
    SemiUnifiedTrainer and nnUNetPlans, unless other names are given.

    Args:
        model: its folder; None: the other arguments select it.
        dataset: number or name.
        configuration, trainer, plans: None: any.
        checkpoint: that a fold needs to count as trained.

    Raises:
        UserError: both or neither are given, nothing that was trained matches, or several models.
    """
    names = (trainer, plans, configuration)
    if model is not None:
        if dataset is not None or any(names):
            raise UserError("-m names the model already", fix="omit -d, -c, -tr and -p, or -m")
        return str(model)
    if dataset is None:
        raise UserError("no model is given", fix="give -m MODEL, or -d, -c and -tr")
    require_paths("results")
    folder = Path(nnUNet_results.require()) / resolve_dataset_name(dataset)
    trained = sorted(list_trained_models(folder, checkpoint))
    if not trained:
        message = f"no trained model: looked for {folder}/*/fold_*/{checkpoint}"
        raise UserError(message, fix="train one to its end")
    matching = [
        parts
        for parts in trained
        if all(name in (None, part) for name, part in zip(names, parts, strict=True))
    ]
    for place, preferred in PREFERRED.items():
        if names[place] is None and len(matching) > 1:
            matching = [parts for parts in matching if parts[place] == preferred] or matching
    if len(matching) != 1:
        found = list_first(["__".join(parts) for parts in matching or trained])
        state = "several match" if matching else "none matches; trained are"
        raise UserError(
            f"one model of {folder.name} must be selected, {state}: {found}",
            fix="name it with -c, -tr and -p",
        )
    name = f"{folder.name}/{'__'.join(matching[0])}"
    if not all(names):
        logger.info(f"model: {name}")
    return name


def select_models(
    models: Sequence[str],
    dataset: str | None,
    configuration: str | None,
    trainer: str | None,
    plans: str | None,
    folds: Sequence[str] | None,
) -> list[str]:
    """Return the names of the given models, or of the one that the other arguments select.

    Args:
        models: their folders; () if the other arguments select one.
        dataset, configuration, trainer, plans: see :func:`select_model`.
        folds: of a single model; None for all that are trained.

    Raises:
        UserError: several models are given and something else, or see :func:`select_model`.
    """
    if len(models) < 2:
        name = select_model(models[0] if models else None, dataset, configuration, trainer, plans)
        return [name_folds(name, folds)]
    if folds or dataset or any((configuration, trainer, plans)):
        raise UserError("-m names the models already", fix="omit -d, -c, -tr, -p and -f")
    return [str(model) for model in models]


def list_trained_models(folder: Path, checkpoint: str) -> Iterator[tuple[str, str, str]]:
    """Yield trainer, plans and configuration of every model with a trained fold."""
    for path in folder.glob("*__*__*"):
        if any((fold / checkpoint).exists() for fold in find_fold_folders(path).values()):
            trainer, plans, configuration = path.name.rsplit("__", 2)
            yield trainer, plans, configuration


def name_folds(model: str, folds: Sequence[str] | None) -> str:
    """Return the name of these folds of a model; None: of the model.

    >>> name_folds("42/nnUNetTrainer__nnUNetPlans__2d", ["0", "1"])
    '42/nnUNetTrainer__nnUNetPlans__2d/fold_0_1'
    """
    return f"{model}/fold_{'_'.join(folds)}" if folds else model
