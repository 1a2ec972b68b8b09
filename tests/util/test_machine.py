"""The processor, the cores and the processes of a machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from semi_nnunet.util.machine import is_process_running, processor_name, usable_cores
from tests.forking import ended_process


def test_the_processor_is_named_without_double_spaces(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n", encoding="utf-8")
    assert processor_name(file) == "Some CPU @ 2 GHz"


def test_the_architecture_is_named_if_the_system_hides_the_processor(tmp_path):
    file = tmp_path / "cpuinfo"
    name = processor_name(file)
    assert name and name in (platform.processor(), platform.machine(), "unknown processor")
    file.write_text("model name :\nHardware : x\n", encoding="utf-8")
    assert processor_name(file) == name


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no cores")
def test_only_the_cores_of_the_job_are_counted():
    assert 1 <= usable_cores() <= os.cpu_count()
    code = (
        "import os; from semi_nnunet.util.machine import usable_cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


def test_ended_processes_and_other_texts_are_not_running():
    assert is_process_running(str(os.getpid())) and is_process_running("1")
    assert not any(map(is_process_running, (str(ended_process()), "", "12a", "9" * 30)))
