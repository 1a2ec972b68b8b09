"""Records of steps, the history of epochs, its table and its picture."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.image import imread

from semi_nnunet.training.history import History, StepRecords, draw_history


def example() -> History:
    history = History()
    for epoch in range(4):
        values = {"loss/supervised": 1 / (epoch + 1), "learning_rate": 0.01 - 0.001 * epoch}
        if epoch >= 2:
            values |= {"loss/consistency": 0.1, "dice/mean": 0.5, "mask_ratio": 0.9}
        history.add(epoch, values)
    return history


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- the steps of an epoch


def test_means_equal_numpys_for_tensors_and_numbers_alike():
    records = StepRecords()
    values = np.random.default_rng(0).normal(size=50)
    for step, value in enumerate(values):
        records.add("mixed", torch.tensor(value) if step % 3 else float(value))
        records.add("tensors", torch.tensor([[value]], dtype=torch.float16))
        records.add("numbers", int(step))
    means = records.means()
    assert means["mixed"] == pytest.approx(values.mean(), abs=1e-6)
    assert means["tensors"] == pytest.approx(values.astype(np.float16).astype(float).mean())
    assert means["numbers"] == 24.5
    assert all(type(value) is float for value in means.values())


def test_means_forget_what_they_reported():
    records = StepRecords()
    records.add("loss", 1.0)
    assert records.means() == {"loss": 1.0}
    assert records.means() == {}
    records.add("loss", 3.0)
    assert records.means() == {"loss": 3.0}


def test_records_keep_no_graph():
    records = StepRecords()
    weight = torch.ones((), requires_grad=True)
    records.add("loss", weight * 2)
    assert not records._values["loss"][0].requires_grad
    assert records.means() == {"loss": 2.0}


# ---- the epochs


def test_csv_survives_the_round_trip_and_later_columns_appear(tmp_path):
    history = example()
    history.write_csv(tmp_path / "history.csv")
    rows = read_csv(tmp_path / "history.csv")
    back = [{key: float(value) for key, value in row.items() if value} for row in rows]
    assert back == history.rows
    assert rows[0]["mask_ratio"] == "" and rows[3]["mask_ratio"] == "0.9"
    assert list(rows[0]) == history.columns
    assert history.columns[:2] == ["epoch", "loss/supervised"]


def test_rows_of_a_rolled_back_run_are_replaced():
    history = example()
    history.add(2, {"loss/supervised": 7.0})
    assert [row["epoch"] for row in history.rows] == [0, 1, 2]
    assert history.rows[-1] == {"epoch": 2, "loss/supervised": 7.0}


def test_a_series_skips_the_epochs_without_it():
    assert example().series("mask_ratio") == ([3, 4], [0.9, 0.9])
    assert example().series("absent") == ([], [])


def test_rows_of_a_checkpoint_are_taken_up():
    history = History(list(example().rows))
    history.add(4, {"loss/supervised": 0.1})
    assert len(history.rows) == 5


# ---- the picture


@pytest.mark.parametrize("history", [example(), History(), History([{"epoch": 0, "odd": 1.0}])])
def test_the_picture_is_a_png(tmp_path, history):
    path = tmp_path / "history.png"
    history.write_picture(path)
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


def test_positive_losses_have_a_logarithmic_axis_and_nnunets_negative_ones_a_linear_one():
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
    history.write_picture(tmp_path / "history.png")
    history.write_csv(tmp_path / "history.csv")
    assert read_csv(tmp_path / "history.csv")[-1]["loss/supervised"] == "nan"
