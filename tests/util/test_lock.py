"""One process on a job: the living are respected, the dead are not waited for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.util.files import write_json
from semi_nnunet.util.lock import (
    held,
    held_in_turn,
    hold_until_exit,
    holder_of,
    is_of_the_dead,
    note_of,
)

HOLD = """
import sys, time
from pathlib import Path
from semi_nnunet.util.lock import held
with held(Path(sys.argv[1])) as other:
    print("held" if other is None else other, flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path):
    path = tmp_path / "fold_0" / ".lock"
    process = holder(path)
    try:
        named = f"process {process.pid} on {os.uname().nodename} since 20"
        assert (holder_of(path) or "").startswith(named)
        with held(path) as other:
            assert (other or "").startswith(named)
        assert holder_of(path) is not None  # asking takes nothing away
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert holder_of(path) is None
    with held(path) as other:
        assert other is None


def test_a_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    path = tmp_path / ".lock"
    try:
        with held(path) as other:
            assert other is None
            raise RuntimeError
    except RuntimeError:
        pass
    assert holder_of(path) is None
    assert not list(tmp_path.glob("*.json"))


def test_nothing_is_held_where_nothing_was_locked(tmp_path):
    assert holder_of(tmp_path / ".lock") is None
    assert not (tmp_path / ".lock").exists()


def test_a_lock_is_held_until_the_process_ends_and_twice_by_itself(tmp_path):
    path = tmp_path / ".lock"
    assert hold_until_exit(path) is None
    assert hold_until_exit(path) is None
    asked = "import sys; from pathlib import Path; from semi_nnunet.util.lock import *; "
    asked += "print(hold_until_exit(Path(sys.argv[1])))"
    words = [sys.executable, "-c", asked, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"process {os.getpid()} on {os.uname().nodename} since 20")
    other = tmp_path / "other.lock"
    words[-1] = str(other)
    assert subprocess.run(words, capture_output=True, text=True).stdout == "None\n"
    assert hold_until_exit(other) is None  # it ended


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(37, "No locks available")])
def test_without_locks_the_note_of_a_living_process_decides(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("semi_nnunet.util.lock.FileLock.acquire", refuse)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    notes = {  # process, host -> is in the way
        (ended.pid, os.uname().nodename): False,
        (os.getppid(), os.uname().nodename): True,
        (ended.pid, "another-host"): True,
    }
    for number, ((process, host), in_the_way) in enumerate(notes.items()):
        path = tmp_path / f"{number}.lock"
        write_json(note_of(path), {"host": host, "process": process, "since": "noon"})
        other = hold_until_exit(path)
        assert other == (f"process {process} on {host} since noon" if in_the_way else None)


def test_workers_that_outlive_a_killed_process_are_not_in_the_way(tmp_path):
    path = tmp_path / ".lock"
    worker = HOLD.replace(
        "time.sleep(60)", "import os; os.write(1, b'%d\\n' % os.fork()); time.sleep(60)"
    )
    words = [sys.executable, "-c", worker, str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert {process.stdout.readline() != "0\n" for _ in range(2)} == {True, False}
        process.kill()
        process.wait()
        assert hold_until_exit(path) is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_who_waits_for_a_lock_is_told_for_whom_and_gets_it(tmp_path):
    path, said = tmp_path / ".lock", []
    process = holder(path)

    def end(holder: str) -> None:
        said.append(holder)
        process.kill()

    with held_in_turn(path, end):
        assert said == [f"process {process.pid} on {os.uname().nodename} since {said[0][-19:]}"]
        assert (holder_of(path) or "").startswith(f"process {os.getpid()} ")
    process.wait()
    assert holder_of(path) is None
    with held_in_turn(path, end):
        assert len(said) == 1


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(37, "No locks available")])
def test_without_locks_a_living_process_is_waited_for(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    path = tmp_path / ".lock"
    monkeypatch.setattr("semi_nnunet.util.lock.FileLock.acquire", refuse)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_json(note_of(path), {"host": os.uname().nodename, "process": process.pid})

    def end(_: str) -> None:
        process.communicate(b"\n")

    with held_in_turn(path, end):
        assert process.returncode is not None


@pytest.mark.parametrize("content", ["[]", "3", "{}", "[" * 100_000])
def test_a_note_of_another_content_names_nobody_and_is_in_nobodys_way(content, tmp_path):
    path = tmp_path / ".lock"
    process = holder(path)
    try:
        note_of(path).write_text(content)
        assert not is_of_the_dead(note_of(path))
        assert holder_of(path) == hold_until_exit(path) == "another process"
    finally:
        process.kill()
        process.wait()
    with held(path) as other:
        assert other is None


def test_a_note_with_the_number_of_no_process_is_not_of_the_dead(tmp_path):
    note = note_of(tmp_path / ".lock")
    write_json(note, {"host": os.uname().nodename, "process": 10**30})
    assert not is_of_the_dead(note)
