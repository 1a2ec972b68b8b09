"""The axes along which predictions of a model mirror images, as ``tune`` chose them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.util.files import write_json
from semi_nnunet.util.validation import read_as

FILE = "semi_mirrors.json"  # in the folder of a model
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TriedAxes:
    """A set of axes with which the validation cases were predicted.

    Args:
        axes: spatial ones, 0 is the first; images mirrored along every subset of them are averaged.
        dice: mean over classes and cases.
        seconds: per case.
    """

    axes: tuple[int, ...]
    dice: float
    seconds: float

    @property
    def passes(self) -> int:
        """Number of passes of the network over each tile."""
        return 2 ** len(self.axes)


@dataclass(frozen=True)
class MirrorChoice:
    """The chosen axes and the measurements behind them; its fields are the keys of a JSON file.

    Args:
        axes: that were chosen.
        tried: all sets of axes.
        folds: whose validation cases were predicted, each by the network of its fold.
        cases: number of these cases.
        lose: how much less Dice than with all axes was allowed.
        weights: fold -> SHA-256 of the checkpoint that predicted; empty in files of old versions.
    """

    axes: tuple[int, ...]
    tried: tuple[TriedAxes, ...]
    folds: tuple[str, ...]
    cases: int
    lose: float
    weights: Mapping[str, str] = field(default_factory=dict)

    def write(self, model: Path) -> None:
        """Write the choice into the folder of the model."""
        write_json(model / FILE, asdict(self))


def choose_axes(tried: Sequence[TriedAxes], lose: float) -> TriedAxes:
    """Return the fewest passes, then the best Dice, at most ``lose`` below the Dice of all axes.

    >>> few, many = TriedAxes((0,), 0.899, 2.0), TriedAxes((0, 1), 0.900, 4.0)
    >>> choose_axes([few, many], lose=0.01).axes
    (0,)

    Args:
        tried: among them all axes together.
        lose: a fraction, 0.001 is a tenth of a point.
    """
    all_axes = max(tried, key=lambda axes: axes.passes)
    enough = [axes for axes in tried if axes.dice >= all_axes.dice - lose]
    return min(enough, key=lambda axes: (axes.passes, -axes.dice))


def load_mirror_choice(model: TrainedModel) -> MirrorChoice | None:
    """Load the choice for a model, or None if ``tune`` made none for these weights.

    A choice for a fold that was trained again is not used, and a warning is logged. Missing folds
    are not compared. Files of earlier versions do not name the weights and are used.

    Raises:
        UserError: the file has another content.
    """
    path = model.folder / FILE
    if not path.is_file():
        return None
    choice = read_as(MirrorChoice, path, "semi_nnunet tune", "remove it, or tune again")
    folds = tuple(
        fold
        for fold in choice.weights
        if (model.folder / f"fold_{fold}" / FINAL_CHECKPOINT).is_file()
    )
    present = replace(model, folds=folds, checkpoint=FINAL_CHECKPOINT).checksums()
    if all(choice.weights[fold] == checksum for fold, checksum in present.items()):
        return choice
    logger.warning(
        f"{path} was chosen with other weights and is not used: images are mirrored along all "
        "axes. Fix: run semi_nnunet tune again"
    )
    return None
