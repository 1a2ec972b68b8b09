"""The doctor names what is missing and how to mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery import doctor
from semi_nnunet.discovery.doctor import Finding
from semi_nnunet.discovery.register import TRAINERS_FOLDER


@pytest.fixture(autouse=True)
def _unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_registered", lambda: False)


def test_missing_paths_are_named_with_their_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent"))
    raw, preprocessed, results = doctor.paths()
    assert raw.fix == "export nnUNet_raw=/a/folder"
    assert preprocessed.topic == "nnUNet_preprocessed"
    assert results.fix == f"mkdir -p {tmp_path / 'absent'}"
    assert main(["doctor"]) == 1
    assert "things to mend" in capsys.readouterr().out


def test_a_mistake_is_told_before_anything_that_takes_seconds_is_imported(tmp_path: Path) -> None:
    code = "import sys; from semi_nnunet.cli.main import main\n"
    code += "print(main(['doctor', '-d', '777']), {'torch', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "nnUNet_raw": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "2 set()\n" and "777" in done.stderr


def test_what_is_found_is_told_at_once() -> None:
    found = doctor.examine()
    assert next(found).topic == "versions"
    assert {"device", "nnUNet_raw", "trainers"} <= {finding.topic for finding in found}


def test_trainers_are_found_through_the_variable_or_the_register(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "semi_nnunet register" in str(doctor.trainers().fix)
    monkeypatch.setenv("nnUNet_extTrainer", f"/elsewhere:{TRAINERS_FOLDER}")
    assert doctor.trainers().fix is None
    monkeypatch.delenv("nnUNet_extTrainer")
    monkeypatch.setattr(doctor, "is_registered", lambda: True)
    assert doctor.trainers().fix is None


def test_a_data_set_that_is_not_preprocessed_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "Dataset042_New"
    write_phantom_dataset(raw, labelled=1, unlabelled=2, test=0, shape=(4, 16, 16))
    finding = doctor.dataset(raw, tmp_path / "preprocessed" / raw.name)
    assert finding.state == "1 labelled, 2 unlabelled; preprocessed: nothing"
    assert finding.fix == "semi_nnunet preprocess -d 42"


def test_a_prepared_data_set_is_well(phantom: Any) -> None:
    finding = doctor.dataset(phantom.raw, phantom.preprocessed)
    assert finding.fix is None
    assert "nnUNetPlans_2d 5+6" in finding.state


def test_only_cases_that_were_not_set_aside_are_missed(
    phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / phantom.name
    (raw / "imagesUn").mkdir(parents=True)
    (raw / "dataset.json").write_text((phantom.raw / "dataset.json").read_text())
    for number in range(7):
        (raw / f"imagesUn/{number}_0000.nii.gz").touch()
    assert doctor.dataset(raw, phantom.preprocessed).fix is not None
    monkeypatch.setattr(doctor, "set_aside", lambda _: {"6": ["is truncated"]})
    assert doctor.dataset(raw, phantom.preprocessed).fix is None


def test_a_broken_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({}))
    assert doctor.dataset(tmp_path, None).fix == "mend dataset.json"


def test_a_long_name_does_not_run_into_the_state() -> None:
    short, long = str(Finding("a", "state")), str(Finding("Dataset001_" + 20 * "x", "state"))
    assert short.index("state") == long.splitlines()[1].index("state")


def test_cases_that_nnunet_preprocessed_are_counted_and_those_set_aside_told(
    phantom: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "preprocessed" / "nnUNetPlans_2d"
    folder.mkdir(parents=True)
    for case in ("a", "b"):
        (folder / f"{case}.b2nd").touch()
        (folder / f"{case}_seg.b2nd").touch()
    assert doctor.ready_cases(folder.parent) == {"nnUNetPlans_2d": (2, 0)}
    (folder.parent / doctor.SKIPPED_FILE).write_text('{"x": ["is truncated"], "y": []}')
    assert (
        "(2 set aside, semi_skipped.json says why)"
        in doctor.dataset(phantom.raw, folder.parent).state
    )
