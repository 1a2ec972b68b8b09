"""A machine is called by its processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from semi_nnunet.util.machine import is_running, processor_name, usable_cores
from tests.forking import ended_process


def test_the_processor_is_named_without_double_spaces(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n", encoding="utf-8")
    assert processor_name(file) == "Some CPU @ 2 GHz"


def test_where_the_system_does_not_tell_the_architecture_is_the_name(tmp_path):
    file = tmp_path / "cpuinfo"
    name = processor_name(file)
    assert name and name in (platform.processor(), platform.machine(), "unknown processor")
    file.write_text("model name :\nHardware : x\n", encoding="utf-8")
    assert processor_name(file) == name


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no cores")
def test_cores_that_a_cluster_did_not_give_are_not_used():
    assert 1 <= usable_cores() <= os.cpu_count()
    code = (
        "import os; from semi_nnunet.util.machine import usable_cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


def test_a_process_is_told_from_one_that_ended_and_from_no_number():
    assert is_running(str(os.getpid())) and is_running("1")
    assert not any(map(is_running, (str(ended_process()), "", "12a", "9" * 30)))
