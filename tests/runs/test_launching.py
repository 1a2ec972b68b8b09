"""Jobs are launched here or on a cluster, once their dependencies have ended."""

from __future__ import annotations

import itertools
import os
from contextlib import nullcontext
from dataclasses import asdict

import pytest
import torch

from semi_nnunet.runs import local
from semi_nnunet.runs.launching import (
    JobLauncher,
    JobWork,
    UnfinishedError,
    find_resources,
    run_work,
)
from semi_nnunet.runs.local import Resources
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.verb_commands import build_command
from tests.runs.parsing import parse_command
from tests.runs.tasks import Task

CROSSVAL = ("semi_nnunet", "crossval", "-d", "7")
SBATCH = """#!/bin/sh
echo x >> {folder}/submitted
wc -l < {folder}/submitted | tr -d ' '
"""


def test_a_job_starts_after_its_dependencies_even_if_they_failed(work, tmp_path, capsys):
    with pytest.raises(UnfinishedError):
        run_work(JobLauncher(device="cpu", jobs=2), work)
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran[:2]) == ["first", "first_bad"] and ran[2:] == ["second"]
    output = capsys.readouterr().out
    assert "[  3/3] second done" in output and "1 of 4 jobs are not" in output


def test_a_job_that_another_process_finishes_meanwhile_is_done(tmp_path, monkeypatch, capsys):
    held_elsewhere = {tmp_path / ".shared.lock": "process 7 on host"}
    monkeypatch.setattr(local, "held", lambda path: nullcontext(held_elsewhere.get(path)))
    work = JobWork(CROSSVAL, [Task(tmp_path, "shared")], [0], tmp_path)
    with pytest.raises(UnfinishedError):
        run_work(JobLauncher(device="cpu", jobs=1), work)
    assert "1 of 1 jobs are not" in capsys.readouterr().out
    second = Task(tmp_path, "own")
    monkeypatch.setattr(Task, "commands", lambda *_: iter((tmp_path / "shared.done").touch() or ()))
    work = JobWork(CROSSVAL, [Task(tmp_path, "shared"), second], [0, 1], tmp_path)
    assert run_work(JobLauncher(device="cpu", jobs=1), work)
    output = capsys.readouterr().out
    assert "shared elsewhere: process 7 on host" in output and "not done" not in output


def test_a_process_of_a_cluster_runs_only_its_job(work, tmp_path):
    assert not run_work(JobLauncher(device="cpu", only=0), work)
    assert (tmp_path / "ran").read_text().split() == ["second"]


@pytest.mark.parametrize("number", [4, 99, -1])
def test_a_job_index_outside_the_list_is_refused(number, work, tmp_path):
    with pytest.raises(UserError, match=f"one of 4 jobs, from 0, got {number}: .*changed.*Fix"):
        run_work(JobLauncher(device="cpu", only=number), work)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_launched_where_nothing_is_left(work, tmp_path):
    for launcher in ("local", "slurm", "ray"):
        assert run_work(JobLauncher(launcher), JobWork([], work.jobs, [], tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_wave_on_slurm_is_an_array_that_waits_for_the_one_before(
    work, tmp_path, monkeypatch, capsys
):
    (tmp_path / "sbatch").write_text(SBATCH.format(folder=tmp_path))
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    launcher = JobLauncher("slurm", device="cuda", threads=4, sbatch="--gres=gpu:1")
    assert not run_work(launcher, work)
    first, second = ((tmp_path / f"array_{number}.sh").read_text() for number in (0, 1))
    assert "#SBATCH --array=1,2%2\n" in first and "--dependency" not in first
    assert "#SBATCH --array=0%1\n" in second and "--dependency=afterany:1\n" in second
    assert 'crossval -d 7 --jobs 1 --device cuda --threads 4 --only "$SLURM' in second
    assert "squeue -j 1,2" in capsys.readouterr().out


def parse_launcher(*options: str) -> JobLauncher:
    """Return the launcher that these options of a verb make."""
    words = ["semi_nnunet", "crossval", "-d", "7", "-c", "2d", *options]
    launcher = parse_command(words).launcher
    return JobLauncher() if launcher is None else launcher.for_jobs()


def test_numbers_that_are_too_small_are_refused():
    with pytest.raises(UserError, match=r"--threads.*got 0"):
        parse_launcher("--threads", "0")


def test_a_device_that_nnunet_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"gpu.*cuda"):
        parse_launcher("--device", "gpu")
    for option, device in itertools.product(("--device", "-device"), ("cpu", "cuda", "mps")):
        assert parse_launcher(option, device).device == device


def test_groups_of_jobs_are_in_the_order_of_their_needs(tmp_path):
    jobs = [Task(tmp_path, name) for name in "abcde"]
    a, b, c, d, e = jobs
    needs = {a: [b], b: [c], d: [c], e: [Task(tmp_path, "of nobody")]}
    for unfinished, groups in (
        (range(5), [[2, 4], [1, 3], [0]]),
        ([0, 3], [[0, 3]]),  # c is done
        ([], []),
    ):
        work = JobWork([], jobs, unfinished, tmp_path, needs)
        assert work.group_by_dependencies() == groups


def test_resources_are_those_of_the_machine_unless_given(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert find_resources("cpu") == Resources("cpu", (), 1, 12)
    assert find_resources("cpu", 5) == Resources("cpu", (), 5, 2)
    assert find_resources("cpu", 40) == Resources("cpu", (), 40, 1)
    assert find_resources("cpu", 2, 7) == Resources("cpu", (), 2, 7)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_resources("cuda") == Resources("cuda", ("0", "1", "2"), 3, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")  # by their names, as the user sees them
    assert find_resources("cuda").gpus == ("4", "7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"--device cuda needs a GPU.*Fix: --device"):
        find_resources("cuda")


def test_a_launcher_needs_at_least_one_job():
    with pytest.raises(UserError, match="--jobs must be 1 or more, got -1"):
        JobLauncher(jobs=-1)


@pytest.mark.parametrize(
    "launcher",
    [
        JobLauncher(),
        JobLauncher(device="cpu", jobs=2, threads=3),
        JobLauncher("slurm", sbatch="--gres=gpu:1 --time=1:00:00"),
        JobLauncher("ray", ray_address="host:6379", jobs=4),
    ],
)
def test_the_options_of_a_launcher_make_the_same_one(launcher):
    _, _, *words = build_command("crossval", **asdict(launcher))
    assert parse_launcher(*map(str, words)) == launcher


def test_a_launcher_that_cannot_be_used_is_refused_before_anything_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch"):
        JobLauncher("slurm").require_usable()
    JobLauncher("local", device="cpu").require_usable()


def test_run_work_returns_whether_all_jobs_are_done(work, tmp_path):
    assert run_work(JobLauncher(), JobWork([], work.jobs, [], tmp_path)) is True
    assert run_work(JobLauncher(device="cpu", only=2), work) is False  # a cluster's process has one
    with pytest.raises(UnfinishedError) as caught:
        run_work(JobLauncher(device="cpu", only=1), work)
    assert caught.value.exit_code == 1
