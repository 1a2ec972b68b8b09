"""From a raw data set to a model, a report and an answer; mistakes are reported first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.automatic import run
from semi_nnunet.automatic.commands import AutoCommands
from semi_nnunet.automatic.run import choose_configuration
from semi_nnunet.automatic.schedule import TrainingRate, TrainingRound
from semi_nnunet.automatic.state import AutoState, RoundForecast
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.runs.local import Resources
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, read_json
from semi_nnunet.util.lock import held
from tests.automatic.test_cases import cases_of
from tests.real_slurm import said as printed_by
from tests.real_slurm import slurm  # noqa: F401
from tests.runs.tiny import wait_for
from tests.warm import warm

DATASET = "Dataset906_Auto"
RUN = """
import sys
from semi_nnunet.automatic import run
from semi_nnunet.cli.main import main
run.MOST_STEPS = 50  # an epoch
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw data set with labelled test cases."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    raw = tmp_path / "raw" / DATASET
    write_phantom_dataset(raw, labelled=4, unlabelled=4, test=3, shape=(3, 32, 32))
    return tmp_path


def auto(workspace: Path, *words: str) -> tuple[int, str]:
    """Run the verb, and return its exit code and output."""
    command = [sys.executable, "-c", RUN, "auto", "-d", "906", "--device", "cpu", *words]
    run = subprocess.run(
        warm(command, with_commands=True),
        cwd=workspace, env={**os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


def require_exported(folder: Path) -> None:
    """The predictions of all test cases and an exported model are there."""
    assert len(list((folder / "predictions").glob("*.nii.gz"))) == 3
    assert list((folder / "exported").glob("*.zip"))


def test_all_mistakes_are_reported_at_once_and_nothing_is_written(workspace: Path) -> None:
    (workspace / "file").touch()
    options = ("-tr", "SemiMeanTecherTrainer", "SemiPretrainTrainer", "-o", "file/below")
    code, output = auto(workspace, "--hours", "0", *options)
    assert code == 2 and "Traceback" not in output
    assert "above 0, got 0" in output and "did you mean" in output
    assert "segments nothing" in output and f"{workspace / 'file'} is a file" in output
    assert not list((workspace / "preprocessed").iterdir())


def test_a_dry_run_prints_commands_and_does_nothing(workspace: Path) -> None:
    code, output = auto(workspace, "--dry-run")
    assert code == 0
    verbs = re.findall(r"^semi_nnunet (\w+)", output, re.MULTILINE)
    assert verbs == ["preprocess", "plan", "preprocess", "benchmark"]
    assert "are assumed" in output and re.search(
        r"^full +\d+ \(baseline \d+\) ", output, re.MULTILINE
    )
    assert not list((workspace / "preprocessed").iterdir())


def test_a_second_launch_ends_and_names_the_first(workspace: Path) -> None:
    state = AutoState(workspace / "results" / DATASET / "semi_auto" / "2d.json", {})
    with held(state.lock):
        code, output = auto(workspace)
    assert code == 2 and f"process {os.getpid()} on " in output and "already runs" in output
    assert not list((workspace / "preprocessed").iterdir())


@pytest.mark.parametrize("name", ["README.md", "predictions/mine.nii.gz"])
def test_files_of_the_user_are_not_replaced(workspace: Path, name: str) -> None:
    file = workspace / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("# My notes")
    code, output = auto(workspace, "-o", "mine")
    assert code == 2 and "would be replaced" in output and file.read_text() == "# My notes"


def test_volumes_are_trained_in_3d_only_on_a_gpu(workspace: Path) -> None:
    folders = Folders(*(workspace / name / DATASET for name in ("raw", "preprocessed", "results")))
    assert choose_configuration(folders, "cpu") == "2d"
    assert choose_configuration(folders, "cuda") == "3d_fullres"
    flat = workspace / "raw" / "Dataset907_Flat"
    write_phantom_dataset(flat, labelled=1, unlabelled=1, test=0, shape=(1, 32, 32))
    assert choose_configuration(Folders(flat, flat, flat), "cuda") == "2d"
    for image in flat.glob("images*/*"):
        image.write_bytes(b"")
    with pytest.raises(UserError, match="_0000"):
        choose_configuration(Folders(flat, flat, flat), "cuda")


def test_where_none_can_choose_only_the_first_candidate_is_timed(
    empty: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []

    def rates(commands, trainers, resources, cases):
        requested[:] = trainers
        return dict.fromkeys(trainers, TrainingRate(1, 1, 1))

    monkeypatch.setattr(run, "measure_rates_locally", rates)
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", empty.raw)
    state = AutoState(empty.results / "state.json", {})
    candidates = ("SemiDistillationTrainer", "SemiCPSTrainer")
    auto_run = run.AutoRun(commands, state, candidates, 1.0, Resources("cpu", (), 1, 2))
    auto_run.cases = cases_of(patients=3)
    assert auto_run.measure_rates()
    assert requested == ["SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiDistillationTrainer"]
    auto_run.cases = cases_of(patients=20)
    assert auto_run.measure_rates()
    assert {*requested} == {*candidates, "SemiBaselineTrainer", "SemiMeanTeacherTrainer"}
    assert requested.index("SemiMeanTeacherTrainer") < requested.index("SemiDistillationTrainer")


@pytest.fixture
def auto_run(empty: Folders, tmp_path: Path) -> run.AutoRun:
    """A run of three candidates whose first round has ended."""
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", tmp_path / "out")
    state = AutoState(empty.results / "state.json", {})
    made = run.AutoRun(commands, state, ("A", "B", "C"), 1.0, Resources("cpu", (), 2, 1))
    made.cases = cases_of(patients=20)
    commands.out.mkdir()
    state.rounds["short"] = TrainingRound("short", ("Base", "A", "B", "C"), ("0",), 500)
    state.ranked["short"] = ["A", "B", "Base", "C"]
    return made


@pytest.mark.parametrize(
    ("dice", "kept"),
    [
        ({"A": 0.9, "B": 0.8, "Base": 0.7, "C": 0.6}, {"short", "longer", "full"}),
        ({"B": 0.9, "A": 0.8, "Base": 0.7, "C": 0.6}, {"short", "longer", "full"}),
        ({"A": 0.9, "C": 0.8, "Base": 0.7, "B": 0.6}, {"short"}),
    ],
)
def test_rounds_that_trained_others_than_the_better_half_are_forgotten(
    auto_run: run.AutoRun, dice: dict[str, float], kept: set[str]
) -> None:
    state = auto_run.state
    state.rounds["longer"] = TrainingRound("longer", ("Base", "A", "B"), ("0",), 1000)
    state.ranked["longer"] = ["B", "A", "Base"]
    state.rounds["full"] = TrainingRound("full", ("Base", "B"), ("all",), 2000)
    state.forecast["full"] = RoundForecast(4000, 60.0)
    assert (
        auto_run.choose_candidates("short", ["A", "B", "C"], dice)
        == [trainer for trainer in dice if trainer != "Base"][:2]
    )
    assert {*state.rounds} == kept and bool(state.forecast) == ("full" in kept)
    assert {*AutoState.of(state.path, {}).rounds} == kept
    if "full" in kept:  # the last round trained B
        auto_run.choose_candidates("longer", ["A", "B"], {"A": 0.9, "B": 0.8, "Base": 0.7})
        assert {*state.rounds} == {"short", "longer"} and state.notes


def test_the_time_of_trainings_in_a_queue_counts_once(
    auto_run: run.AutoRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, done = auto_run.state, [False]

    class Training:
        def __init__(self, name: str):
            self.name = name

        def __str__(self) -> str:
            return self.name

        @property
        def is_done(self) -> bool:
            return self.name == "done here before" or done[0]

    jobs: list[Any] = [Training(name) for name in ("a", "b", "c", "done here before")]
    monkeypatch.setattr(run, "read_training_seconds", lambda job: 100.0)
    with state.running():
        assert not auto_run.are_done(jobs)
    done[0] = True
    again = AutoState.of(state.path, {})
    auto_run.state = again
    for _ in range(2):
        with again.running():
            assert auto_run.are_done(jobs)
    assert 200 <= AutoState.of(state.path, {}).seconds < 210  # two of three at a time


@pytest.mark.slow
def test_one_command_ends_with_a_model_its_predictions_and_an_answer(workspace: Path) -> None:
    words = ("--hours", "5", "-tr", "SemiMeanTeacherTrainer", "-o", "exported")
    code, output = auto(workspace, *words)
    assert code == 0, output[-3000:]
    exported = workspace / "exported"
    page = (exported / "README.md").read_text(encoding="utf-8")
    answer = page.splitlines()[2]
    assert "on 3 test cases" in answer and answer in output
    ships_baseline = "full round): Baseline." in page  # 50 steps decide by chance
    assert ("`semi_nnunet export" in page) == ships_baseline
    require_exported(exported)
    chosen = read_csv(exported / "next_cases" / "next.csv")[1]
    assert len(chosen) == 4 and all(f"| {row['case']} |" in page for row in chosen)
    proposals = next(line for line in page.splitlines() if line.startswith("semi_nnunet next"))
    told = subprocess.run(
        [sys.executable, "-m", *proposals.split(), "--device", "cpu"],
        cwd=workspace, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    labels = workspace / "next_cases" / "labels"
    assert len(list(labels.glob("*.nii.gz"))) == 4
    assert "</html>" in (exported / "report.html").read_text(encoding="utf-8")
    state = workspace / "results" / DATASET / "semi_auto" / "2d.json"
    earlier = json.loads(state.read_text(encoding="utf-8"))
    assert earlier["rounds"]["full"]["steps"] == 50
    (stored,) = (workspace / "results" / DATASET / "semi_benchmark").glob("2d_*.json")
    measured = {"SemiBaselineTrainer", "SemiMeanTeacherTrainer"}
    assert set(json.loads(stored.read_text(encoding="utf-8"))["rates"]) == measured
    code, output = auto(workspace, *words)  # trains nothing again
    assert code == 0 and "2 done before" in output
    later = json.loads(state.read_text(encoding="utf-8"))
    assert later["rounds"] == earlier["rounds"] and later["seconds"] > earlier["seconds"]
    code, output = auto(workspace, "-tr", "SemiCPSTrainer")
    assert code == 2 and "other options" in output


@pytest.mark.slow
def test_on_a_cluster_the_same_command_continues_until_there_is_an_answer(
    slurm: Path,  # noqa: F811
    workspace: Path,
) -> None:
    words = ("--hours", "5", "--launcher", "slurm", "-tr", "SemiMeanTeacherTrainer", "-o", "out")
    code, output = auto(workspace, *words)
    assert code == 2 and "--device cuda (or cpu)" in output
    words += ("--device", "cpu")
    for submitted in ("time a few steps", "the full trainings"):
        code, output = auto(workspace, *words)
        assert code == 0 and submitted in output, output[-3000:]
        assert "queue is empty" in output
        wait_for(lambda: not printed_by("squeue", "-h", "-o", "%i"), 400)
    code, output = auto(workspace, *words)
    logs = "".join(
        log.read_text() for log in workspace.glob(f"results/{DATASET}/semi_crossval/*.log")
    )
    assert code == 0 and "on 3 test cases" in output, output[-3000:] + logs
    require_exported(workspace / "out")
    state = read_json(workspace / "results" / DATASET / "semi_auto" / "2d.json")
    assert set(state["rates"]) == {"SemiBaselineTrainer", "SemiMeanTeacherTrainer"}


@pytest.mark.slow
def test_on_ray_one_command_ends_with_an_answer(workspace: Path) -> None:
    pytest.importorskip("ray")
    words = ("--hours", "5", "--launcher", "ray", "-tr", "SemiMeanTeacherTrainer", "-o", "out")
    code, output = auto(workspace, *words)
    assert code == 0 and "on 3 test cases" in output, output[-3000:]
    require_exported(workspace / "out")
    code, output = auto(workspace, *words)  # trains nothing again
    assert code == 0 and "2 done before" in output, output[-3000:]
