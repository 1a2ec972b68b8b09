"""Lists of jobs: what they consist of, what is refused, and a whole one on the phantom."""

import csv
import signal
import subprocess
import sys

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.errors import UserError
from semi_nnunet.files import read_json, write_json
from semi_nnunet.runs.crossval import found_jobs, make_jobs
from semi_nnunet.runs.job import Folders, Job
from semi_nnunet.runs.local import Resources, run_jobs
from semi_nnunet.runs.lock import held
from tests.runs.tiny import TINY, trainings_with, wait_for

TRAINERS = ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"]


def test_a_job_for_every_trainer_configuration_fold_and_seed(folders):
    jobs = make_jobs(folders, "tiny", ["2d", "3d_fullres"], TRAINERS, ["0", "1"], 2)
    assert len(set(jobs)) == 16
    assert {job.plans for job in jobs} == {"tiny", "tiny_seed1"}
    seeded = read_json(folders.preprocessed / "tiny_seed1.json")
    assert seeded["semi"] == {**TINY, "seed": 1} and seeded["plans_name"] == "tiny_seed1"
    assert make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # written before, the same


def test_all_that_is_wrong_is_said_before_anything_runs(folders):
    with pytest.raises(UserError) as caught:
        make_jobs(folders, "tiny", ["2D"], ["SemiMeanTeecherTrainer"], ["7", "all"], 1)
    said = str(caught.value)
    assert "did you mean 'SemiMeanTeacherTrainer'?" in said and "did you mean '2d'?" in said
    assert "fold '7': there are 5 folds" in said
    with pytest.raises(UserError, match="does not exist"):
        make_jobs(folders, "nowhere", ["2d"], TRAINERS, ["0"], 1)


def test_plans_of_a_seed_that_was_trained_are_not_replaced_by_others(folders):
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": 3}})
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # nothing was trained: written anew
    assert read_json(folders.preprocessed / "tiny_seed1.json")["semi"]["epochs"] == 3
    trained = folders.results / "SemiBaselineTrainer__tiny_seed1__2d" / "fold_0"
    trained.mkdir(parents=True)
    (trained / "checkpoint_latest.pth").touch()
    write_json(folders.preprocessed / "tiny.json", plans)
    with pytest.raises(UserError, match="differs from tiny by more than the seed"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


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
    said = capsys.readouterr().out
    assert "2 jobs, 0 done before" in said and "[  2/2]" in said and "all done" in said
    jobs = found_jobs(folders, "tiny")
    assert [(job.seed, job.is_done) for job in jobs] == [(0, True), (1, True)]
    for job in jobs:
        for path in job.tables().values():
            with path.open() as file:
                assert {"dice", "hd95_edge_mm"} <= set(next(csv.DictReader(file)))
        assert len(job.history().rows) == 2
    before = {job: (job.folder / "checkpoint_final.pth").stat().st_mtime_ns for job in jobs}
    assert main([*words, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu"]) == 0
    assert "2 done before" in capsys.readouterr().out
    assert before == {j: (j.folder / "checkpoint_final.pth").stat().st_mtime_ns for j in jobs}
    for of_plans in (["-p", "tiny"], []):
        assert main(["status", "-d", folders.raw.name, *of_plans]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "tiny:",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 0: done",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 1: done",
        ]


def fake_job(folders: Folders, trainer: str) -> Job:
    return Job(folders, trainer, "2d", "0", 0, "tiny")


def test_a_job_that_fails_is_told_and_the_others_go_on(folders, monkeypatch, capsys):
    def commands(job, device, processes):
        code = "import sys; sys.exit('no such thing')" if job.trainer == "Bad" else "print(1)"
        yield ("python", code)

    monkeypatch.setattr(Job, "commands", commands)
    monkeypatch.setattr(
        "semi_nnunet.runs.commands.arguments_of",
        lambda words, *_, **__: [sys.executable, "-c", str(words[1])],
    )
    jobs = [fake_job(folders, name) for name in ("Good", "Bad", "AlsoGood")]
    outcomes = run_jobs(jobs, Resources("cpu", (), 2, 1))
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    assert "no such thing" in outcomes[1].reason and str(jobs[1].log) in outcomes[1].reason
    assert "no such thing" in jobs[1].log.read_text()


def test_a_job_that_another_process_works_on_is_left_to_it(folders):
    job = fake_job(folders, "SemiBaselineTrainer")
    hold = (
        "import sys, time; from pathlib import Path; from semi_nnunet.runs.lock import held\n"
        "with held(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    )
    lock = job.folder / ".semi_crossval.lock"
    with held(lock):
        pass
    command = [sys.executable, "-c", hold, str(lock)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        (outcome,) = run_jobs([job], Resources("cpu", (), 1, 1))
        assert outcome.state == "elsewhere" and f"process {process.pid}" in outcome.reason
    finally:
        process.kill()
        process.wait()


def test_interrupted_it_ends_its_trainings_and_goes_on_from_the_checkpoint(folders, tmp_path):
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
    done = len(job.history().rows)
    assert 0 < done < 400 and not job.is_trained
    wait_for(lambda: not trainings_with(str(tmp_path)), 10)  # killed, they take a moment to go
    assert "--c" in next(job.commands("cpu", 1))
