"""A pool is labelled by a Ray cluster that loses a node, as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.pool import PoolShard, Request
from semi_nnunet.util.files import sha256_of_file
from tests.pseudo_labels.test_pseudo_label import label

ray_cluster = pytest.importorskip("ray.cluster_utils")
CASES = 40  # enough to be interrupted


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes on this machine, with a core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    found = ray_cluster.Cluster(initialize_head=True, head_node_args=options)
    found.add_node(**options)
    yield found
    found.shutdown()
    signal.signal(signal.SIGTERM, before)  # Ray's would end a worker of pytest


def lines_of(part: PoolShard) -> list[str]:
    return part.finished.read_text().splitlines() if part.finished.is_file() else []


def workers(out: Path) -> dict[int, int]:
    """Number of a part -> the process that labels it."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "--worker" in words and str(out) in words:
                found[int(words[words.index("--only") + 1])] = int(process.name)
    return found


@pytest.mark.slow
def test_a_lost_node_costs_nothing_but_time(pool, cluster, tmp_path, capfd):
    for number in range(CASES - 4):
        source = next(pool.images.iterdir())
        shutil.copy(source, pool.images / f"more{number}_0000.nii.gz")
    clean = Request(pool.images, tmp_path / "clean", (pool.names[0],))
    label(clean)
    request = replace(clean, out=pool.out)
    parts = [PoolShard(request, number, 2) for number in (0, 1)]

    def lose_a_node() -> None:
        while not all(begun := [bool(lines_of(part)) for part in parts]):
            for number, worker in workers(request.out).items():
                if begun[number]:  # one that is ahead waits, or it might have ended
                    os.kill(worker, signal.SIGSTOP)
            time.sleep(0.05)
        for worker in workers(request.out).values():
            os.kill(worker, signal.SIGCONT)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    words = ["pseudo-label", *parts[0].arguments(), "--device", "cpu", "--launcher", "ray"]
    assert main([*words, "--ray-address", cluster.address]) == 0
    thread.join()
    said = capfd.readouterr().out
    assert f"labelled {CASES} cases" in said and "[  2/2]" in said
    assert sorted(part.log.read_text().count("\n1 of ") for part in parts) == [1, 2]
    written, wanted = (
        {path.name: sha256_of_file(path) for path in one.labels.iterdir()}
        for one in (request, clean)
    )
    assert written == wanted
    cases = [line.split('"')[3] for part in parts for line in lines_of(part)]
    assert sorted(cases) == sorted(request.cases)
    assert not [path for path in pool.out.rglob("*") if path.name.startswith(".writing_")]


def test_without_ray_the_fix_is_named(pool, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--launcher", "ray", "--device", "cpu"]) == 2
    assert "pip install 'semi_nnunet[ray]'" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named(pool, capsys):
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    words += ["--launcher", "ray", "--device", "cpu", "--ray-address", "127.0.0.1:1"]
    assert main(words) == 2
    assert "no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
