"""The verb, in real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.benchmarking.run import in_own_process
from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError


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


def test_mistakes_are_told_together_before_anything_is_measured(prepared_dataset, tmp_path, capsys):
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2D", "-tr", "SemiMeanTeacher"]
    words += ["--rounds", "1", "--threads", "0", "-o", str(tmp_path / "absent" / "costs.json")]
    assert main(words) == 2
    said = capsys.readouterr().err
    for part in ("'2D'", "2d", "'SemiMeanTeacher'", "SemiMeanTeacherTrainer", "--rounds"):
        assert part in said
    assert "--threads" in said and "absent is no folder that exists" in said


def test_a_data_set_that_is_not_there_is_told_with_the_other_mistakes(prepared_dataset) -> None:
    dataset = prepared_dataset()
    for name, plans in (("Dataset777_Absent", "nnUNetPlans"), (dataset.name, "Absent")):
        with pytest.raises(UserError) as told:
            semi_nnunet.benchmark(name, "2d", plans=plans, trainers=["Nobody"], rounds=0)
        said = str(told.value)
        assert "Absent" in said and "'Nobody'" in said and "--rounds" in said


@pytest.mark.parametrize("made", [Path.touch, Path.mkdir])
def test_nothing_is_overwritten(made, prepared_dataset, tmp_path, capsys):
    made(out := tmp_path / "costs.json")
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2d", "-o", str(out)]
    assert main(words) == 2 and not (out.is_file() and out.stat().st_size)
    said = capsys.readouterr().err
    assert "must name a new file" in said or "but it is a folder" in said
