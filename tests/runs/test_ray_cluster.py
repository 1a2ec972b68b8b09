"""Jobs are tasks of a Ray cluster, and wait for their dependencies."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from semi_nnunet.runs.local import JobBoard
from semi_nnunet.runs.ray_cluster import (
    FollowedJob,
    TaskResources,
    choose_task_resources,
    connect_cluster,
    require_listener,
    run_on_ray,
    run_task,
)
from semi_nnunet.util.errors import UserError
from tests.runs.tasks import Task, run_code_as_commands


class StandInForRay:
    """Record the tasks, and end the latest one at each wait."""

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


def test_a_task_of_ray_waits_only_for_its_dependencies(tmp_path):
    names = ["needs_bad", "bad", "long", "alone", "needs_long"]
    jobs = dict(enumerate(Task(tmp_path, name) for name in names))
    needs = {jobs[0]: [jobs[1]], jobs[4]: [jobs[2]]}
    ray, board = StandInForRay(), JobBoard(5)
    outcomes = run_on_ray(ray, jobs, needs, ("crossval",), TaskResources(0, 1), 3, tmp_path, board)
    assert ray.begun[:3] == [1, 2, 3]
    ended = [outcome.job.name for outcome in outcomes]
    assert ended.index("bad") < ended.index("needs_bad")
    assert ended.index("long") < ended.index("needs_long")
    assert {o.job.name for o in outcomes if o.state == "failed"} == {"bad"} and len(outcomes) == 5


class Counting(StandInForRay):
    """Knows how many tasks ran at once."""

    most = 0

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        self.most = max(self.most, len(references))
        return super().wait(references, timeout)


@pytest.mark.parametrize("at_a_time", [1, 2, 9])
def test_no_more_tasks_run_at_once_than_may(tmp_path, at_a_time):
    jobs = dict(enumerate(Task(tmp_path, f"task{n}") for n in range(5)))
    ray = Counting()
    run_on_ray(ray, jobs, {}, ("x",), TaskResources(0, 1), at_a_time, tmp_path, JobBoard(5))
    assert ray.most == min(at_a_time, 5) and sorted(ray.begun) == [0, 1, 2, 3, 4]


def nodes(*resources: dict[str, float], dead: tuple[dict[str, float], ...] = ()) -> SimpleNamespace:
    """A cluster of these nodes."""
    alive = [{"Resources": node, "Alive": True} for node in resources]
    return SimpleNamespace(
        nodes=lambda: [
            *alive,
            *({"Resources": node, "Alive": False} for node in dead),
        ]
    )


def test_a_task_gets_a_gpu_and_the_cores_that_belong_to_it(capsys):
    mixed = nodes({"CPU": 16.0, "GPU": 4.0}, {"CPU": 24.0, "GPU": 2.0}, {"CPU": 64.0})
    assert choose_task_resources(mixed, None, None) == TaskResources(1, 4)
    assert choose_task_resources(mixed, "cpu", None) == TaskResources(
        0, 1
    ) and choose_task_resources(mixed, "cpu", 8) == TaskResources(0, 8)
    assert choose_task_resources(
        nodes({"CPU": 4.0}, dead=({"CPU": 4.0, "GPU": 1.0},)), None, None
    ) == TaskResources(0, 1)
    assert capsys.readouterr().out == ""
    assert choose_task_resources(nodes({"CPU": 4.0}), "cuda", 8) == TaskResources(1, 8)
    assert "no node has 8 cores and 1 GPUs" in capsys.readouterr().out


def test_a_log_is_read_line_by_line_as_it_grows(tmp_path):
    task, board = Task(tmp_path, "one"), JobBoard(1)
    task.log.write_text("1 of 9 epochs done, about 9 min left\n")  # of an earlier run
    followed = FollowedJob(task, board)
    followed.read_new_lines()
    assert followed.progress is None
    with task.log.open("a") as file:
        file.write("3 of 9 epochs done, about 6 min left\n4 of 9 epo")
    followed.read_new_lines()
    assert followed.progress.state == "epoch 3 of 9, about 6 min left"
    with task.log.open("a") as file:
        file.write("chs done, about 5 min left\n")
    followed.read_new_lines()
    assert followed.progress.state == "epoch 4 of 9, about 5 min left"


def test_a_task_returns_its_error(tmp_path, monkeypatch):
    run_code_as_commands(monkeypatch)
    log, lock = tmp_path / "log", tmp_path / "lock"
    code = "import os; print(os.environ['nnUNet_raw'])"
    assert run_task(("python", code), {"nnUNet_raw": "here"}, log, lock) == ""
    assert log.read_text() == "here\n"
    assert "exit code 3" in run_task(("python", "raise SystemExit(3)"), {}, log, lock)


def test_an_address_without_a_server_is_refused_at_once():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        require_listener(f"127.0.0.1:{port}")
        require_listener(f"ray://127.0.0.1:{port}")
    with pytest.raises(OSError):
        require_listener(f"127.0.0.1:{port}")
    require_listener(None), require_listener("auto"), require_listener("local")  # Ray knows these


def test_without_ray_the_error_shows_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"the package ray.*Fix: pip install"),
        connect_cluster(None),
    ):
        pass
