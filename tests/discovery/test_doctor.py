"""The doctor reports what is missing and how to fix it."""

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
    monkeypatch.setattr(doctor, "find_startup_files", lambda: [])
    monkeypatch.setattr(doctor, "find_file_in_nnunet", lambda: None)


def test_missing_folders_are_reported_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent"))
    raw, preprocessed, results = doctor.check_folders()
    assert raw.fix == "export nnUNet_raw=/a/folder"
    assert preprocessed.topic == "nnUNet_preprocessed"
    assert results.fix == f"mkdir -p {tmp_path / 'absent'}"
    assert main(["doctor"]) == 1
    assert "things to fix" in capsys.readouterr().out


def test_a_wrong_name_is_reported_before_slow_imports(tmp_path: Path) -> None:
    code = "import sys; from semi_nnunet.cli.main import main\n"
    code += "print(main(['doctor', '-d', '777']), {'torch', 'matplotlib'} & {*sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "nnUNet_raw": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout == "2 set()\n" and "777" in process.stderr


def test_the_first_finding_needs_no_other_check() -> None:
    findings = doctor.examine()
    assert next(findings).topic == "versions"
    assert {"device", "nnUNet_raw", "trainers"} <= {finding.topic for finding in findings}


def test_trainers_are_found_through_the_variable_or_the_startup_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "semi_nnunet register" in str(doctor.check_trainers().fix)
    monkeypatch.setenv("nnUNet_extTrainer", f"/elsewhere:{TRAINERS_FOLDER}")
    assert doctor.check_trainers().fix is None
    monkeypatch.delenv("nnUNet_extTrainer")
    monkeypatch.setattr(doctor, "find_startup_files", lambda: [tmp_path / "semi_nnunet.pth"])
    finding = doctor.check_trainers()
    assert finding.fix is None and str(tmp_path) in finding.state


def test_a_file_of_an_earlier_version_in_nnunets_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "find_file_in_nnunet", lambda: tmp_path / "semi_nnunet_shim.py")
    finding = doctor.check_trainers()
    assert finding.fix == "semi_nnunet register" and "semi_nnunet_shim.py" in finding.state


def test_a_data_set_that_is_not_preprocessed_is_reported(tmp_path: Path) -> None:
    raw = tmp_path / "Dataset042_New"
    write_phantom_dataset(raw, labelled=1, unlabelled=2, test=0, shape=(4, 16, 16))
    finding = doctor.dataset(raw, tmp_path / "preprocessed" / raw.name)
    assert finding.state == "1 labelled, 2 unlabelled; preprocessed: nothing"
    assert finding.fix == "semi_nnunet preprocess -d 42"


def test_a_preprocessed_data_set_needs_no_fix(phantom: Any) -> None:
    finding = doctor.dataset(phantom.raw, phantom.preprocessed)
    assert finding.fix is None
    assert "nnUNetPlans_2d 5+6" in finding.state


def test_cases_that_were_skipped_are_not_missed(
    phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / phantom.name
    (raw / "imagesUn").mkdir(parents=True)
    (raw / "dataset.json").write_text((phantom.raw / "dataset.json").read_text())
    for number in range(7):
        (raw / f"imagesUn/{number}_0000.nii.gz").touch()
    assert doctor.dataset(raw, phantom.preprocessed).fix is not None
    monkeypatch.setattr(doctor, "read_skipped_cases", lambda _: {"6": ["is truncated"]})
    assert doctor.dataset(raw, phantom.preprocessed).fix is None


def test_a_broken_description_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({}))
    assert doctor.dataset(tmp_path, None).fix == "correct dataset.json"


def test_odd_data_sets_do_not_keep_others_from_being_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    for number, text in enumerate(("[]", '{"file_ending": null}', '{"file_ending": ".png"}', "{")):
        folder = raw / f"Dataset00{number}_Odd"
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(text)
        (preprocessed / folder.name).mkdir(parents=True)
        (preprocessed / folder.name / "semi_skipped.json").write_text("{")
    (raw / "Dataset009_Download.zip").touch()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    findings = list(doctor.check_datasets())
    assert [finding.topic for finding in findings] == [f"Dataset00{n}_Odd" for n in range(4)]
    assert all(finding.fix for finding in findings)
    assert "semi_skipped.json" in findings[2].state


def test_the_state_follows_a_long_name_on_the_next_line() -> None:
    short, long = str(Finding("a", "state")), str(Finding("Dataset001_" + 20 * "x", "state"))
    assert short.index("state") == long.splitlines()[1].index("state")


def test_cases_that_nnunet_preprocessed_or_we_skipped_are_counted(
    phantom: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "preprocessed" / "nnUNetPlans_2d"
    folder.mkdir(parents=True)
    for case in ("a", "b"):
        (folder / f"{case}.b2nd").touch()
        (folder / f"{case}_seg.b2nd").touch()
    assert doctor.count_preprocessed(folder.parent) == {"nnUNetPlans_2d": (2, 0)}
    (folder.parent / doctor.SKIPPED_FILE).write_text('{"x": ["is truncated"], "y": []}')
    state = doctor.dataset(phantom.raw, folder.parent).state
    assert "2 skipped" in state and "semi_skipped.json" in state
