"""From a raw data set to a model, a report and an answer; mistakes are told before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.automatic import run
from semi_nnunet.automatic.commands import Commands
from semi_nnunet.automatic.run import configuration_for
from semi_nnunet.automatic.schedule import Rate
from semi_nnunet.automatic.state import State
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.launching import Launcher
from semi_nnunet.runs.local import Resources
from semi_nnunet.util.files import read_json
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
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw data set with labelled test cases."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    raw = tmp_path / "raw" / DATASET
    write_phantom_dataset(raw, labelled=4, unlabelled=4, test=3, shape=(3, 32, 32))
    return tmp_path


def auto(place: Path, *words: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    command = [sys.executable, "-c", RUN, "auto", "-d", "906", "--device", "cpu", *words]
    done = subprocess.run(
        warm(command, with_commands=True),
        cwd=place, env={**os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def require_shipped(folder: Path) -> None:
    """The predictions of all test cases and an exported model are there."""
    assert len(list((folder / "predictions").glob("*.nii.gz"))) == 3
    assert list((folder / "exported").glob("*.zip"))


def test_all_mistakes_are_told_at_once_and_nothing_is_written(place: Path) -> None:
    (place / "file").touch()
    wrong = ("-tr", "SemiMeanTecherTrainer", "SemiPretrainTrainer", "-o", "file/below")
    code, said = auto(place, "--hours", "0", *wrong)
    assert code == 2 and "Traceback" not in said
    assert "must be above 0, got 0.0" in said and "did you mean" in said
    assert "segments nothing" in said and f"{place / 'file'} is a file" in said
    assert not list((place / "preprocessed").iterdir())


def test_a_dry_run_prints_commands_and_does_nothing(place: Path) -> None:
    code, said = auto(place, "--dry-run")
    assert code == 0
    verbs = re.findall(r"^semi_nnunet (\w+)", said, re.MULTILINE)
    assert verbs == ["preprocess", "plan", "preprocess", "benchmark"]
    assert not list((place / "preprocessed").iterdir())


def test_a_second_launch_ends_and_names_the_first(place: Path) -> None:
    state = State(place / "results" / DATASET / "semi_auto" / "2d.json", {})
    with held(state.lock):
        code, said = auto(place)
    assert (
        code == 2 and f"process {os.getpid()} on " in said and "is at this choice already" in said
    )
    assert not list((place / "preprocessed").iterdir())


def test_volumes_are_trained_in_3d_on_a_gpu_alone(place: Path) -> None:
    folders = Folders(*(place / name / DATASET for name in ("raw", "preprocessed", "results")))
    assert configuration_for(folders, "cpu") == "2d"
    assert configuration_for(folders, "cuda") == "3d_fullres"
    flat = place / "raw" / "Dataset907_Flat"
    write_phantom_dataset(flat, labelled=1, unlabelled=1, test=0, shape=(1, 32, 32))
    assert configuration_for(Folders(flat, flat, flat), "cuda") == "2d"


def test_where_none_can_choose_only_the_first_candidate_is_timed(
    empty: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def rates(commands, trainers, resources, cases):
        asked[:] = trainers
        return dict.fromkeys(trainers, Rate(1, 1, 1))

    monkeypatch.setattr(run, "rates_here", rates)
    commands = Commands(empty, "2d", Launcher(), "cpu", empty.raw)
    state = State(empty.results / "state.json", {})
    candidates = ("SemiDistillationTrainer", "SemiCPSTrainer")
    choice = run.Choice(commands, state, candidates, 1.0, Resources("cpu", (), 1, 2))
    choice.cases = cases_of(patients=3)
    assert choice.measured()
    assert asked == ["SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiDistillationTrainer"]
    choice.cases = cases_of(patients=20)
    assert choice.measured()
    assert {*asked} == {*candidates, "SemiBaselineTrainer", "SemiMeanTeacherTrainer"}
    assert asked.index("SemiMeanTeacherTrainer") < asked.index("SemiDistillationTrainer")


@pytest.mark.slow
def test_one_command_ends_with_a_model_its_predictions_and_an_answer(place: Path) -> None:
    words = ("--hours", "5", "-tr", "SemiMeanTeacherTrainer", "-o", "shipped")
    code, said = auto(place, *words)
    assert code == 0, said[-3000:]
    shipped = place / "shipped"
    page = (shipped / "README.md").read_text(encoding="utf-8")
    answer = page.splitlines()[2]
    assert "on 3 test cases that did not choose it" in answer and answer in said
    assert "SemiMeanTeacherTrainer is kept, too; this exports it: `semi_nnunet export" in page
    require_shipped(shipped)
    assert "</html>" in (shipped / "report.html").read_text(encoding="utf-8")
    state = place / "results" / DATASET / "semi_auto" / "2d.json"
    before = json.loads(state.read_text(encoding="utf-8"))
    assert before["rounds"]["full"]["steps"] == 50
    (kept,) = (place / "results" / DATASET / "semi_benchmark").glob("2d_*.json")
    measured = {"SemiBaselineTrainer", "SemiMeanTeacherTrainer"}
    assert set(json.loads(kept.read_text(encoding="utf-8"))["rates"]) == measured
    code, said = auto(place, *words)  # trains nothing again
    assert code == 0 and "2 done before" in said
    after = json.loads(state.read_text(encoding="utf-8"))
    assert after["rounds"] == before["rounds"] and after["seconds"] > before["seconds"]
    code, said = auto(place, "-tr", "SemiCPSTrainer")
    assert code == 2 and "was begun with other options" in said


@pytest.mark.slow
def test_on_a_cluster_the_same_command_goes_on_until_there_is_an_answer(
    slurm: Path,  # noqa: F811
    place: Path,
) -> None:
    words = ("--hours", "5", "--launcher", "slurm", "-tr", "SemiMeanTeacherTrainer", "-o", "out")
    for submitted in ("time a few steps", "the full trainings"):
        code, said = auto(place, *words)
        assert code == 0 and submitted in said, said[-3000:]
        assert "next: when the cluster's queue is empty, the same command again" in said
        wait_for(lambda: not printed_by("squeue", "-h", "-o", "%i"), 400)
    code, said = auto(place, *words)
    logs = "".join(log.read_text() for log in place.glob(f"results/{DATASET}/semi_crossval/*.log"))
    assert code == 0 and "on 3 test cases that did not choose it" in said, said[-3000:] + logs
    require_shipped(place / "out")
    state = read_json(place / "results" / DATASET / "semi_auto" / "2d.json")
    assert set(state["rates"]) == {"SemiBaselineTrainer", "SemiMeanTeacherTrainer"}


@pytest.mark.slow
def test_on_ray_one_command_ends_with_an_answer(place: Path) -> None:
    pytest.importorskip("ray")
    words = ("--hours", "5", "--launcher", "ray", "-tr", "SemiMeanTeacherTrainer", "-o", "out")
    code, said = auto(place, *words)
    assert code == 0 and "on 3 test cases that did not choose it" in said, said[-3000:]
    require_shipped(place / "out")
    code, said = auto(place, *words)  # trains nothing again
    assert code == 0 and "2 done before" in said, said[-3000:]
