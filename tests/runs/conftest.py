"""The phantom, with plans that train in a second."""

import pytest

from semi_nnunet.runs.folders import Folders
from tests.runs.tiny import with_tiny_plans


@pytest.fixture
def folders(prepared_dataset, tmp_path, monkeypatch) -> Folders:
    """The phantom with plans "tiny"; results in the test's own folder."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    yield from with_tiny_plans(prepared_dataset("labels", 1), tmp_path / "results")
