"""One process works on a job: running holders block it, ended ones do not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.util.files import write_json
from semi_nnunet.util.lock import (
    held,
    hold_until_exit,
    holder_of,
    is_of_the_dead,
    note_of,
    released_after,
)

HOLD = """
import sys, time
from pathlib import Path
from semi_nnunet.util.lock import held
with held(Path(sys.argv[1])) as holder:
    print("held" if holder is None else holder, flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / "fold_0" / ".lock"
    process = start_holder(path)
    try:
        description = f"process {process.pid} on {os.uname().nodename} since 20"
        assert (holder_of(path) or "").startswith(description)
        with held(path) as holder:
            assert (holder or "").startswith(description)
        assert holder_of(path) is not None  # asking does not take the lock
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert holder_of(path) is None
    with held(path) as holder:
        assert holder is None


def test_a_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    path = tmp_path / ".lock"
    try:
        with held(path) as holder:
            assert holder is None
            raise RuntimeError
    except RuntimeError:
        pass
    assert holder_of(path) is None
    assert not list(tmp_path.glob("*.json"))


def test_a_lock_that_was_never_taken_has_no_holder(tmp_path):
    assert holder_of(tmp_path / ".lock") is None
    assert not (tmp_path / ".lock").exists()


def test_a_process_may_take_its_lock_twice_and_holds_it_until_it_ends(tmp_path):
    path = tmp_path / ".lock"
    assert hold_until_exit(path) is None
    assert hold_until_exit(path) is None
    code = "import sys; from pathlib import Path; from semi_nnunet.util.lock import *; "
    code += "print(hold_until_exit(Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout.startswith(f"process {os.getpid()} on {os.uname().nodename} since 20")
    second = tmp_path / "second.lock"
    command[-1] = str(second)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "None\n"
    assert hold_until_exit(second) is None  # its holder ended


def test_what_a_block_took_is_free_after_it_and_after_an_error(tmp_path):
    before, within = tmp_path / "before.lock", tmp_path / "within.lock"
    assert hold_until_exit(before) is None
    with pytest.raises(RuntimeError), released_after():
        assert hold_until_exit(before) is hold_until_exit(within) is None
        raise RuntimeError
    assert holder_of(within) is None and holder_of(before) is not None


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(37, "No locks available")])
def test_without_file_locks_the_note_of_a_running_process_decides(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("semi_nnunet.util.lock.FileLock.acquire", refuse)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    notes = {  # process, host -> does it block?
        (ended.pid, os.uname().nodename): False,
        (os.getppid(), os.uname().nodename): True,
        (ended.pid, "another-host"): True,
    }
    for number, ((process, host), blocks) in enumerate(notes.items()):
        path = tmp_path / f"{number}.lock"
        write_json(note_of(path), {"host": host, "process": process, "since": "noon"})
        holder = hold_until_exit(path)
        assert holder == (f"process {process} on {host} since noon" if blocks else None)


def test_workers_that_outlive_a_killed_process_do_not_block(tmp_path):
    path = tmp_path / ".lock"
    worker = HOLD.replace(
        "time.sleep(60)", "import os; os.write(1, b'%d\\n' % os.fork()); time.sleep(60)"
    )
    command = [sys.executable, "-c", worker, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert {process.stdout.readline() != "0\n" for _ in range(2)} == {True, False}
        process.kill()
        process.wait()
        assert hold_until_exit(path) is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_waiting_process_learns_the_holder_and_gets_the_lock(tmp_path):
    path, holders = tmp_path / ".lock", []
    process = start_holder(path)

    def end(holder: str) -> None:
        holders.append(holder)
        process.kill()

    with held(path, end):
        since = holders[0][-19:]
        assert holders == [f"process {process.pid} on {os.uname().nodename} since {since}"]
        assert (holder_of(path) or "").startswith(f"process {os.getpid()} ")
    process.wait()
    assert holder_of(path) is None
    with held(path, end):
        assert len(holders) == 1


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(37, "No locks available")])
def test_without_file_locks_a_running_process_is_waited_for(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    path = tmp_path / ".lock"
    monkeypatch.setattr("semi_nnunet.util.lock.FileLock.acquire", refuse)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_json(note_of(path), {"host": os.uname().nodename, "process": process.pid})

    def end(_: str) -> None:
        process.communicate(b"\n")

    with held(path, end):
        assert process.returncode is not None


@pytest.mark.parametrize("content", ["[]", "3", "{}", "[" * 100_000])
def test_an_unreadable_note_names_no_process_and_does_not_block_later(content, tmp_path):
    path = tmp_path / ".lock"
    process = start_holder(path)
    try:
        note_of(path).write_text(content)
        assert not is_of_the_dead(note_of(path))
        assert holder_of(path) == hold_until_exit(path) == "another process"
    finally:
        process.kill()
        process.wait()
    with held(path) as holder:
        assert holder is None


def test_an_impossible_process_number_does_not_count_as_ended(tmp_path):
    note = note_of(tmp_path / ".lock")
    write_json(note, {"host": os.uname().nodename, "process": 10**30})
    assert not is_of_the_dead(note)
