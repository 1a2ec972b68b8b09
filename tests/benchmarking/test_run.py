"""The verb benchmark in real processes, and its table."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.benchmarking import run
from semi_nnunet.benchmarking.kept import Kept
from semi_nnunet.benchmarking.run import combine_costs, describe_costs, run_in_new_process
from semi_nnunet.benchmarking.steps import FLOOR, MemoryAndLoading, StepTimes
from semi_nnunet.benchmarking.work import STOCK, TOO_LARGE, Work
from semi_nnunet.cli.main import main
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import Seconds


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def return_process() -> int:
    return os.getpid()


def test_a_killed_process_is_noticed_and_others_return_their_result() -> None:
    assert run_in_new_process(kill_itself) is None
    process = run_in_new_process(return_process)
    assert process is not None and process != os.getpid()


@pytest.mark.parametrize("first", ["killed", "too large"])
def test_trainers_that_need_too_much_memory_are_timed_separately(first, monkeypatch) -> None:
    work, messages = Work("Dataset001_A", "2d", "P", "cpu", 1, 2), list[str]()
    second, too_large = Seconds(1.0, 1.0, 1.0), {"B": TOO_LARGE, "C": "is no trainer"}

    def run_task(task):
        names = task.args[1]
        if names == ["A", "B", "C"]:
            return None if first == "killed" else StepTimes({"A": second}, refused=too_large)
        return None if names == ["C"] else StepTimes({names[0]: second})

    monkeypatch.setattr(run, "run_in_new_process", run_task)
    monkeypatch.setattr(run.logger, "warning", messages.append)
    times = run.time_together_or_separately(work, ["A", "B", "C"], True)
    assert times.seconds == {"A": second, "B": second}
    assert times.refused == {"C": run.KILLED if first == "killed" else "is no trainer"}
    assert len(messages) == (3 if first == "killed" else 1)


def test_a_quick_benchmark_measures_in_one_process_and_stores_the_rates(
    prepared_dataset, tmp_path, monkeypatch
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    dataset = prepared_dataset()

    def run_here(task):
        calls.append(task)
        return task()

    calls = list[object]()
    monkeypatch.setattr(run, "run_in_new_process", run_here)
    measured = semi_nnunet.benchmark(
        dataset.name, "2d", trainers=["SemiMeanTeacherTrainer"], device="cpu", threads=1, steps=2,
        quick=True,
    )  # fmt: skip
    assert len(calls) == 1 and measured.case and len(measured.costs) == 2
    work = Work(dataset.name, "2d", "nnUNetPlans", "cpu", 1, 9)
    stored = Kept.of(find_folders(dataset.name), work)
    assert stored.rates == measured.rates()
    assert {*stored.rates} == {cost.trainer for cost in measured.costs}
    assert stored.rates["SemiMeanTeacherTrainer"].step == measured.costs[1].seconds.median


@pytest.mark.slow
def test_the_verb_measures_our_trainers_and_nnunets(
    prepared_dataset, tmp_path, monkeypatch, capsys
):
    dataset, out = prepared_dataset(), tmp_path / "costs.json"
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    words = ["benchmark", "-d", dataset.name, "-c", "2d", "--steps", "2", "--device", "cpu"]
    trainers = ["-tr", "nnUNetTrainer", "SemiMeanTeacherTrainer"]
    assert main([*words, *trainers, "-o", str(out)]) == 0
    page = capsys.readouterr().out
    names = ["SemiBaselineTrainer", "nnUNetTrainer", "SemiMeanTeacherTrainer"]
    assert all(f"| {name} " in page for name in names)
    costs = json.loads(out.read_text())["costs"]
    assert [cost["trainer"] for cost in costs] == names
    assert all(cost["seconds"]["median"] > 0 and cost["alone"]["loading"] > 0 for cost in costs)


def test_mistakes_are_reported_together_before_anything_is_measured(
    prepared_dataset, tmp_path, capsys
):
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2D", "-tr", "SemiMeanTeacher"]
    words += ["--steps", "1", "--threads", "0", "-o", str(tmp_path / "absent" / "costs.json")]
    assert main(words) == 2
    message = capsys.readouterr().err
    for text in ("'2D'", "2d", "'SemiMeanTeacher'", "SemiMeanTeacherTrainer", "--steps"):
        assert text in message
    assert "--threads" in message and "absent" in message


def test_an_absent_data_set_is_reported_with_the_other_mistakes(prepared_dataset) -> None:
    dataset = prepared_dataset()
    for name, plans in (("Dataset777_Absent", "nnUNetPlans"), (dataset.name, "Absent")):
        with pytest.raises(UserError) as error:
            semi_nnunet.benchmark(name, "2d", plans=plans, trainers=["NoTrainer"], steps=0)
        places = " ".join(map(str, error.value.problems))
        assert all(word in places for word in ("Absent", "'NoTrainer'", "steps"))


@pytest.mark.parametrize("create", [Path.touch, Path.mkdir])
def test_nothing_is_overwritten(create, prepared_dataset, tmp_path, capsys):
    create(out := tmp_path / "costs.json")
    words = ["benchmark", "-d", prepared_dataset().name, "-c", "2d", "-o", str(out)]
    assert main(words) == 2 and not (out.is_file() and out.stat().st_size)
    assert "costs.json" in capsys.readouterr().err


@pytest.fixture
def measured():
    times = StepTimes(
        {
            FLOOR: Seconds(0.1, 0.09, 0.11),
            BASELINE: Seconds(0.104, 0.1, 0.11),
            STOCK: Seconds(0.11, 0.1, 0.12),
            "SemiMeanTeacherTrainer": Seconds(0.245, 0.24, 0.25),
        },
        {FLOOR: 3e9, BASELINE: 3e9, "SemiMeanTeacherTrainer": 7e9},
        refused={"SemiCPSTrainer": "too little memory"},
        patches={BASELINE: 2, STOCK: 2, "SemiMeanTeacherTrainer": 4},
        starts={BASELINE: 3.0, STOCK: 2.0, "SemiMeanTeacherTrainer": 4.0},
        case=12.0,
    )
    separate = {
        BASELINE: MemoryAndLoading(1000.0, 0.05),
        STOCK: MemoryAndLoading(refused="killed"),
        "SemiMeanTeacherTrainer": MemoryAndLoading(1100.0, 0.1),
    }
    names = [BASELINE, STOCK, "SemiMeanTeacherTrainer", "SemiCPSTrainer"]
    return combine_costs(Work("Dataset004_A", "2d", "P", "cpu", 1, 9), names, times, separate)


def test_ratios_are_to_the_baseline_and_to_the_passes(measured) -> None:
    page = list(describe_costs(measured))
    rows = {line.split("|")[1].strip(): line for line in page if line.startswith("| ")}
    cells = [cell.strip() for cell in rows["SemiMeanTeacherTrainer"].split("|")[1:-1]]
    assert cells == [
        *("SemiMeanTeacherTrainer", "245.0", "240.0 to 250.0", "2.36", "2.33", "1.05"),
        *("16.3", "100.0", "1100", "1.10"),
    ]
    stock = [cell.strip() for cell in rows[STOCK].split("|")[1:-1]]
    assert stock == [STOCK, "110.0", "100.0 to 120.0", "1.06", "-", "-", "18.2", *"---"]
    assert page[-2:] == ["SemiCPSTrainer: too little memory", f"{STOCK}: killed"]
    assert any("backward pass: 100.0 ms" in line for line in page)
    assert any("mirrored: 12.0 s" in line for line in page)
    assert len({len(line) for line in page if line.startswith("|")}) == 1


def test_json_holds_all_measurements(measured) -> None:
    content = json.loads(json.dumps(measured.as_json()))
    assert (
        content["costs"][2]["seconds"]["median"] == 0.245 and content["floor"]["operations"] == 3e9
    )
    assert content["costs"][2]["patches_per_second"] == pytest.approx(4 / 0.245)
    assert (
        content["floor"]["patches"] is None
        and content["machine"]["torch"]
        and content["work"]["configuration"] == "2d"
    )
