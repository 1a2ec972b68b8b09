"""The command labels the unfinished cases of a pool, also on a cluster that loses a node."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.label import (
    label_shard,
    make_labelling_request,
    require_confidence,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.runs.launching import build_batch_script
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file
from semi_nnunet.util.shards import Shard
from semi_nnunet.verbs.options import Launcher
from semi_nnunet.verbs.pseudo_label import pseudo_label
from tests.pseudo_labels.labelling import label

CASES = 40  # enough to be interrupted


def test_the_command_labels_in_shards_writes_the_table_and_repeats_no_work(pool, capfd):
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", *pool.names]
    words += ["--device", "cpu", "--shards", "2"]
    assert main(words) == 0
    output = capfd.readouterr().out
    assert "labelled 4 cases" in output
    rows = list(csv.DictReader((pool.out / "uncertainty.csv").open()))
    assert len(rows) == 4 and list(rows[0]) == ["case", "entropy", "disagreement"]
    assert [r["case"] for r in rows] == [
        r["case"] for r in sorted(rows, key=lambda r: float(r["disagreement"]))
    ]
    times = {path: path.stat().st_mtime_ns for path in (pool.out / "labels").iterdir()}
    new = next(pool.images.iterdir())
    shutil.copy(new, new.with_name(f"another_{new.name}"))
    assert main([*words, "--jobs", "1"]) == 0
    assert "labelled 5 cases" in capfd.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert main([*words[:-2], "--views", "blur"]) == 2
    assert "begun with other" in capfd.readouterr().err


def test_a_bad_image_is_skipped_and_the_others_are_labelled(pool, capfd):
    bad = sorted(pool.images.iterdir())[1]
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--device", "cpu"]) == 0
    output = capfd.readouterr().out
    assert "labelled 3 cases" in output and f"skipped: {bad.name[:-12]}: {bad.name}" in output
    assert main([*words, "--device", "cpu"]) == 0  # as it is, it is not tried again
    assert "0 shards to do" in capfd.readouterr().out
    bad.write_bytes(content)
    shutil.copy(bad, bad.with_name("without_channel.nii.gz"))
    assert main([*words, "--device", "cpu"]) == 0
    output = capfd.readouterr()
    assert "labelled 4 cases" in output.out and "without_channel" in output.out + output.err


@pytest.mark.slow
def test_tasks_of_a_cluster_label_their_shards(pool, tmp_path):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    request.begin()
    words = [*map(str, request.command(2)[1:]), "--device", "cpu"]
    (tmp_path / "array.sh").write_text(build_batch_script(words, [0, 1], 2, tmp_path, ""))
    for number in ("0", "1"):
        subprocess.run(
            ["bash", str(tmp_path / "array.sh")],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": number},
            check=True,
        )
    assert not request.find_unfinished() and len(request.done()) == 4


def test_a_confidence_of_80_is_refused(pool, capsys):
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--confidence", "80"]) == 2
    assert "--confidence" in capsys.readouterr().err


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes on this machine, with a core each."""
    ray_cluster = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    nodes = ray_cluster.Cluster(initialize_head=True, head_node_args=options)
    nodes.add_node(**options)
    yield nodes
    nodes.shutdown()
    signal.signal(signal.SIGTERM, handler)  # Ray's would end a worker of pytest


def read_lines(shard: Shard[LabellingRequest]) -> list[str]:
    return shard.finished.read_text().splitlines() if shard.finished.is_file() else []


def find_workers(out: Path) -> dict[int, int]:
    """Return number of a shard -> the process that labels it."""
    processes = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "--worker" in words and str(out) in words:
                processes[int(words[words.index("--only") + 1])] = int(process.name)
    return processes


