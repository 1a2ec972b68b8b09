"""Work in processes: in order, the same as without, and a killed process is named."""

from __future__ import annotations

import os

import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.parallel import in_processes


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(processes: int) -> None:
    jobs = list(range(7, 0, -1))
    assert list(in_processes(abs, jobs, processes, "counts")) == jobs


def test_a_killed_process_is_named() -> None:
    with pytest.raises(UserError, match=r"a process that counts was killed.*Fix: use fewer"):
        list(in_processes(os._exit, [1, 1, 1], 2, "counts"))
