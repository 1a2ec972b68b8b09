"""One process on a job: the living are respected, the dead are not waited for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from semi_nnunet.util.lock import held, holder_of

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
        assert holder_of(path) == f"process {process.pid} on {os.uname().nodename}"
        with held(path) as other:
            assert other == f"process {process.pid} on {os.uname().nodename}"
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
