"""Choose the mirrored images that are worth their time, on cases that a fold did not train on.

nnU-Net averages over images mirrored along all axes, which is 8 passes in 3-D. Some axes do not
help, or were not mirrored in training. Here every set of axes predicts the validation cases, and
the set with the fewest passes is chosen whose Dice is hardly below that of all axes.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from semi_nnunet.core.devices import choose_device
from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.mirrors import MirrorChoice, TriedAxes, choose_axes
from semi_nnunet.deploy.trained import TrainedModel, find_model
from semi_nnunet.evaluation.measuring import evaluate_folders
from semi_nnunet.evaluation.tables import average_defined
from semi_nnunet.inference.folder import FolderPredictor
from semi_nnunet.inference.model import ALIKE, ImagePredictor, make_prediction_options
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import load_folds
from semi_nnunet.raw.layout import DATASET_JSON, SPLITS_FILE
from semi_nnunet.runs.folders import ALL, Folders, find_folders
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any

LOSE = 0.001  # of Dice: a tenth of a point
logger = logging.getLogger(__name__)


def tune_mirror_axes(
    model: str | Path,
    *,
    folds: Sequence[str] | None = None,
    lose: float = LOSE,
    device: str | None = None,
) -> MirrorChoice:
    """Choose the axes along which predictions of a model are mirrored, by its validation cases.

    :func:`semi_nnunet.tune` documents the arguments; here ``lose`` is a Dice from 0 to 1.
    """
    problems = list[Problem]()
    with collect_errors(problems, "--device"):
        torch_device = torch.device(choose_device(device))
    if not 0 <= lose <= 1:
        message = f"must be from 0 to 100 points of Dice, got {100 * lose:g}"
        problems.append(Problem("--lose", message, "correct it"))
    with collect_errors(problems, "-m"):
        trained = find_model(str(model))
        numbered = [fold for fold in folds or trained.folds if fold != ALL]
        selected = replace(trained, folds=tuple(numbered))
        with collect_errors(problems, "-f"):
            require_numbered_folds(trained, numbered)
            folders = find_folders(trained.folder.parent.name)
            cases = {fold: find_validation_images(folders, fold) for fold in numbered}
    raise_if_any("no axes can be chosen:", problems)
    weights, allowed = selected.checksums(), load_mirrored_axes(selected)
    tried = []
    for axes in itertools.chain.from_iterable(
        itertools.combinations(allowed, count) for count in range(len(allowed) + 1)
    ):
        tried.append(measure_axes(selected, folders, cases, axes, torch_device))
        logger.info(format_tried_axes(tried[-1]))
    choice = MirrorChoice(
        choose_axes(tried, lose).axes, tuple(tried), tuple(numbered),
        sum(map(len, cases.values())), lose, weights,
    )  # fmt: skip
    choice.write(trained.folder)
    return choice


def require_numbered_folds(model: TrainedModel, folds: Sequence[str]) -> None:
    """Check that the model has numbered folds, among them ``folds``.

    Raises:
        UserError: it does not.
    """
    if not folds or {*folds} - {*model.folds}:
        numbers = " ".join(fold for fold in model.folds if fold != ALL)
        raise UserError(
            f"axes are chosen by the validation cases of numbered folds: asked for "
            f"{' '.join(folds) or ALL}, and {model.name} has {' '.join(model.folds)}",
            fix=f"choose from {numbers}" if numbers else "train one, for example fold 0",
        )


def load_mirrored_axes(model: TrainedModel) -> tuple[int, ...]:
    """Return the axes along which the training mirrored.

    Raises:
        UserError: it did not mirror.
    """
    axes = load_model(model).allowed_mirroring_axes
    if not axes:
        raise UserError(
            f"{model.name} was trained without mirrored images, so there is nothing to choose",
            fix="predict with it as it is",
        )
    return tuple(axes)


def find_validation_images(folders: Folders, fold: str) -> dict[str, list[str]]:
    """Return the cases that validate a fold, with their images.

    Raises:
        UserError: there are none.
    """
    splits = folders.preprocessed / SPLITS_FILE
    split = dict(enumerate(load_folds(folders.preprocessed))).get(int(fold))
    names = [] if split is None else split["val"]
    cases = RawDataset.of(folders.raw).cases
    images = {case.case: list(case.images) for case in cases if case.subset == "labelled"}
    validated = {case: images[case] for case in names if case in images}
    if not validated:
        raise UserError(
            f"no labelled case of {folders.raw} validates fold {fold} ({splits})",
            fix="put the data set there",
        )
    return validated


def measure_axes(
    model: TrainedModel,
    folders: Folders,
    cases: Mapping[str, dict[str, list[str]]],
    axes: tuple[int, ...],
    device: torch.device,
) -> TriedAxes:
    """Predict the cases of every fold with its network, and measure Dice and time.

    Raises:
        UserError: none of the cases holds any class.
    """
    options, dices, seconds = make_prediction_options(ALIKE, device, mirror=axes), [], 0.0
    for fold, images in cases.items():
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            predictor = ImagePredictor(replace(model, folds=(fold,)), options, device)
            begun = time.perf_counter()
            FolderPredictor(predictor, folders.raw / "imagesTr", out).predict(images)
            seconds += time.perf_counter() - begun
            evaluation = evaluate_folders(
                out, folders.references, dataset_json=folders.preprocessed / DATASET_JSON,
                partial=True, processes=1,
            )  # fmt: skip
            dices += [row["dice"] for row in evaluation.content["cases"]]
    if math.isnan(dice := average_defined(dices)):
        raise UserError("no validation case holds any class", fix="choose other folds by -f")
    return TriedAxes(axes, dice, seconds / sum(map(len, cases.values())))


def format_tried_axes(tried: TriedAxes) -> str:
    """Return a line for people about a set of axes.

    >>> format_tried_axes(TriedAxes((0, 2), dice=0.8712, seconds=3.5))
    '  axes 0 2    4 passes, Dice 0.8712, 3.50 s a case'
    """
    axes = " ".join(map(str, tried.axes)) or "none"
    cost = f"{tried.passes} passes, Dice {tried.dice:.4f}, {tried.seconds:.2f} s a case"
    return f"  axes {axes:<6} {cost}"
