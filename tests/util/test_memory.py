"""The memory of a process is what its machine and every control group around it leave."""

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


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 GiB."""
    monkeypatch.setattr(memory, "machine_memory", lambda: iter([64 * GIB]))


@pytest.mark.usefixtures("machine")
def test_of_the_groups_around_a_process_the_least_limit_counts(tmp_path: Path) -> None:
    own = written(tmp_path / "cgroup", "0::/job/step\n")
    written(tmp_path / "job/step/memory.max", "max\n")
    written(tmp_path / "job/memory.max", f"{8 * GIB}\n")
    assert memory_bytes(tmp_path, own) == 8 * GIB
    written(tmp_path / "job/step/memory.max", f"{2 * GIB}\n")
    assert memory_bytes(tmp_path, own) == 2 * GIB


@pytest.mark.usefixtures("machine")
def test_the_first_version_of_control_groups_is_known(tmp_path: Path) -> None:
    own = written(tmp_path / "cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n")
    limit = written(tmp_path / "memory/a/memory.limit_in_bytes", str(3 * GIB))
    written(tmp_path / "memory/memory.limit_in_bytes", str(2**63 - 4096))  # no limit
    written(tmp_path / "a/memory.max", "5")  # of another controller
    assert memory_bytes(tmp_path, own) == 3 * GIB
    limit.write_text(str(2**63 - 4096))
    assert memory_bytes(tmp_path, own) == 64 * GIB


@pytest.mark.usefixtures("machine")
def test_a_container_that_does_not_show_its_group_has_the_limit_at_the_mount(
    tmp_path: Path,
) -> None:
    own = written(tmp_path / "cgroup", "0::/../../elsewhere\n")
    written(tmp_path / "memory.max", str(GIB))
    assert memory_bytes(tmp_path, own) == GIB


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("text", ["", "nonsense", "0::/job"])
def test_without_groups_it_is_that_of_the_machine(tmp_path: Path, text: str) -> None:
    own = written(tmp_path / "cgroup", text)
    assert memory_bytes(tmp_path, own) == 64 * GIB
    assert memory_bytes(tmp_path, tmp_path / "absent") == 64 * GIB


def test_a_system_that_tells_nothing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: iter([]))
    assert memory_bytes(tmp_path, tmp_path / "absent") is None


def test_this_machine_has_memory() -> None:
    found = memory_bytes()
    assert found is not None and found > GIB / 2


def test_the_peak_of_this_process_is_between_a_little_and_the_machine() -> None:
    before = peak_memory_bytes()
    assert before is not None and 2**20 < before <= next(machine_memory())
    assert (peak_memory_bytes() or 0) >= before


@pytest.mark.skipif(data_bytes() is None, reason="the system does not count it")
def test_what_would_take_more_than_the_limit_fails_and_later_does_not() -> None:
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


def test_a_limit_below_what_is_taken_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "data_bytes", lambda: int(1.2 * GIB))
    with (
        pytest.raises(UserError, match=r"above the 1\.2 GiB .* got 1 GiB\. Fix: raise it"),
        at_most(1.0),
    ):
        pass
    for strange in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UserError, match="above the 1"), at_most(strange):
            pass
    monkeypatch.setattr(memory, "data_bytes", lambda: None)
    with pytest.raises(UserError, match="needs Linux"), at_most(1.0):
        pass
