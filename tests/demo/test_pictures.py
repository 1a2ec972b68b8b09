"""The demo's pictures are written, not blank, and show the given numbers."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from skimage import io

from semi_nnunet.demo.pictures import (
    ORGAN_COLOURS,
    PictureRow,
    colour_organs,
    draw_curves,
    draw_overlays,
    format_gain,
)
from semi_nnunet.training.history import History

ORGANS = {1: "large", 2: "pair", 3: "small"}


def comparison(title: str) -> PictureRow:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, (4, 16, 16))
    predictions = {"baseline": 0 * reference, "Mean Teacher": reference}
    dice = {"baseline": 0.0, "Mean Teacher": 1.0}
    return PictureRow(title, rng.random((4, 16, 16)), reference, predictions, dice)


def history(**columns: float) -> History:
    named = {name.replace("__", "/"): value for name, value in columns.items()}
    return History([{"epoch": e, **{k: v * e for k, v in named.items()}} for e in range(5)])


def words_in(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def assert_written_and_not_blank(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=50)
    pixels = io.imread(path)
    assert min(pixels.shape[:2]) > 100
    assert np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0).shape[0] > 50


def test_overlays_are_drawn_with_dice_gain_and_legend(tmp_path: Path):
    figure = draw_overlays([comparison("worst gain"), comparison("best gain")], ORGANS)
    assert_written_and_not_blank(figure, tmp_path / "overlays.png")
    words = words_in(figure)
    for word in ("worst gain", "Mean Teacher", "Dice 1.000 (+1.000)", "small"):
        assert word in words


def test_curves_are_drawn_for_both_methods(tmp_path: Path):
    common = {"dice__deployed": 0.1, "loss__supervised": -0.2, "foreground__labelled": 0.02}
    unlabelled = {
        "loss__consistency": 0.01,
        "weight__consistency": 2.0,
        "foreground__pseudo_label": 0.03,
    }
    histories = {"baseline": history(**common), "Mean Teacher": history(**common, **unlabelled)}
    assert_written_and_not_blank(draw_curves(histories), tmp_path / "curves.png")


def test_curves_of_a_training_of_one_epoch_are_drawn(tmp_path: Path):
    rows = [{"epoch": 0, "dice/deployed": 0.5, "loss/consistency": 0.0, "weight/consistency": 0.0}]
    histories = {"baseline": History(rows), "Mean Teacher": History(rows)}
    assert_written_and_not_blank(draw_curves(histories), tmp_path / "curves.png")


def test_only_organs_are_coloured():
    grey = np.full((2, 2), 0.5)
    picture = colour_organs(grey, np.array([[0, 1], [2, 3]]), tuple(ORGANS))
    np.testing.assert_array_equal(picture[0, 0], 0.5)
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)}) == 4
    np.testing.assert_array_equal(colour_organs(grey, None, tuple(ORGANS)), 0.5)
    assert len(set(ORGAN_COLOURS)) == len(ORGAN_COLOURS)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+0.012"), (-0.2, "\N{MINUS SIGN}0.200"), (-0.0001, "+0.000")]
)
def test_a_difference_has_its_sign(value: float, text: str):
    assert format_gain(value) == text
