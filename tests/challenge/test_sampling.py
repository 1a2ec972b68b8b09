"""The measured cost is that of the program, from its start to its end."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import psutil
import pytest

from semi_nnunet.challenge.sampling import COARSE, Curve, ProgramCost, measure_program

HOLDS_MEMORY = "import time; held = bytearray(b'1') * 400 * 2**20; time.sleep(1.2)"
FORKS_THEN_HOLDS = """
import os, time
held = bytearray(b"1") * 200 * 2**20
for _ in range(8):
    if not os.fork():
        time.sleep(1)
        os._exit(0)
for _ in range(8):
    os.wait()
time.sleep(1)
more = bytearray(b"1") * 400 * 2**20
time.sleep(1)
"""
WORKS = "import time; end = time.process_time() + 1.5\nwhile time.process_time() < end: pass"


def test_areas_and_gaps_follow_from_the_samples():
    curve = Curve([1.0, 2.0, 4.0], [10.0, 20.0, 0.0])
    assert curve.area == 15 + 20
    assert curve.largest == 20
    assert curve.longest_gap(0.5, 4.5) == 2.0
    assert curve.longest_gap(0.5, 9.0) == 5.0
    empty = Curve()
    assert (empty.area, empty.largest, empty.longest_gap(1.0, 3.0)) == (0, 0, 2.0)


def test_memory_and_time_of_a_program_are_measured():
    idle = measure_program([sys.executable, "-c", "import time; time.sleep(1.2)"])
    holds = measure_program([sys.executable, "-c", HOLDS_MEMORY])
    assert holds.exit_code == 0 and holds.seconds > 1.2
    assert 400 < holds.own_memory - idle.own_memory + 2 < 450  # MiB, whatever others do
    assert holds.memory > holds.own_memory


def test_processes_started_earlier_are_not_counted():
    other = subprocess.Popen([sys.executable, "-c", HOLDS_MEMORY.replace("1.2", "60")])
    try:
        while psutil.Process(other.pid).memory_info().rss < 400 * 2**20:
            time.sleep(0.05)
        assert (
            measure_program([sys.executable, "-c", "import time; time.sleep(1)"]).own_memory < 100
        )
    finally:
        other.kill()
        other.wait()


def test_memory_shared_by_forks_does_not_hide_later_memory():
    forks = measure_program([sys.executable, "-c", FORKS_THEN_HOLDS])
    assert forks.exit_code == 0
    assert 600 < forks.own_memory < 700  # MiB; the forks together show 1,800


def test_work_uses_more_processor_than_sleep():
    works = measure_program([sys.executable, "-c", WORKS])
    per_processor = 100 / (os.cpu_count() or 1)
    assert works.cpu_area > 0.7 * 1.5 * per_processor
    assert works.seconds > 1.4


def test_a_program_is_ended_at_its_limit_with_its_children(tmp_path):
    script = tmp_path / "starts"
    script.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/child\nsleep 300\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    begin = time.monotonic()
    cost = measure_program([str(script)], limit=1.0)
    assert time.monotonic() - begin < 60
    assert cost.exit_code is None
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.1)


def test_lines_and_status_of_a_program_arrive():
    lines: list[str] = []
    program = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    cost = measure_program([sys.executable, "-u", "-c", program], say=lines.append)
    assert cost.exit_code == 3
    assert sorted(lines) == ["one", "two"]


def test_too_few_samples_are_detected():
    cost = ProgramCost(5.0, 1.0, 1.0, 1.0, None, None, COARSE + 0.01, 0)
    assert cost.is_coarse
    slow = measure_program([sys.executable, "-c", "import time; time.sleep(1.5)"], interval=1.2)
    assert slow.is_coarse


def test_a_tool_that_finds_no_gpu_counts_as_none(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for answer in ("echo NVIDIA-SMI has failed; exit 9", "echo [N/A]"):
        tool.write_text(f"#!/bin/sh\n{answer}\n")
        tool.chmod(0o755)
        cost = measure_program([sys.executable, "-c", "import time; time.sleep(0.8)"])
        assert cost.gpu_area is None and cost.gap < 0.8


def test_what_a_program_leaves_behind_does_not_hold_the_measurement(tmp_path):
    begin = time.monotonic()
    cost = measure_program(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/orphan; exit 3"])
    assert cost.exit_code == 3 and cost.seconds < 30 and time.monotonic() - begin < 30
    os.kill(int((tmp_path / "orphan").read_text()), 9)


def test_the_memory_of_a_gpu_is_read_from_nvidia_smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nwhile true; do echo 100; sleep 0.1; echo 300; sleep 0.1; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cost = measure_program([sys.executable, "-c", "import time; time.sleep(1)"])
    assert cost.gpu_memory == 300
    assert cost.gpu_area is not None and 100 * 0.5 < cost.gpu_area < 300 * (cost.seconds + 1)
