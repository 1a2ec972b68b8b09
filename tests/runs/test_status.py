"""The status of a data set's trainings comes from its results only."""

from __future__ import annotations

import shutil
from dataclasses import replace
from unittest.mock import Mock

from semi_nnunet.cli.main import main
from semi_nnunet.runs.launching import UnfinishedError
from semi_nnunet.runs.local import get_failure_file
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.util.lock import held
from semi_nnunet.workflows import status
from semi_nnunet.workflows.next_step import detect_device
from semi_nnunet.workflows.status import (
    describe_job,
    estimate_training_seconds,
    extract_reason,
    summarize_jobs,
)
from semi_nnunet.workflows.status import report_trainings as status_of
from tests.runs.jobs import OURS, TRAINERS, fake_job


def test_status_lists_requested_trainings_that_are_not_begun(folders, monkeypatch, capsys):

    def fail(launcher, work):
        raise UnfinishedError("jobs are not done")

    monkeypatch.setattr("semi_nnunet.workflows.crossval.run_work", fail)
    words = ["-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0", "1", "-tr", TRAINERS[1]]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    for cannot in (["--device", "cuda"], ["--launcher", "slurm"]):
        assert main(["crossval", *words, *cannot]) == 2  # and nothing is asked for
        assert "found none" in capsys.readouterr().err
    assert main(["status", "-d", folders.raw.name, "-p", "tiny"]) == 0
    assert "nothing was trained" in capsys.readouterr().out
    assert main(["crossval", *words, "--device", "cpu"]) == 1
    capsys.readouterr()
    for of_plans in (["-p", "tiny"], []):
        assert main(["status", "-d", folders.raw.name, *of_plans]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "tiny:",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 0: not begun",
            "  SemiMeanTeacherTrainer 2d fold 1 seed 0: not begun",
            "  0 of 2 done",
        ]


def test_status_says_how_long_all_that_is_left_will_take(monkeypatch):
    """A trainer's own mean, else that of any trainer of the configuration."""

    def make_job(trainer, configuration, epochs, remaining=None, begun=False):
        trained = remaining is None and epochs > 0
        job = Mock(trainer=trainer, configuration=configuration, is_done=trained)
        job.is_trained, job.left, job.took = trained, remaining, [60.0] * epochs
        job.is_begun = epochs > 0 or begun
        return job

    monkeypatch.setattr(status, "estimate_seconds_left", lambda job: job.left)
    monkeypatch.setattr(status, "read_epoch_seconds", lambda job: job.took)

    jobs = [
        make_job("A", "2d", 10),
        make_job("A", "2d", 20),
        make_job("B", "2d", 30),
        make_job("A", "2d", 0),
    ]
    assert summarize_jobs(jobs[:3]) == "3 of 3 done"
    assert summarize_jobs(jobs).startswith("3 of 4 done; about 15 min ")
    jobs += [make_job("C", "2d", 0), make_job("B", "2d", 2, remaining=300.0)]
    assert "3 of 6 done; about 40 min " in summarize_jobs(jobs)
    jobs.append(make_job("A", "3d_fullres", 0))
    assert "; at least about 40 min " in summarize_jobs(jobs)
    assert summarize_jobs(jobs[-1:]) == "0 of 1 done"
    stock_under_way = make_job("A", "2d", 0, begun=True)
    assert "; at least about 15 min of" in summarize_jobs([*jobs[:4], stock_under_way])
    all_epochs_done = make_job("A", "2d", 3, remaining=0.0)
    assert "; about 0 s " in summarize_jobs([*jobs[:3], all_epochs_done])


def test_a_failure_is_reported_in_a_line_with_its_reason():
    problem = Problem("x.nii.gz", "is empty", "copy it")
    for note, lines in (
        ("the folder is full. Fix: free some space.\n", "the folder is full. Fix: free some space"),
        (f"{UserError('Broken:', [problem, problem])}\n", f"Broken: {problem}"),
        ("a failed (exit code 1). Its last lines:\n\nThe command was: a", "a failed (exit code 1)"),
        ("", "for an unknown reason"),
    ):
        assert extract_reason(note) == lines


