"""Find out which mirrored images are worth their time, on cases that a fold was not trained on.

nnU-Net averages over the images that are mirrored along all axes, which is 8 passes in 3-D. Some
axes give nothing, or were not mirrored in training. Here every set of axes predicts the validation
cases, and the set with the fewest passes is taken whose Dice is hardly below that of all axes.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from semi_nnunet.data.raw_description import cases_in
from semi_nnunet.deploy.loading import load_parts
from semi_nnunet.deploy.mirrors import Mirrors, Tried, chosen
from semi_nnunet.deploy.trained import TrainedModel, find_model
from semi_nnunet.evaluation.measuring import evaluate
from semi_nnunet.evaluation.tables import mean_of
from semi_nnunet.inference.model import ALIKE, ImagePredictor, options_of
from semi_nnunet.inference.predict import FolderPredictor
from semi_nnunet.runs.folders import ALL, Folders, folders_of
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import read_json

LOSE = 0.001  # of Dice: a tenth of a point


def tune(
    model: str | Path,
    *,
    folds: Sequence[str] | None = None,
    lose: float = LOSE,
    device: str | None = None,
    say: Callable[[str], None] = print,
) -> Mirrors:
    """Choose the axes along which predictions of a model are mirrored, by its validation cases.

    ``predict`` and ``package`` then take these axes; ``--exact`` and ``--mirror`` take all.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION, as it is or below nnUNet_results, whose data
            set is here.
        folds: numbers; None: all that were trained.
        lose: how much less Dice than with all axes is allowed, from 0 to 1; 0.001 is a tenth of a
            point.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one, else the CPU.
        say: gets a line for each set of axes.

    Returns:
        The choice, which is also written into the folder of the model.

    Raises:
        UserError: there is no such model, fold or data set, the training did not mirror, or no case
            validates it.
    """
    wrong = list[Problem]()
    with collect_errors(wrong, "--device"):
        place = torch.device(find_resources(device).device)
    if not 0 <= lose <= 1:
        what = f"must be from 0 to 100 points of Dice, got {100 * lose:g}"
        wrong.append(Problem("--lose", what, "correct it"))
    with collect_errors(wrong, "-m"):
        found = find_model(str(model))
        numbered = [fold for fold in folds or found.folds if fold != ALL]
        whole = replace(found, folds=tuple(numbered))
        with collect_errors(wrong, "-f"):
            require_numbered(found, numbered)
            folders = folders_of(found.folder.parent.name)
            cases = {fold: validation_cases(folders, fold) for fold in numbered}
    raise_if_any("no axes can be chosen:", wrong)
    axes = mirrored_axes(whole)
    tried = []
    for one in itertools.chain.from_iterable(
        itertools.combinations(axes, count) for count in range(len(axes) + 1)
    ):
        tried.append(measured(whole, folders, cases, one, place))
        say(line_of(tried[-1]))
    choice = Mirrors(
        chosen(tried, lose).axes, tuple(tried), tuple(numbered), sum(map(len, cases.values())), lose
    )
    choice.write(found.folder)
    return choice


def require_numbered(model: TrainedModel, folds: Sequence[str]) -> None:
    """Check that the model has numbered folds, these among them.

    Raises:
        UserError: it has not.
    """
    if not folds or {*folds} - {*model.folds}:
        there = " ".join(fold for fold in model.folds if fold != ALL)
        raise UserError(
            f"numbered folds choose by their validation cases: asked for {' '.join(folds) or ALL}, "
            f"and {model.name} has {' '.join(model.folds)}",
            fix=f"{f'choose from {there}' if there else 'train one, for example fold 0'}",
        )


def mirrored_axes(model: TrainedModel) -> tuple[int, ...]:
    """The axes along which the training mirrored.

    Raises:
        UserError: there is none.
    """
    axes = load_parts(model).allowed_mirroring_axes
    if not axes:
        raise UserError(
            f"{model.name} was trained without mirrored images, so that there is nothing to choose",
            fix="predict with it as it is",
        )
    return tuple(axes)


def validation_cases(folders: Folders, fold: str) -> dict[str, list[str]]:
    """The cases that validate a fold, with their images.

    Raises:
        UserError: there is none.
    """
    splits = folders.preprocessed / "splits_final.json"
    names = read_json(splits)[int(fold)]["val"] if splits.is_file() else []
    images = cases_in(folders.raw / "imagesTr", folders.file_ending)
    found = {case: images[case] for case in names if case in images}
    if not found:
        raise UserError(
            f"no case of {folders.raw / 'imagesTr'} validates fold {fold} ({splits})",
            fix="put the data set there",
        )
    return found


def measured(
    model: TrainedModel,
    folders: Folders,
    cases: Mapping[str, dict[str, list[str]]],
    axes: tuple[int, ...],
    device: torch.device,
) -> Tried:
    """Predict the cases of every fold with its network, and measure Dice and time.

    Raises:
        UserError: none of them holds any class.
    """
    options, dices, seconds = options_of(ALIKE, device, mirror=axes), list[float](), 0.0
    for fold, of_fold in cases.items():
        with tempfile.TemporaryDirectory() as aside:
            out = Path(aside)
            predictor = ImagePredictor(replace(model, folds=(fold,)), options, device)
            begun = time.perf_counter()
            FolderPredictor(predictor, folders.raw / "imagesTr", out).predict(of_fold)
            seconds += time.perf_counter() - begun
            found = evaluate(
                out, folders.references, dataset_json=folders.preprocessed / "dataset.json",
                partial=True, processes=1,
            )  # fmt: skip
            dices += [row["dice"] for row in found.content["cases"]]
    if math.isnan(dice := mean_of(dices)):
        raise UserError("no validation case holds any class", fix="choose other folds by -f")
    count = sum(map(len, cases.values()))
    return Tried(axes, dice, seconds / count)


def line_of(one: Tried) -> str:
    """What was tried, for people."""
    axes = " ".join(map(str, one.axes)) or "none"
    return f"  axes {axes:<6} {one.passes} passes, Dice {one.dice:.4f}, {one.seconds:.2f} s a case"
