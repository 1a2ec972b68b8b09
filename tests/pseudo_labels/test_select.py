"""The surest images are selected, shown, and trained on alone until the selection is undone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.errors import UserError
from semi_nnunet.files import read_json, write_json
from semi_nnunet.pseudo_labels.gallery import histogram


@pytest.fixture
def dataset(pool, prepared_dataset, tmp_path, monkeypatch) -> Path:
    """The phantom, raw and preprocessed, in folders of the test's own; the preprocessed one."""
    made = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        shutil.copytree(getattr(made, name), tmp_path / name / made.raw.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "preprocessed" / made.raw.name


def test_what_is_selected_is_what_trainings_use(dataset, pool, make_trainer, capfd):
    words = ["select", "-d", dataset.name, "-m", *pool.names, "--device", "cpu"]
    assert main([*words, "--score", "disagreement", "--keep", "2"]) == 0
    assert "2 of 4 unlabelled images are selected" in capfd.readouterr().out
    chosen = read_json(dataset / "semi_selected.json")["cases"]
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    assert trainer.unlabelled_cases() == chosen and len(chosen) == 2
    page = Path("selection.html").read_text()
    assert "2 of 4 unlabelled images selected" in page
    assert page.count("<figure") == 4 and page.count(", left out</figcaption>") == 2
    assert page.count("data:image/png;base64,") == 8 and not re.search(r'src="(?!data:)', page)
    assert main(["select", "-d", dataset.name, "--undo"]) == 0
    assert len(make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()) == 4


def test_a_selection_of_other_cases_is_no_silent_empty_pool(dataset, make_trainer):
    write_json(dataset / "semi_selected.json", {"cases": ["gone"]})
    with pytest.raises(UserError, match=r"none of the 1 cases .* select --undo"):
        make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()


def test_models_are_asked_for(dataset, capsys):
    assert main(["select", "-d", dataset.name]) == 2
    assert "select needs models" in capsys.readouterr().err


def test_the_histogram_tells_kept_from_dropped():
    bars = histogram([0.1, 0.1, 0.2, 0.9], limit=0.3)
    assert bars[0][1] == 1.0 and bars[0][2] and not bars[-1][2]
