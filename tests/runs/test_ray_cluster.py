"""Jobs are tasks of a Ray cluster, each of which waits for those it needs."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from semi_nnunet.runs import commands
from semi_nnunet.runs.local import Board
from semi_nnunet.runs.ray_cluster import (
    Followed,
    Share,
    cluster,
    do,
    require_answer,
    run_on_ray,
    share_of,
)
from semi_nnunet.util.errors import UserError
from tests.runs.tasks import Task


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
    run_on_ray(ray, jobs, {}, ("x",), Share(0, 1), at_a_time, tmp_path, Board(5))
    assert ray.most == min(at_a_time, 5) and sorted(ray.begun) == [0, 1, 2, 3, 4]


def nodes(*resources: dict[str, float], dead: tuple[dict[str, float], ...] = ()) -> SimpleNamespace:
    """A cluster of these nodes."""
    alive = [{"Resources": one, "Alive": True} for one in resources]
    return SimpleNamespace(
        nodes=lambda: [*alive, *({"Resources": one, "Alive": False} for one in dead)]
    )


def test_a_task_gets_a_gpu_and_the_cores_that_belong_to_it(capsys):
    mixed = nodes({"CPU": 16.0, "GPU": 4.0}, {"CPU": 24.0, "GPU": 2.0}, {"CPU": 64.0})
    assert share_of(mixed, None, None) == Share(1, 4)
    assert share_of(mixed, "cpu", None) == Share(0, 1) and share_of(mixed, "cpu", 8) == Share(0, 8)
    assert share_of(nodes({"CPU": 4.0}, dead=({"CPU": 4.0, "GPU": 1.0},)), None, None) == Share(
        0, 1
    )
    assert capsys.readouterr().out == ""
    assert share_of(nodes({"CPU": 4.0}), "cuda", 8) == Share(1, 8)
    assert "no node has 8 cores and 1 GPUs" in capsys.readouterr().out


def test_a_log_is_read_line_by_line_as_it_grows(tmp_path):
    task, board = Task(tmp_path, "one"), Board(1)
    task.log.write_text("1 of 9 epochs done, about 9 min left\n")  # of an earlier run
    followed = Followed(task, board)
    followed.look()
    assert followed.progress is None
    with task.log.open("a") as file:
        file.write("3 of 9 epochs done, about 6 min left\n4 of 9 epo")
    followed.look()
    assert followed.progress.state == "epoch 3 of 9, about 6 min left"
    with task.log.open("a") as file:
        file.write("chs done, about 5 min left\n")
    followed.look()
    assert followed.progress.state == "epoch 4 of 9, about 5 min left"


def test_a_task_says_what_went_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(
        commands, "arguments_of", lambda words, *_, **__: [sys.executable, "-c", str(words[1])]
    )
    log, lock = tmp_path / "log", tmp_path / "lock"
    code = "import os; print(os.environ['nnUNet_raw'])"
    assert do(("python", code), {"nnUNet_raw": "here"}, log, lock) == ""
    assert log.read_text() == "here\n"
    assert "exit code 3" in do(("python", "raise SystemExit(3)"), {}, log, lock)


def test_an_address_where_nobody_listens_is_found_out_at_once():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        require_answer(f"127.0.0.1:{port}")
        require_answer(f"ray://127.0.0.1:{port}")
    with pytest.raises(OSError):
        require_answer(f"127.0.0.1:{port}")
    require_answer(None), require_answer("auto"), require_answer("local")  # Ray knows these


def test_without_ray_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs the package ray.*Fix: pip install"), cluster(None):
        pass
