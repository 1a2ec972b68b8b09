"""The phantom, with plans that train in a second."""

import os
from pathlib import Path

import pytest

from semi_nnunet.files import write_json
from semi_nnunet.runs.job import Folders
from tests.runs.tiny import TINY


@pytest.fixture
def folders(prepared_dataset, tmp_path, monkeypatch) -> Folders:
    """The phantom with plans "tiny", which train two steps; results in the test's own folder."""
    dataset = prepared_dataset("labels", 1)
    preprocessed = Path(dataset.preprocessed)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    write_json(preprocessed / "tiny.json", {**dataset.plans, "plans_name": "tiny", "semi": TINY})
    raw = Path(os.environ["nnUNet_raw"]) / preprocessed.name
    yield Folders(raw, preprocessed, tmp_path / "results" / preprocessed.name)
    for path in preprocessed.glob("tiny*.json"):
        path.unlink()
