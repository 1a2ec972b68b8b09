"""Trainings on a real SLURM: requeued when their time is up, second stages after first ones."""

from __future__ import annotations

import re
import sys

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import build_batch_script, submit_script
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.crossval import make_jobs
from tests.real_slurm import said, slurm  # noqa: F401
from tests.runs.jobs import STAGES
from tests.runs.tiny import TINY, wait_for

EPOCHS = 12  # enough to be interrupted
TRAINER = "SemiMeanTeacherTrainer"


def interrupt(number: str, way: str) -> None:
    """Send what SLURM sends at --signal=B:USR1, or requeue as an administrator or a lost node."""
    if way == "asked":
        said("scancel", "--signal=USR1", "--batch", f"{number}_0")
    else:
        said("scontrol", "requeue", f"{number}_0")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["asked", "requeued"])
def test_an_interrupted_training_is_requeued_and_continues(way, slurm, folders, capsys):  # noqa: F811
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": EPOCHS}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0"]
    words += ["-tr", "SemiBaselineTrainer", "--device", "cpu"]
    assert main([*words, "--launcher", "slurm", "--sbatch=--time=1:00:00"]) == 0
    number = capsys.readouterr().out.split("as array ")[1].split(",")[0]
    job = Job(folders, "SemiBaselineTrainer", "2d", "0", 0, "tiny")
    wait_for((job.folder / "checkpoint_latest.pth").is_file, 240)
    interrupt(number, way)
    wait_for(lambda: "PENDING" in said("squeue", "-h", "-r", "-o", "%T"), 60)
    epochs = len(job.history().rows)
    assert 0 < epochs < EPOCHS and not job.is_trained
    wait_for(lambda: job.is_trained, 300)
    wait_for(lambda: not said("squeue", "-h", "-o", "%i"), 300)
    log = next((folders.results / "semi_crossval").glob("*.log")).read_text()
    assert [row["epoch"] for row in job.history().rows] == list(range(EPOCHS))
    assert job.log.read_text().count("Loaded ") >= 1, log


@pytest.mark.slow
def test_second_stages_start_when_first_stages_have_ended(slurm, cascade, capsys):  # noqa: F811
    words = ["crossval", "-d", cascade.raw.name, "-p", "tiny", "-f", "all", "-c", *STAGES]
    words += ["-tr", TRAINER, "--device", "cpu", "--launcher", "slurm"]
    assert main(words) == 0
    match = re.search(r"squeue -j (\d+),(\d+)", capsys.readouterr().out)
    assert match is not None
    first, second = make_jobs(cascade, "tiny", STAGES, [TRAINER], ["all"], 1)
    wait_for(lambda: "Dependency" in said("squeue", "-h", "-j", match[2], "-o", "%r"))
    assert not second.folder.exists()
    wait_for(lambda: not said("squeue", "-h", "-o", "%i"), 400)
    logs = "".join(log.read_text() for log in (cascade.results / "semi_crossval").glob("*.log"))
    assert first.is_done and second.is_done, logs
    assert first.log.stat().st_mtime <= second.log.stat().st_mtime


@pytest.mark.slow
def test_logs_lie_in_a_folder_with_a_space_and_signs_of_sbatchs_own(slurm, tmp_path):  # noqa: F811
    logs = tmp_path / "it's 50%A of 'all'"
    script = build_batch_script(["trainers"], [0, 2], 2, logs, "--comment='a b'")
    said_so = script.replace(f"{sys.executable} -m semi_nnunet.cli.main trainers", "echo")
    number = submit_script(said_so, logs / "array_0.sh")
    names = [f"{number}_{task}.log" for task in (0, 2)]
    wait_for(lambda: all((logs / name).is_file() for name in names))
    wait_for(lambda: not said("squeue", "-h", "-o", "%i"))
    assert [(logs / name).read_text() for name in names] == ["--only 0\n", "--only 2\n"]
