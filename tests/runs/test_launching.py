"""Jobs wait for those they need on every launcher, and a command ends with whoever started it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from semi_nnunet.cli.launching import add_arguments
from semi_nnunet.runs import commands, local
from semi_nnunet.runs.launching import Launcher, Work, launch
from semi_nnunet.runs.local import Board, Resources, run_jobs
from semi_nnunet.runs.ray_cluster import Share, run_on_ray
from semi_nnunet.util.errors import UserError
from tests.runs.tiny import wait_for

SBATCH = """#!/bin/sh
echo x >> {folder}/submitted
wc -l < {folder}/submitted | tr -d ' '
"""


@dataclass(frozen=True)
class Task:
    """Appends its name to a file, once another has, or fails."""

    folder: Path
    name: str
    until: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def lock(self) -> Path:
        return self.folder / f".{self.name}.lock"

    @property
    def is_done(self) -> bool:
        return (self.folder / f"{self.name}.done").exists()

    def commands(self, device: str, processes: int) -> Iterator[commands.Command]:
        fails = "sys.exit(1)" if "bad" in self.name else ""
        (ran := self.folder / "ran").touch()
        waiting = f"{self.until!r} not in open({str(ran)!r}).read() and time.time() < start + 60"
        yield (
            "python",
            f"import sys, time; start = time.time()\nwhile {waiting}: time.sleep(0.05)\n"
            f"open({str(ran)!r}, 'a').write('{self.name} '); {fails}",
        )


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """ "second" waits for two others, of which one fails; "done" is not left."""
    monkeypatch.setattr(
        commands, "arguments_of", lambda words, *_, **__: [sys.executable, "-c", str(words[1])]
    )
    names = ["second", "first_bad", "first", "done"]
    tasks = [Task(tmp_path, name) for name in names]
    needs = {tasks[0]: [tasks[1], tasks[2], tasks[3]]}
    return Work(["crossval", "-d", "7"], tasks, [0, 1, 2], tmp_path, needs)


def test_a_job_starts_when_those_it_waits_for_have_ended_also_badly(work, tmp_path, capsys):
    assert launch(Launcher(device="cpu", jobs=2), work) == 1
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran[:2]) == ["first", "first_bad"] and ran[2:] == ["second"]
    said = capsys.readouterr().out
    assert "[  3/3] second done" in said and "1 of 4 jobs are not done" in said


def test_what_another_process_finishes_in_the_meantime_is_done(tmp_path, monkeypatch, capsys):
    held_elsewhere = {tmp_path / ".shared.lock": "process 7 on host"}
    monkeypatch.setattr(local, "held", lambda path: nullcontext(held_elsewhere.get(path)))
    work = Work(["crossval", "-d", "7"], [Task(tmp_path, "shared")], [0], tmp_path)
    assert launch(Launcher(device="cpu", jobs=1), work) == 1
    assert "1 of 1 jobs are not done" in capsys.readouterr().out
    own = Task(tmp_path, "own")
    monkeypatch.setattr(Task, "commands", lambda *_: iter((tmp_path / "shared.done").touch() or ()))
    work = Work(["crossval", "-d", "7"], [Task(tmp_path, "shared"), own], [0, 1], tmp_path)
    assert launch(Launcher(device="cpu", jobs=1), work) is None
    said = capsys.readouterr().out
    assert "shared elsewhere: process 7 on host" in said and "not done" not in said


def test_a_process_of_a_cluster_runs_its_job_alone(work, tmp_path):
    assert launch(Launcher(device="cpu", only=0), work) == 0
    assert (tmp_path / "ran").read_text().split() == ["second"]


def test_a_job_waits_for_no_other_than_those_it_needs(work, tmp_path):
    long = Task(tmp_path, "long", until="second")
    first, second = Task(tmp_path, "first"), Task(tmp_path, "second")
    outcomes = run_jobs([long, first, second], Resources("cpu", (), 2, 1), {second: [first]})
    assert [one.state for one in outcomes] == ["done"] * 3
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "long"]


class StandInForRay:
    """Notes what is given to it, and ends one task a look, the one that was begun last."""

    def __init__(self) -> None:
        self.begun: list[int] = []

    def remote(self, do: object) -> StandInForRay:
        return self

    def options(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(remote=self.begin)

    def begin(self, words: Sequence[str], *_: object) -> int:
        self.begun.append(int(words[-1]))
        return self.begun[-1]

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return references[-1:], references[:-1]

    def get(self, reference: int) -> str:
        return "it failed" if reference == 1 else ""


def test_a_task_of_ray_waits_for_no_other_than_those_it_needs(tmp_path):
    names = ["needs_bad", "bad", "long", "alone", "needs_long"]
    jobs = dict(enumerate(Task(tmp_path, name) for name in names))
    needs = {jobs[0]: [jobs[1]], jobs[4]: [jobs[2]]}
    ray, board = StandInForRay(), Board(5)
    outcomes = run_on_ray(ray, jobs, needs, ("crossval",), Share(0, 1), 3, tmp_path, board)
    assert ray.begun[:3] == [1, 2, 3]
    ended = [outcome.job.name for outcome in outcomes]
    assert ended.index("bad") < ended.index("needs_bad")
    assert ended.index("long") < ended.index("needs_long")
    assert {o.job.name for o in outcomes if o.state == "failed"} == {"bad"} and len(outcomes) == 5


@pytest.mark.parametrize("number", [4, 99, -1])
def test_a_job_that_is_not_in_the_list_any_more_is_told(number, work, tmp_path):
    with pytest.raises(UserError, match=f"one of 4 jobs, from 0, got {number}: .*changed.*Fix"):
        launch(Launcher(device="cpu", only=number), work)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_launched_where_nothing_is_left(work, tmp_path):
    for launcher in ("local", "slurm", "ray"):
        assert launch(Launcher(launcher), Work([], work.jobs, [], tmp_path)) is None
    assert not (tmp_path / "ran").exists()


def test_a_wave_on_slurm_is_an_array_that_waits_for_the_one_before(
    work, tmp_path, monkeypatch, capsys
):
    (tmp_path / "sbatch").write_text(SBATCH.format(folder=tmp_path))
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    launcher = Launcher("slurm", device="cuda", threads=4, sbatch="--gres=gpu:1")
    assert launch(launcher, work) == 0
    first, second = ((tmp_path / f"array_{number}.sh").read_text() for number in (0, 1))
    assert "#SBATCH --array=1,2%2\n" in first and "--dependency" not in first
    assert "#SBATCH --array=0%1\n" in second and "--dependency=afterany:1\n" in second
    assert 'crossval -d 7 --jobs 1 --device cuda --threads 4 --only "$SLURM' in second
    assert "squeue -j 1,2" in capsys.readouterr().out


def test_numbers_that_are_too_small_are_refused():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UserError, match="--threads must be 1 or more, got 0"):
        Launcher.of(vars(parser.parse_args(["--threads", "0"])))


def test_a_device_that_nnunet_does_not_know_is_refused(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--device", "gpu"])
    said = capsys.readouterr().err
    assert "--device: invalid choice: 'gpu'" in said and "cuda" in said
    for known in ("cpu", "cuda", "mps"):
        assert Launcher.of(vars(parser.parse_args(["--device", known]))).device == known


STARTS = """
import sys
from pathlib import Path
from semi_nnunet.runs import commands, local
commands.ENTRY_POINTS["sleep"] = ("time", "sleep")
arguments = commands.arguments_of
def sleeping(words, *rest, **options):
    executable, c, code = arguments(words, *rest, **options)
    return [executable, c, code.rpartition("from")[0] + sys.argv[2]]
commands.arguments_of = sleeping
commands.run_command(("sleep",), {}, Path(sys.argv[1]))
"""
SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def test_a_command_ends_with_a_killed_parent(tmp_path):
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", STARTS, str(log), SLEEPS])
    wait_for(lambda: log.is_file() and log.read_text().endswith("\n"), 60)
    child = Path("/proc") / log.read_text().strip()
    assert child.is_dir()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not child.is_dir() or "State:\tZ" in (child / "status").read_text(), 10)
