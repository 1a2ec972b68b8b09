"""The verb, in real processes."""

from __future__ import annotations

import json
import os
import signal

import pytest

from semi_nnunet.benchmark.run import in_own_process
from semi_nnunet.cli.main import main


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def number() -> int:
    return os.getpid()


def test_a_killed_process_is_noticed_and_others_return_what_they_found() -> None:
    assert in_own_process(kill_itself) is None
    found = in_own_process(number)
    assert found is not None and found != os.getpid()


@pytest.mark.slow
def test_the_verb_measures_ours_and_nnunets(prepared_dataset, tmp_path, monkeypatch, capsys):
    dataset, out = prepared_dataset(), tmp_path / "costs.json"
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    words = ["benchmark", "-d", dataset.name, "-c", "2d", "--rounds", "2", "--device", "cpu"]
    trainers = ["-tr", "nnUNetTrainer", "SemiMeanTeacherTrainer"]
    assert main([*words, *trainers, "-o", str(out)]) == 0
    told = capsys.readouterr().out
    names = ["SemiBaselineTrainer", "nnUNetTrainer", "SemiMeanTeacherTrainer"]
    assert all(f"| {name} " in told for name in names)
    costs = json.loads(out.read_text())["costs"]
    assert [cost["trainer"] for cost in costs] == names
    assert all(cost["seconds"]["median"] > 0 and cost["alone"]["loading"] > 0 for cost in costs)


def test_mistakes_are_told_together_before_anything_is_measured(prepared_dataset, capsys):
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2D", "-tr", "SemiMeanTeacher"]
    assert main([*words, "--rounds", "1"]) == 2
    said = capsys.readouterr().err
    for part in ("'2D'", "2d", "'SemiMeanTeacher'", "SemiMeanTeacherTrainer", "--rounds"):
        assert part in said


def test_a_file_is_not_overwritten(prepared_dataset, tmp_path, capsys):
    out = tmp_path / "costs.json"
    out.write_text("before")
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2d", "-o", str(out)]
    assert main(words) == 2 and out.read_text() == "before"
    assert "remove or rename it" in capsys.readouterr().err
