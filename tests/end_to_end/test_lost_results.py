"""The folder of results is lost while a training runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.end_to_end.bench import Bench, check_files, saved, train


@pytest.mark.slow
@pytest.mark.parametrize("way", ["removed", "read_only"])
def test_a_training_that_loses_its_results_ends_with_a_message_and_continues(
    way: str, make_bench: Callable[[bool], Bench]
) -> None:
    bench = make_bench(True)
    disk, work = bench.disk, train(bench, epochs=2)
    before = disk.files()
    results = bench.place("results")
    lose = disk.make_read_only if way == "read_only" else lambda: shutil.rmtree(results)
    code, said = disk.run(work, at={"Epoch 1": lambda: (saved(disk), lose())})
    if way == "read_only":
        disk.make_writable()
    assert code == 1 and "Traceback" not in said, said[-3000:]
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert "could not write " in line and str(results) in line and ". Fix: " in line
    check_files(disk, before)
    code, said = disk.run(work)
    assert code == 0, said[-3000:]
    assert ("Loaded " in said) == (way == "read_only")
