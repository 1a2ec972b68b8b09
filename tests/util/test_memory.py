"""The memory of a process is limited by its machine and every enclosing control group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.util import memory
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.memory import (
    GIB,
    at_most,
    data_bytes,
    machine_memory,
    memory_bytes,
    peak_memory_bytes,
)


def write_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has 64 GiB."""
    monkeypatch.setattr(memory, "machine_memory", lambda: iter([64 * GIB]))


@pytest.mark.usefixtures("machine")
def test_the_smallest_limit_of_the_enclosing_groups_counts(tmp_path: Path) -> None:
    groups = write_file(tmp_path / "cgroup", "0::/job/step\n")
    write_file(tmp_path / "job/step/memory.max", "max\n")
    write_file(tmp_path / "job/memory.max", f"{8 * GIB}\n")
    assert memory_bytes(tmp_path, groups) == 8 * GIB
    write_file(tmp_path / "job/step/memory.max", f"{2 * GIB}\n")
    assert memory_bytes(tmp_path, groups) == 2 * GIB


@pytest.mark.usefixtures("machine")
def test_version_1_of_control_groups_is_read(tmp_path: Path) -> None:
    groups = write_file(tmp_path / "cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n")
    limit = write_file(tmp_path / "memory/a/memory.limit_in_bytes", str(3 * GIB))
    write_file(tmp_path / "memory/memory.limit_in_bytes", str(2**63 - 4096))  # no limit
    write_file(tmp_path / "a/memory.max", "5")  # no memory controller
    assert memory_bytes(tmp_path, groups) == 3 * GIB
    limit.write_text(str(2**63 - 4096))
    assert memory_bytes(tmp_path, groups) == 64 * GIB


@pytest.mark.usefixtures("machine")
def test_a_container_that_hides_its_group_has_the_limit_at_the_mount(
    tmp_path: Path,
) -> None:
    groups = write_file(tmp_path / "cgroup", "0::/../../elsewhere\n")
    write_file(tmp_path / "memory.max", str(GIB))
    assert memory_bytes(tmp_path, groups) == GIB


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("text", ["", "nonsense", "0::/job"])
def test_without_groups_the_machine_limits_the_memory(tmp_path: Path, text: str) -> None:
    groups = write_file(tmp_path / "cgroup", text)
    assert memory_bytes(tmp_path, groups) == 64 * GIB
    assert memory_bytes(tmp_path, tmp_path / "absent") == 64 * GIB


def test_a_system_that_reports_nothing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: iter([]))
    assert memory_bytes(tmp_path, tmp_path / "absent") is None


def test_this_machine_has_memory() -> None:
    limit = memory_bytes()
    assert limit is not None and limit > GIB / 2


def test_the_peak_of_this_process_is_below_the_memory_of_the_machine() -> None:
    peak = peak_memory_bytes()
    assert peak is not None and 2**20 < peak <= next(machine_memory())
    assert (peak_memory_bytes() or 0) >= peak


@pytest.mark.skipif(data_bytes() is None, reason="the system does not count it")
def test_allocations_above_the_limit_fail_inside_the_block() -> None:
    limit = (data_bytes() or 0) / GIB + 0.25
    with at_most(limit):
        assert np.ones(2**24, np.uint8).all()  # 16 MiB
        with pytest.raises(MemoryError):
            np.ones(2**29, np.uint8)
        with pytest.raises(RuntimeError, match="allocate memory"):
            torch.ones(2**29, dtype=torch.uint8)
    assert np.ones(2**29, np.uint8).all()
    with at_most(None):
        assert np.ones(2**29, np.uint8).all()


def test_a_limit_below_the_used_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "data_bytes", lambda: int(1.2 * GIB))
    with (
        pytest.raises(UserError, match=r"above the 1\.2 GiB .* got 1 GiB"),
        at_most(1.0),
    ):
        pass
    for strange in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UserError, match="above the 1"), at_most(strange):
            pass
    monkeypatch.setattr(memory, "data_bytes", lambda: None)
    with pytest.raises(UserError, match="needs Linux"), at_most(1.0):
        pass
