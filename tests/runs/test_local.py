"""Jobs run side by side; failures and other processes do not stop the others."""

from __future__ import annotations

import io
import os
import queue
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.local import (
    JobBoard,
    JobOutcome,
    Resources,
    borrow_slot,
    build_child_environment,
    get_failure_file,
    run_jobs,
)
from semi_nnunet.util.lock import held
from tests.runs.jobs import fake_job
from tests.runs.tasks import Task, run_code_as_commands
from tests.runs.tiny import wait_for


def test_a_log_file_says_now_and_then_how_long_each_job_will_take(folders, monkeypatch):
    screen = io.StringIO()
    board, job = JobBoard(1, screen), fake_job(folders, "A")
    progress = board.start(job, "nnUNetv2_train")
    progress.feed("3 of 60 epochs done, about 9 min left")
    board.refresh()
    assert "left" not in screen.getvalue()
    monkeypatch.setattr("semi_nnunet.runs.local.SAY_EVERY_S", 0.0)
    board.refresh()
    assert f"{job}: nnUNetv2_train epoch 3 of 60, about 9 min left\n" in screen.getvalue()


def test_a_line_of_the_screen_is_one_row(folders, monkeypatch):
    """A wrapped one would be wiped by half, and its rest stay, each second."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "w") as screen, JobBoard(1, screen) as board:
        board.start(fake_job(folders, "SemiUncertaintyAwareTrainer"), "nnUNetv2_train").feed(
            "3 of 60 epochs done, Dice of patches 0.64, about 9 min left"
        )
        for _ in range(3):
            board.refresh()
        board.print_line("[  1/1] done in 3 s [bold]" + "x" * 60)
    chunks = []
    with suppress(OSError):  # EIO: the other end is closed, and all was read
        while chunk := os.read(primary, 10_000):
            chunks.append(chunk)
    os.close(primary)
    output = b"".join(chunks).decode()
    rows = [row for row in re.split(r"[\r\n]+|\x1b\[[^A-Za-z]*[A-Za-z]", output) if row]
    live = [row for row in rows if "SemiUncertaintyAware" in row]
    assert len(live) >= 3 and all(len(row) <= 60 for row in live)
    assert rows.count("[  1/1] done in 3 s [bold]" + "x" * 60) == 1  # of any length, and stays
    assert output.rindex("\x1b[2K") > output.rindex(live[-1])  # the live lines are removed


def test_a_job_waits_for_another_process(folders, monkeypatch):
    """Its results are what comes next needs: the first stage of a cascade, a teacher."""
    monkeypatch.setattr("semi_nnunet.runs.local.LOOK_EVERY_S", 0.05)
    first, second, third = (fake_job(folders, name) for name in ("First", "Second", "Third"))
    begun = []
    monkeypatch.setattr(Job, "commands", lambda job, *_: begun.append(job) or iter(()))
    with ThreadPoolExecutor(1) as pool:
        needs = {second: [first]}
        with held(first.lock):
            running = pool.submit(
                run_jobs, [first, second, third], Resources("cpu", (), 2, 1), needs
            )
            wait_for(lambda: third in begun)
            time.sleep(0.5)
            assert begun == [third] and not running.done()
        assert [outcome.state for outcome in running.result(30)] == ["elsewhere", "done", "done"]
    assert begun == [third, second]


def test_a_failing_job_is_reported_and_the_others_continue(folders, monkeypatch, capsys):
    def commands(job, device, processes):
        code = "import sys; sys.exit('no such thing')" if job.trainer == "Bad" else "print(1)"
        yield ("python", code)

    monkeypatch.setattr(Job, "commands", commands)
    run_code_as_commands(monkeypatch)
    jobs = [fake_job(folders, name) for name in ("Good", "Bad", "AlsoGood")]
    outcomes = run_jobs(jobs, Resources("cpu", (), 2, 1))
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    assert "no such thing" in outcomes[1].reason and str(jobs[1].log) in outcomes[1].reason
    assert "no such thing" in jobs[1].log.read_text()
    capsys.readouterr()
    assert main(["status", "-d", folders.raw.name]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " failed: " in line]
    assert len(lines) == 1 and "Bad 2d" in lines[0] and str(jobs[1].log) in lines[0]
    assert "failed: python failed (exit code 1): no such thing. See " in lines[0]
    trained_by_hand_since = jobs[1].folder / "training_log_2026_1_1_00_00_00.txt"
    trained_by_hand_since.parent.mkdir(parents=True, exist_ok=True)
    trained_by_hand_since.touch()
    copied_together = jobs[1].log.with_suffix(".failed").stat().st_mtime + 30
    os.utime(trained_by_hand_since, (copied_together, copied_together))
    assert main(["status", "-d", folders.raw.name]) == 0
    assert " failed: " in capsys.readouterr().out
    os.utime(trained_by_hand_since, (copied_together + 60, copied_together + 60))
    assert main(["status", "-d", folders.raw.name]) == 0
    assert " failed: " not in capsys.readouterr().out


def test_a_job_without_a_folder_fails_and_the_others_continue(folders, monkeypatch):
    monkeypatch.setattr(Job, "commands", lambda *_: iter(()))
    bad, good = (fake_job(folders, name) for name in ("Bad", "Good"))
    bad.folder.parent.mkdir(parents=True)
    bad.folder.write_text("a file where nnU-Net's folder belongs")
    outcomes = run_jobs([bad, good], Resources("cpu", (), 1, 1))
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert str(bad.folder) in outcomes[0].reason


def test_a_job_that_another_process_works_on_is_left_to_it(folders):
    job = fake_job(folders, "SemiBaselineTrainer")
    hold = (
        "import sys, time; from pathlib import Path; from semi_nnunet.util.lock import held\n"
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


def test_a_job_waits_only_for_its_dependencies(work, tmp_path):
    long = Task(tmp_path, "long", until="second")
    first, second = Task(tmp_path, "first"), Task(tmp_path, "second")
    outcomes = run_jobs([long, first, second], Resources("cpu", (), 2, 1), {second: [first]})
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "long"]


def test_every_gpu_has_as_many_jobs_and_the_cpu_is_shared_out():
    gpus = Resources("cuda", ("0", "3"), 4, 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in gpus.slots()] == ["0", "3", "0", "3"]
    cpu = Resources("cpu", (), 3, 5)
    assert cpu.slots() == [{"OMP_NUM_THREADS": "5"}] * 3
    assert str(gpus) == "GPU 0, 3" and str(cpu) == "cpu, 3 at a time with 5 cores"


@pytest.mark.parametrize(
    ("resources", "loading", "writing"),
    [
        (Resources("cpu", (), 2, 8), "0", "4"), (Resources("cuda", ("0",), 1, 6), "5", "3"),
        (Resources("cuda", ("0",), 1, 64), "12", "32"), (Resources("cuda", ("0",), 1, 1), "1", "1"),
    ],
)  # fmt: skip
def test_a_child_takes_its_share_of_the_cores_and_finds_our_trainers(resources, loading, writing):
    environment = build_child_environment(resources)
    assert environment["nnUNet_n_proc_DA"] == loading
    assert environment["nnUNet_def_n_proc"] == writing
    assert environment["nnUNet_extTrainer"] == trainer_folders()


def test_a_place_is_given_back_whatever_happens():
    slots: queue.Queue[dict[str, str]] = queue.Queue()
    slots.put({"CUDA_VISIBLE_DEVICES": "0"})
    with pytest.raises(OSError), borrow_slot(slots) as variables:
        assert variables == {"CUDA_VISIBLE_DEVICES": "0"} and slots.empty()
        raise OSError("the disk is full")
    assert slots.get_nowait() == {"CUDA_VISIBLE_DEVICES": "0"}


def test_the_board_counts_finished_jobs_with_their_reason(tmp_path):
    board = JobBoard(2, screen := io.StringIO())
    first, second = Task(tmp_path, "first"), Task(tmp_path, "second")
    board.start(first, "nnUNetv2_train")
    board.end(JobOutcome(first, "done", "in 3 s"))
    board.end(JobOutcome(second, "failed"))
    assert [line.strip() for line in screen.getvalue().splitlines()] == [
        "first: nnUNetv2_train", "[  1/2] first done: in 3 s", "[  2/2] second failed",
    ]  # fmt: skip


def test_a_finished_job_is_skipped_and_a_failure_note_is_deleted_when_the_job_runs(
    work, tmp_path, capsys
):
    *_, first, finished = work.jobs
    for job in (first, finished):
        get_failure_file(job).write_text("it failed")
    (tmp_path / "done.done").touch()
    outcomes = run_jobs([first, finished], Resources("cpu", (), 2, 1))
    assert [outcome.state for outcome in outcomes] == ["done", "done before"]
    assert not get_failure_file(first).exists() and (tmp_path / "ran").read_text() == "first "
    assert f"first: log in {first.log}\n" in capsys.readouterr().out


def test_a_closed_screen_ends_the_work_as_a_broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    screen = os.fdopen(writing, "w")
    with pytest.raises(BrokenPipeError):
        JobBoard(1, screen).print_line("nobody reads this")
    with suppress(BrokenPipeError):
        screen.close()