@pytest.mark.slow
def test_a_lost_node_costs_only_time(pool, cluster, tmp_path, capfd):
    for number in range(CASES - 4):
        source = next(pool.images.iterdir())
        shutil.copy(source, pool.images / f"more{number}_0000.nii.gz")
    clean = LabellingRequest(pool.images, tmp_path / "clean", (pool.names[0],))
    label(clean)
    request = replace(clean, out=pool.out)
    shards = [Shard(request, number, 2) for number in (0, 1)]

    def lose_a_node() -> None:
        while not all(begun := [bool(read_lines(shard)) for shard in shards]):
            for number, worker in find_workers(request.out).items():
                if begun[number]:  # one that is ahead waits, or it might have ended
                    os.kill(worker, signal.SIGSTOP)
            time.sleep(0.05)
        for worker in find_workers(request.out).values():
            os.kill(worker, signal.SIGCONT)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    words = [*map(str, request.command(2)[1:]), "--device", "cpu", "--launcher", "ray"]
    assert main([*words, "--ray-address", cluster.address]) == 0
    thread.join()
    output = capfd.readouterr().out
    assert f"labelled {CASES} cases" in output and "[  2/2]" in output
    assert sorted(shard.log.read_text().count("\n1 of ") for shard in shards) == [1, 2]
    written, expected = (
        {path.name: sha256_of_file(path) for path in labelled.labels.iterdir()}
        for labelled in (request, clean)
    )
    assert written == expected
    cases = [line.split('"')[3] for shard in shards for line in read_lines(shard)]
    assert sorted(cases) == sorted(request.cases)
    assert not [path for path in pool.out.rglob("*") if path.name.startswith(".writing_")]


def test_without_ray_the_error_has_a_fix(pool, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--launcher", "ray", "--device", "cpu"]) == 2
    assert "pip install 'semi_nnunet[ray]'" in capsys.readouterr().err


def test_an_unreachable_cluster_is_reported(pool, capsys):
    pytest.importorskip("ray")
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    words += ["--launcher", "ray", "--device", "cpu", "--ray-address", "127.0.0.1:1"]
    assert main(words) == 2
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_a_request_has_absolute_paths(pool, monkeypatch):
    monkeypatch.chdir(pool.images.parent)
    folder = Path(pool.names[0])
    relative = make_labelling_request(
        "images", "labelled", [str(folder.relative_to(Path.cwd()))], ["blur"]
    )
    assert relative == make_labelling_request(pool.images, pool.out, [str(folder)], ["blur"])
    below_results = make_labelling_request("images", "labelled", ["Dataset901/Trainer__plans__2d"])
    assert below_results.models == ("Dataset901/Trainer__plans__2d",)  # as it was named


@pytest.mark.parametrize("confidence", [-0.1, 1.0, 80, float("nan")])
def test_a_confidence_outside_0_to_1_is_refused(confidence, pool):
    with pytest.raises(UserError, match="--confidence"):
        make_labelling_request(pool.images, pool.out, pool.names, confidence=confidence)
    require_confidence(0.0), require_confidence(0.99)


def test_finished_cases_are_not_labelled_again(pool, capsys):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(request)
    times = {path: path.stat().st_mtime_ns for path in request.labels.iterdir()}
    labelled = pseudo_label(pool.images, pool.out, pool.names[:1], launcher=Launcher(device="cpu"))
    assert (
        labelled is not None and set(labelled.cases) == {*request.cases} and labelled.skipped == {}
    )
    assert labelled.folder == request.labels and labelled.table.is_file()
    assert "4 cases, 0 shards to do" in capsys.readouterr().out
    label_shard(request, 0, 1, "cpu")
    assert {path: path.stat().st_mtime_ns for path in request.labels.iterdir()} == times


def test_several_shards_give_the_labels_of_one(pool, tmp_path):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    whole = replace(request, out=tmp_path / "whole")
    label(whole)
    for number in range(3):
        label_shard(request, number, 3, "cpu")
    written, expected = (
        {path.name: sha256_of_file(path) for path in labelled.labels.iterdir()}
        for labelled in (request, whole)
    )
    assert written == expected and not request.find_unfinished()


def test_zero_shards_are_refused(pool):
    with pytest.raises(UserError, match=r"--shards .* got 0"):
        pseudo_label(pool.images, pool.out, pool.names, shards=0)
    assert not pool.out.exists()
