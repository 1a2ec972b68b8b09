"""The axes along which a model's images are mirrored in predictions, as ``tune`` chose them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from semi_nnunet.util.files import write_json
from semi_nnunet.util.validation import read_as

FILE = "semi_mirrors.json"  # in the folder of a model


@dataclass(frozen=True)
class Tried:
    """What the validation cases were predicted with.

    Args:
        axes: spatial ones, 0 is the first; images mirrored along every subset of them are averaged.
        dice: mean over classes and cases.
        seconds: of a case.
    """

    axes: tuple[int, ...]
    dice: float
    seconds: float

    @property
    def passes(self) -> int:
        """Of the network over each tile."""
        return 2 ** len(self.axes)


@dataclass(frozen=True)
class Mirrors:
    """The choice of axes and what it rests on.

    Args:
        axes: that were chosen.
        tried: all sets of axes.
        folds: whose validation cases were predicted, each by the network of its fold.
        cases: how many there were.
        lose: how much less Dice than with all axes was allowed.
    """

    axes: tuple[int, ...]
    tried: tuple[Tried, ...]
    folds: tuple[str, ...]
    cases: int
    lose: float

    def write(self, model: Path) -> None:
        """Write it into the folder of the model."""
        write_json(model / FILE, asdict(self))


def chosen(tried: Sequence[Tried], lose: float) -> Tried:
    """The fewest passes whose Dice is at most ``lose`` below that of all axes; of several the best.

    Args:
        tried: one of them has all axes.
        lose: a fraction, 0.001 is a tenth of a point.
    """
    whole = max(tried, key=lambda one: one.passes)
    enough = [one for one in tried if one.dice >= whole.dice - lose]
    return min(enough, key=lambda one: (one.passes, -one.dice))


def mirrors_of(model: Path) -> Mirrors | None:
    """What was chosen for a model; None: nothing was.

    Args:
        model: its folder TRAINER__PLANS__CONFIGURATION.

    Raises:
        UserError: the file holds something else.
    """
    path = model / FILE
    if not path.is_file():
        return None
    return read_as(Mirrors, path, "semi_nnunet tune", "remove it, or tune again")
