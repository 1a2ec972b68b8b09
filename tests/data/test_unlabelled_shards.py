"""Unlabelled cases preprocessed in shards equal those of a single process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.cases import Case
from semi_nnunet.preprocessing.manifest import Manifest, get_manifest_file
from semi_nnunet.preprocessing.prepare import (
    PrepareOptions,
    prepare_for_training,
    prepare_labelled,
)
from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import held
from semi_nnunet.util.shards import Shard, find_unfinished_shards
from tests.data.copied import Copy, names
from tests.data.preprocessed import content
from tests.real_slurm import said, slurm  # noqa: F401
from tests.runs.tiny import wait_for

Begun = tuple[UnlabelledPreprocessing, list[Case], dict[str, str]]


@pytest.fixture
def begun(copy: Copy) -> Begun:
    """Unlabelled cases that are not preprocessed yet, and the files that one process makes."""
    prepared = prepare_labelled(copy.number, PrepareOptions(["2d"]))
    (pool,) = prepared.pools()
    expected = content(pool.folder)
    shutil.rmtree(pool.folder)
    get_manifest_file(pool.folder).unlink()
    pool.begin(prepared.unlabelled)
    return pool, prepared.unlabelled, expected


def listed(pool: UnlabelledPreprocessing) -> list[str]:
    """The case of every line of every shard's list."""
    lines = [line for path in pool.shards.glob("*.jsonl") for line in path.open()]
    return [json.loads(line)["case"] for line in lines]


def temporary(pool: UnlabelledPreprocessing) -> list[Path]:
    return [*pool.folder.parent.glob("*.tmp"), *pool.shards.glob(".writing_*")]


def test_shards_share_the_work_and_give_the_same_files(begun: Begun) -> None:
    pool, cases, expected = begun
    for number in find_unfinished_shards(pool, 3):
        pool.preprocess_shard(shard := Shard(pool, number, 3), 1)
        assert shard.is_done
    assert content(pool.folder) == expected and not temporary(pool)
    assert sorted(listed(pool)) == sorted(case.name for case in cases)
    assert Manifest(pool.folder).present().keys() == {case.name for case in cases}
    assert not find_unfinished_shards(pool, 3) and not find_unfinished_shards(pool, 5)


def test_other_shards_finish_the_work_of_killed_ones(begun: Begun) -> None:
    pool, cases, expected = begun
    first, *others = find_unfinished_shards(pool, 3)
    pool.preprocess_shard(Shard(pool, first, 3), 1)
    killed = Shard(pool, others[0], 3)
    half = next(iter(killed.cases()))
    (killed.aside / half).mkdir(parents=True)
    (killed.aside / half / f"{half}.pkl").write_text("half")
    (pool.folder / f"{half}.pkl").write_text("half")
    before = {path: path.stat().st_mtime_ns for path in pool.folder.glob("*.b2nd")}
    pool.begin(cases)
    for number in find_unfinished_shards(pool, 2):
        pool.preprocess_shard(Shard(pool, number, 2), 1)
    assert content(pool.folder) == expected and not temporary(pool)
    assert sorted(listed(pool)) == sorted(case.name for case in cases)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_removed_cases_are_deleted_and_changed_ones_are_unfinished(begun: Begun) -> None:
    pool, cases, _ = begun
    for number in find_unfinished_shards(pool, 1):
        pool.preprocess_shard(Shard(pool, number, 1), 1)
    gone, changed, *same = cases
    now = [Case(changed.name, changed.images, None, "another"), *same]
    pool.begin(now)
    assert gone.name not in Manifest(pool.folder).present()
    assert pool.find_unfinished() == [changed.name]


def test_two_processes_never_work_on_the_same_files(begun: Begun, copy: Copy) -> None:
    pool, cases, _ = begun
    with held(Shard(pool, 0, 2).lock):
        with pytest.raises(UserError, match=r"part_00000_of_00002: process \d+ on .*Fix: wait"):
            pool.begin(cases)
        with pytest.raises(UserError, match="being worked on"):
            copy.prepare()


@pytest.mark.parametrize("has_launcher", [False, True])
def test_prepare_runs_unfinished_shards_itself_or_hands_them_to_the_launcher(
    begun: Begun, copy: Copy, has_launcher: bool
) -> None:
    pool, _, expected = begun
    pool.preprocess_shard(Shard(pool, find_unfinished_shards(pool, 3)[0], 3), 1)
    calls: list[tuple[int, list[int]]] = []

    class Launcher:
        is_local = True

        def __call__(
            self, shards: list[Shard[UnlabelledPreprocessing]], unfinished: list[int]
        ) -> bool:
            calls.append((len(shards), unfinished))
            return False

    launcher = Launcher() if has_launcher else None
    result = prepare_for_training(copy.number, PrepareOptions(["2d"]), 3, launcher)
    if has_launcher:
        assert result is None and calls == [(3, find_unfinished_shards(pool, 3))]
    else:
        assert result == {"2d": (5, 4)} and content(pool.folder) == expected


@pytest.mark.slow
def test_the_command_launches_the_shards(
    begun: Begun, copy: Copy, capfd: pytest.CaptureFixture[str]
) -> None:
    pool, _, expected = begun
    words = ["preprocess", "-d", copy.number, "-c", "2d", "--shards", "2"]
    words += ["--jobs", "2", "-np", "1"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "2 shards to do" in said and "5 labelled and 4 unlabelled cases" in said
    assert content(pool.folder) == expected and not temporary(pool)
    assert main(words) == 0
    assert "0 shards to do" in capfd.readouterr().out
    case = names(copy.raw / "imagesUn")[0]
    (copy.raw / f"imagesUn/{case}_0000.nii.gz").write_text("no image")
    assert main(words) == 2  # all images are verified before a shard starts
    assert case in capfd.readouterr().err


@pytest.mark.slow
def test_shards_on_a_real_slurm(
    begun: Begun,
    copy: Copy,
    slurm: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    pool, _, expected = begun
    words = ["preprocess", "-d", copy.number, "-c", "2d", "--shards", "2", "-np", "1"]
    assert main([*words, "--launcher", "slurm", "--sbatch=--time=1:00:00"]) == 0
    wait_for(lambda: not said("squeue", "-h", "-o", "%i"), 240)
    assert content(pool.folder) == expected and not temporary(pool)
    capfd.readouterr()
    assert main(words) == 0
    said_last = capfd.readouterr().out
    assert "0 shards to do" in said_last and "5 labelled and 4 unlabelled cases" in said_last