def test_results_without_preprocessed_data_have_a_status(folders, tmp_path, monkeypatch, capsys):
    """Copied from elsewhere, with the raw images but nothing preprocessed."""
    shutil.copytree(folders.raw, tmp_path / "raw" / folders.raw.name)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    fold = folders.results / "SemiBaselineTrainer__tiny__2d" / "fold_0"
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    for state, file in (("begun", None), ("trained; predictions or", "checkpoint_final.pth")):
        if file:
            (fold / file).write_text("x")
            write_json(fold / "validation" / "summary.json", {})
        assert main(["status", "-d", folders.raw.name]) == 0
        assert f"SemiBaselineTrainer 2d fold 0 seed 0: {state}" in capsys.readouterr().out


def test_every_state_of_a_training_is_described(empty, monkeypatch):
    monkeypatch.setattr(status, detect_device.__name__, lambda: "cpu")
    job, name = fake_job(empty, OURS), empty.results.name
    assert describe_job(job) == "not begun"
    with held(job.lock):
        assert describe_job(job).startswith("running, ")
    assert describe_job(job) == "not begun"  # a lock is no training
    (job.folder / "checkpoint_latest.pth").touch()
    assert describe_job(job) == "begun"
    write_json(job.folder / "semi_settings.json", {"settings": {"epochs": {"value": 4}}})
    rows = [{"epoch": n, "seconds": 60.0} for n in range(3)]
    History(rows).write_csv(job.folder / "semi_history.csv")
    (job.folder / ".semi_training.lock").touch()  # of a process that is gone
    lines = (
        f"stopped before its end; 3 epochs done, about 60 s left. Continue: nnUNetv2_train {name} "
    )
    assert describe_job(job) == lines + f"2d 0 -tr {OURS} -p tiny -device cpu --c"
    with held(job.folder / ".semi_training.lock"):  # it was started by hand
        assert describe_job(job).startswith("running, process ")
    get_failure_file(job).write_text("the disk is full. Fix: free some space.\n")
    assert describe_job(job) == (
        f"stopped before its end; failed: the disk is full. Fix: free some space. See {job.log}"
    )
    get_failure_file(job).unlink()
    job.checkpoint.write_text("x")
    assert describe_job(job).startswith("trained; ")
    job.validation.mkdir()
    for name in ("summary.json", "metrics.csv"):
        (job.validation / name).write_text("x")
    assert describe_job(job) == "done"


def test_trainings_are_grouped_by_plans_without_their_seed(empty, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(getattr(empty, name).parent))
    assert "nothing was trained" in status_of("500")[0]
    assert status_of("500", "tiny")[0].endswith("with tiny")
    for plans in ("tiny", "tiny_seed1", "others"):
        (empty.results / f"{OURS}__{plans}__2d" / "fold_0").mkdir(parents=True)
    lines = status_of("500")
    assert [line for line in lines if not line.startswith(" ")] == ["others:", "tiny:"]
    assert [line for line in lines if " of " in line] == ["  0 of 1 done", "  0 of 2 done"]
    assert status_of("500", "tiny") == lines[3:]


def test_the_duration_is_that_of_the_same_trainer_or_else_of_any(empty):
    ours, base = fake_job(empty, OURS), fake_job(empty, "SemiBaselineTrainer")
    slow = replace(base, configuration="3d_fullres")
    took = {base: 100.0, replace(base, fold="1"): 200.0, slow: 9000.0, replace(ours, fold="1"): 0.0}
    assert (
        estimate_training_seconds(base, took) == 150
        and estimate_training_seconds(ours, took) == 150
    )
    assert estimate_training_seconds(replace(ours, configuration="3d_lowres"), took) is None
