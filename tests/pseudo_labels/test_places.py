"""Labels of models lie beside what was preprocessed, and are made once."""

from __future__ import annotations

import os
from pathlib import Path

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.places import completed_labels, labelled_by, labelled_pool


def test_nothing_lies_among_the_data_sets(raw: Path, pool) -> None:
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    assert labelled_pool(raw) == preprocessed / "pseudo_labels"
    assert completed_labels(raw) == preprocessed / "completed_labels"
    mine, views = labelled_by(raw, pool.names, []), labelled_by(raw, pool.names, ["flips"])
    assert mine.parent == views.parent == preprocessed / "pseudo_labels" and mine != views
    before = raw.with_name(f"pseudo_labels_{raw.name}")  # of version 0.2.0, perhaps interrupted
    before.mkdir()
    assert labelled_pool(raw) == before


def test_what_select_labelled_is_not_labelled_again(raw: Path, pool, capfd, tmp_path: Path) -> None:
    folders = {path.name for path in raw.parent.iterdir()}
    models = ["-m", *pool.names, "--device", "cpu"]
    page = ["--page", str(tmp_path / "page.html"), "--keep", "0.5"]
    assert main(["select", "-d", raw.name, *models, *page]) == 0
    capfd.readouterr()
    assert main(["distil", "-d", raw.name, "-o", "77", "-np", "1", *models]) == 0
    said = capfd.readouterr().out
    assert "taken from" in said and "0 shards to do" in said
    made = {path.name for path in raw.parent.iterdir()} - folders
    assert {name[:10] for name in made} == {"Dataset077"}
    assert (
        main(["distil", "-d", raw.name, "-o", "78", "-np", "1", *models, "--views", "flips"]) == 0
    )
    assert "taken from" not in capfd.readouterr().out
