"""A data set is looked at up to where a training begins, and the next command is named."""

from __future__ import annotations

import shutil

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.util.errors import UserError
from semi_nnunet.workflows.before_start import examine_dataset


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr("semi_nnunet.workflows.next_step.detect_device", lambda: "cpu")


def test_raw_images_need_preprocessing(tmp_path, monkeypatch, capsys):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    raw = tmp_path / "raw" / "Dataset042_New"
    write_phantom_dataset(raw, labelled=1, unlabelled=2, test=0, shape=(4, 16, 16))
    assert main(["doctor", "-d", "42"]) == 1
    output = capsys.readouterr().out
    assert "1 labelled, 2 unlabelled; preprocessed: nothing" in output
    assert output.endswith("next: semi_nnunet preprocess -d 42\n")
    with pytest.raises(UserError, match="43"):
        examine_dataset("43")


def test_plans_copied_by_hand_are_named(folders):
    shutil.copyfile(folders.preprocessed / "tiny.json", folders.preprocessed / "tiny_mine.json")
    findings, _ = examine_dataset(folders.raw.name)
    (finding,) = (finding for finding in findings if finding.fix is not None)
    assert finding.state == "'plans_name' must be 'tiny_mine', got 'tiny'"
    assert finding.fix == 'write "plans_name": "tiny_mine" into it'


def test_files_that_changed_after_preprocessing_are_named(folders, tmp_path, monkeypatch):
    name = folders.raw.name
    for root in ("raw", "preprocessed"):
        copy = tmp_path / root / name
        shutil.copytree(getattr(folders, root), copy)
        monkeypatch.setenv(f"nnUNet_{root}", str(copy.parent))
    assert all(finding.fix is None for finding in examine_dataset(name)[0])
    label = min((tmp_path / "raw" / name / "labelsTr").iterdir())
    label.write_bytes(label.read_bytes() + b"\0")
    findings, following = examine_dataset(name)
    (finding,) = (finding for finding in findings if finding.fix is not None)
    assert finding.state.startswith("1 case changed since preprocessing")
    assert following == [finding.fix] == [f"semi_nnunet preprocess -d {name}"]


def test_ready_data_are_trained_and_missing_data_are_preprocessed(folders, tmp_path, monkeypatch):
    name = folders.raw.name
    findings, following = examine_dataset(name)
    assert all(finding.fix is None for finding in findings)
    assert any("ready to train: " in finding.state for finding in findings)
    assert following[-1].startswith(f"nnUNetv2_train {name} ")
    assert following[-1].endswith(" -device cpu")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    copy = tmp_path / "preprocessed" / name
    shutil.copytree(folders.preprocessed, copy, ignore=shutil.ignore_patterns("*_2d*", "*_3d*"))
    findings, (command,) = examine_dataset(name)
    assert findings[-1].state.endswith("is not preprocessed")
    assert command.startswith(f"semi_nnunet preprocess -d {int(name[7:10])}")
