"""The history of epochs, and its table."""

import csv
import math
from pathlib import Path

import pytest

from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError


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


def test_a_csv_keeps_all_values_and_later_columns(tmp_path):
    history = example()
    history.write_csv(tmp_path / "history.csv")
    rows = read_csv(tmp_path / "history.csv")
    restored = [{key: float(value) for key, value in row.items() if value} for row in rows]
    assert restored == history.rows
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


def test_rows_of_a_checkpoint_are_continued():
    history = History(list(example().rows))
    history.add(4, {"loss/supervised": 0.1})
    assert len(history.rows) == 5


def test_a_csv_keeps_values_that_are_not_finite(tmp_path):
    history = example()
    history.add(4, {"loss/supervised": math.nan, "learning_rate": math.inf})
    history.write_csv(tmp_path / "history.csv")
    assert read_csv(tmp_path / "history.csv")[-1]["loss/supervised"] == "nan"
    assert math.isnan(History.read_csv(tmp_path / "history.csv").rows[-1]["loss/supervised"])


def test_no_prefix_of_a_history_is_accepted(tmp_path):
    path = tmp_path / "history.csv"
    example().write_csv(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="a complete table"):
            History.read_csv(path)
    path.write_bytes(content)
    assert History.read_csv(path).rows == example().rows
    path.write_text(content.decode().removesuffix("\n").replace('"', ""))  # of earlier versions
    assert History.read_csv(path).rows == example().rows
