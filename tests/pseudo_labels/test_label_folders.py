"""Pseudo labels lie with the preprocessed data and are reused."""

from __future__ import annotations

import os
from pathlib import Path

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.label_folders import (
    locate_completed_labels,
    locate_model_labels,
    locate_pool_labels,
)


def test_labels_lie_with_the_preprocessed_data(raw: Path, pool) -> None:
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    assert locate_pool_labels(raw) == preprocessed / "pseudo_labels"
    assert locate_completed_labels(raw) == preprocessed / "completed_labels"
    mine, views = (
        locate_model_labels(raw, pool.names, []),
        locate_model_labels(raw, pool.names, ["flips"]),
    )
    assert mine.parent == views.parent == preprocessed / "pseudo_labels" and mine != views
    old_folder = raw.with_name(f"pseudo_labels_{raw.name}")  # of version 0.2.0, perhaps interrupted
    old_folder.mkdir()
    assert locate_pool_labels(raw) == old_folder


def test_labels_of_select_are_reused(raw: Path, pool, capfd, tmp_path: Path) -> None:
    folders = {path.name for path in raw.parent.iterdir()}
    models = ["-m", *pool.names, "--device", "cpu"]
    page = ["-o", str(tmp_path / "page.html"), "--keep", "0.5"]
    assert main(["select", "-d", raw.name, *models, *page]) == 0
    capfd.readouterr()
    assert main(["pseudo-dataset", "-d", raw.name, "--new-id", "77", "-np", "1", *models]) == 0
    output = capfd.readouterr().out
    assert "taken from" in output and "0 shards to do" in output
    new_folders = {path.name for path in raw.parent.iterdir()} - folders
    assert {name[:10] for name in new_folders} == {"Dataset077"}
    assert (
        main(
            [
                "pseudo-dataset",
                "-d",
                raw.name,
                "--new-id",
                "78",
                "-np",
                "1",
                *models,
                "--views",
                "flips",
            ]
        )
        == 0
    )
    assert "taken from" not in capfd.readouterr().out
