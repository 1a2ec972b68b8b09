"""The picture of a training's history."""

import math

import pytest
from matplotlib import pyplot as plt
from matplotlib.image import imread

from semi_nnunet.training.history import History
from semi_nnunet.training.run_log import draw_history, write_history_picture
from tests.training.test_history import example


@pytest.mark.parametrize("history", [example(), History(), History([{"epoch": 0, "odd": 1.0}])])
def test_the_picture_is_a_png(tmp_path, history):
    path = tmp_path / "history.png"
    write_history_picture(history, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert imread(path).std() > 0.01
    assert not plt.get_fignums()


def test_the_picture_has_a_panel_for_each_kind_of_curve_and_a_line_for_each_column():
    figure = draw_history(example())
    titles = {axis.get_title(): len(axis.lines) for axis in figure.axes}
    assert titles == {
        "supervised loss": 1,
        "unlabelled terms, unweighted": 1,
        "Dice on validation patches": 1,
        "fraction of voxels: foreground, trusted": 1,
        "learning rate": 1,
    }
    plt.close(figure)


def test_only_positive_losses_have_a_logarithmic_axis():
    positive, negative = example(), example()
    negative.add(4, {"loss/supervised": -0.8})
    for history, scale in ((positive, "log"), (negative, "linear")):
        figure = draw_history(history)
        scales = {axis.get_title(): axis.get_yscale() for axis in figure.axes}
        assert scales["supervised loss"] == scale
        assert (
            scales["learning rate"] == "log"
            and scales["fraction of voxels: foreground, trusted"] == "linear"
        )
        plt.close(figure)


def test_a_value_that_is_not_finite_does_not_break_the_picture(tmp_path):
    history = example()
    history.add(4, {"loss/supervised": math.nan, "learning_rate": math.inf})
    write_history_picture(history, tmp_path / "history.png")
    assert imread(tmp_path / "history.png").std() > 0.01
