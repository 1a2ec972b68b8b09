"""Lists of jobs: their content, refused options, and whole cross-validations of the phantom."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from functools import partial

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.crossval import make_jobs
from tests.runs.interrupting import in_a_group, press_ctrl_c_twice
from tests.runs.jobs import TRAINERS, fake_job
from tests.runs.tiny import TINY, trainings_with, wait_for


def test_a_job_for_every_trainer_configuration_fold_and_seed(folders):
    jobs = make_jobs(folders, "tiny", ["2d", "3d_fullres"], TRAINERS, ["0", "1"], 2)
    assert len(set(jobs)) == 16
    assert {job.plans for job in jobs} == {"tiny", "tiny_seed1"}
    seeded = read_json(folders.preprocessed / "tiny_seed1.json")
    assert seeded["semi"] == {**TINY, "seed": 1} and seeded["plans_name"] == "tiny_seed1"
    assert make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # written before, the same
    assert len(make_jobs(folders, "tiny", ["2d"] * 2, TRAINERS[:1] * 2, ["0", "0"], 1)) == 1


def test_all_mistakes_are_reported_before_anything_runs(folders):
    with pytest.raises(UserError) as caught:
        make_jobs(folders, "tiny", ["2D"], ["SemiMeanTeecherTrainer"], ["7", "01", "all"], 1)
    output = str(caught.value)
    assert "did you mean 'SemiMeanTeacherTrainer'?" in output and "did you mean '2d'?" in output
    assert "fold '7': there are 5 folds" in output and "fold '01'" in output
    with pytest.raises(UserError, match="does not exist"):
        make_jobs(folders, "nowhere", ["2d"], TRAINERS, ["0"], 1)


@pytest.mark.slow
def test_jobs_end_to_end_and_again(folders, capsys):
    words = [
        "crossval",
        "-d",
        folders.raw.name,
        "-c",
        "2d",
        "-p",
        "tiny",
        "-f",
        "0",
        "--seeds",
        "2",
    ]
    assert main([*words, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "2 jobs, 0 done before" in output and "[  2/2]" in output and "all done" in output
    jobs = find_jobs(folders, "tiny")
    assert [(job.seed, job.is_done) for job in jobs] == [(0, True), (1, True)]
    for job in jobs:
        for path in job.tables().values():
            with path.open() as file:
                assert {"dice", "hd95_edge_mm"} <= set(next(csv.DictReader(file)))
        assert len(job.history().rows) == 2
    earlier = {job: (job.folder / "checkpoint_final.pth").stat().st_mtime_ns for job in jobs}
    assert main([*words, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu"]) == 0
    assert "2 done before" in capsys.readouterr().out
    assert earlier == {j: (j.folder / "checkpoint_final.pth").stat().st_mtime_ns for j in jobs}
    for of_plans in (["-p", "tiny"], []):
        assert main(["status", "-d", folders.raw.name, *of_plans]) == 0
        *lines, baseline, compare = capsys.readouterr().out.splitlines()
        assert lines == [
            "tiny:",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 0: done",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 1: done",
            "  2 of 2 done",
        ]
        assert "next: semi_nnunet crossval" in baseline and "-tr SemiBaselineTrainer" in baseline
        assert "semi_nnunet compare" in compare


@pytest.mark.slow
def test_an_interruption_ends_the_trainings_which_continue_from_the_checkpoint(folders, tmp_path):
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": 400}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0"]
    command = [sys.executable, "-m", "semi_nnunet.cli.main", *words, "-tr", TRAINERS[0]]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=file)
    job = fake_job(folders, TRAINERS[0])
    latest = job.folder / "checkpoint_latest.pth"
    wait_for(latest.is_file, 120)
    process.send_signal(signal.SIGTERM)  # SIGINT is ignored below a shell in the background
    try:
        assert process.wait(60) == 130, log.read_text()
    finally:
        process.kill()
    epochs = len(job.history().rows)
    assert 0 < epochs < 400 and not job.is_trained
    wait_for(lambda: not trainings_with(str(tmp_path)), 10)  # killed, they take a moment to go
    assert "--c" in next(job.commands("cpu", 1))


def has_more_epochs(job, epochs):
    checkpoint = job.folder / "checkpoint_latest.pth"
    return checkpoint.is_file() and len(job.history().rows) > epochs


@pytest.mark.slow
def test_ctrl_c_pressed_twice_ends_all_processes_and_the_same_command_continues(folders, tmp_path):
    path = folders.preprocessed / "tiny.json"
    plans = read_json(path)
    write_json(path, {**plans, "semi": {**TINY, "epochs": 400}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0"]
    command = [sys.executable, "-m", "semi_nnunet", *words, "-tr", TRAINERS[0], "--device", "cpu"]
    job, log, epochs = fake_job(folders, TRAINERS[0]), tmp_path / "log", 0
    latest = job.folder / "checkpoint_latest.pth"
    for pause_s in (0.05, 1):  # the second run continues the first
        process = in_a_group(command, log)
        try:
            wait_for(partial(has_more_epochs, job, epochs), 120)
            press_ctrl_c_twice(process, pause_s)
            process.wait(30)
        finally:
            process.kill()
        output = log.read_text()
        assert process.returncode == 130 and "Traceback" not in output, output
        assert "interrupted; the same command" in output
        wait_for(lambda: not trainings_with(str(tmp_path)), 20)
        earlier, epochs = epochs, len(job.history().rows)
        assert earlier < epochs < 400 and not job.is_trained
        assert checkpoints.read_checkpoint(latest)["current_epoch"] in (epochs, epochs - 1)
    assert job.log.read_text().count("Loaded ") == 1
    assert [row["epoch"] for row in job.history().rows] == list(range(epochs))


@pytest.mark.slow
def test_pretraining_comes_first_and_every_fold_shares_it(folders, capsys):
    path = folders.preprocessed / "tiny.json"
    write_json(path, {**read_json(path), "semi": {**TINY, "pretrained": "pool"}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0", "1"]
    words += ["--device", "cpu", "-tr", "SemiBaselineTrainer"]
    assert main(words) == 2
    assert "pretrained is 'pool'" in (output := capsys.readouterr().err)
    assert "Fix: add SemiPretrainTrainer to -tr" in output
    assert main([*words, "SemiPretrainTrainer"]) == 0
    jobs = {(job.trainer, job.fold): job for job in find_jobs(folders, "tiny")}
    earlier = "SemiPretrainTrainer", "all"
    assert set(jobs) == {earlier, ("SemiBaselineTrainer", "0"), ("SemiBaselineTrainer", "1")}
    weights = jobs[earlier].checkpoint
    for key, job in jobs.items():
        assert job.is_done
        if key != earlier:
            record = read_json(job.folder / "semi_settings.json")["initial_weights"]
            assert record["path"] == str(weights) and job.checkpoint.stat().st_mtime > (
                weights.stat().st_mtime
            )
    assert not jobs[earlier].tables() and not (jobs[earlier].folder / "validation").exists()
    assert main(words) == 0 and "2 done before" in capsys.readouterr().out
