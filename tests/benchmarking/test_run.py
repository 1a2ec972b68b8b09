"""The verb, in real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.benchmarking import run
from semi_nnunet.benchmarking.kept import Kept
from semi_nnunet.benchmarking.run import in_own_process
from semi_nnunet.benchmarking.steps import Times
from semi_nnunet.benchmarking.work import TOO_LARGE, Work
from semi_nnunet.cli.main import main
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import Seconds


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def number() -> int:
    return os.getpid()


def test_a_killed_process_is_noticed_and_others_return_what_they_found() -> None:
    assert in_own_process(kill_itself) is None
    found = in_own_process(number)
    assert found is not None and found != os.getpid()


@pytest.mark.parametrize("first", ["killed", "too large"])
def test_what_is_too_large_beside_others_is_timed_alone(first, monkeypatch) -> None:
    work, told = Work("Dataset001_A", "2d", "P", "cpu", 1, 2), list[str]()
    one, too_large = Seconds(1.0, 1.0, 1.0), {"B": TOO_LARGE, "C": "is no trainer"}

    def instead(part):
        names = part.args[1]
        if names == ["A", "B", "C"]:
            return None if first == "killed" else Times({"A": one}, refused=too_large)
        return None if names == ["C"] else Times({names[0]: one})

    monkeypatch.setattr(run, "in_own_process", instead)
    times = run.time_beside_or_alone(work, ["A", "B", "C"], True, told.append)
    assert times.seconds == {"A": one, "B": one}
    assert times.refused == {"C": run.KILLED if first == "killed" else "is no trainer"}
    assert len(told) == (3 if first == "killed" else 1)


def test_quick_measures_in_one_process_and_keeps_it(prepared_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    dataset = prepared_dataset()

    def here(part):
        pids.append(1)
        return part()

    pids = list[int]()
    monkeypatch.setattr(run, "in_own_process", here)
    measured = semi_nnunet.benchmark(
        dataset.name, "2d", trainers=["SemiMeanTeacherTrainer"], device="cpu", threads=1, rounds=2,
        quick=True,
    )  # fmt: skip
    assert len(pids) == 1 and measured.case and len(measured.costs) == 2
    work = Work(dataset.name, "2d", "nnUNetPlans", "cpu", 1, 9)
    kept = Kept.of(find_folders(dataset.name), work)
    assert kept.rates == measured.rates() and set(kept.rates) == {c.trainer for c in measured.costs}
    assert kept.rates["SemiMeanTeacherTrainer"].step == measured.costs[1].seconds.median


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
    assert "--threads" in said and "absent" in said


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
    assert "must name a new file" in said or "is a folder" in said
