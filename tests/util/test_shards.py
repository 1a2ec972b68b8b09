"""The shard of a case, and the process that works on it."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.util.command import Command
from semi_nnunet.util.lock import held
from semi_nnunet.util.shards import (
    Shard,
    find_unfinished_shards,
    holders,
    remove_unfinished,
    shard_of,
)


@dataclass(frozen=True)
class FolderWork:
    """Unfinished cases."""

    shards: Path
    names: frozenset[str] = frozenset()
    title: str = ""

    @property
    def cases(self) -> dict[str, None]:
        return dict.fromkeys(self.names)

    def find_unfinished(self, cases: Collection[str] | None = None) -> list[str]:
        return list(self.names if cases is None else cases)

    def shard_command(self, number: int, count: int, device: str) -> Command:
        return ("do", str(number), str(count), device)


def make_shard(folder: Path, number: int, of: int) -> Shard[FolderWork]:
    return Shard(FolderWork(folder), number, of)


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 20))
def test_every_case_is_in_one_shard_and_only_shards_with_cases_are_listed(
    cases: set[str], count: int
) -> None:
    work = FolderWork(Path("pool"), frozenset(cases))
    shards = [Shard(work, number, count) for number in range(count)]
    holding = [[shard.number for shard in shards if shard.holds(case)] for case in cases]
    assert all(len(numbers) == 1 for numbers in holding)
    assert find_unfinished_shards(work, count) == sorted({number for (number,) in holding})
    assert sorted(case for shard in shards for case in shard.cases()) == sorted(cases)
    assert [shard.number for shard in shards if not shard.is_done] == (
        find_unfinished_shards(work, count)
    )


def test_the_shard_of_a_case_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Otherwise two processes would work on one case, and none on another."""
    assert shard_of("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32
    assert shard_of("ü", 2**32) == zlib.crc32(b"\xc3\xbc")  # of UTF-8
    counts = [sum(shard_of(f"case{i}", 4) == shard for i in range(4000)) for shard in range(4)]
    assert min(counts) > 800  # they share the work


def test_all_files_of_two_shards_have_different_names() -> None:
    shards = [make_shard(Path("pool"), *numbers) for numbers in ((0, 2), (1, 2), (0, 3), (1, 12))]
    for kind in ("finished", "log", "lock", "aside"):
        assert len({getattr(shard, kind) for shard in shards}) == len(shards)
    assert str(shards[1]) == "shard 2 of 2"
    assert shards[3].finished == Path("pool/part_00001_of_00012.jsonl")
    assert shards[3].lock == Path("pool/.part_00001_of_00012.lock")


def test_the_process_of_a_shard_is_known_while_it_runs(tmp_path: Path) -> None:
    first, second = (make_shard(tmp_path, number, 2) for number in range(2))
    with held(first.lock):
        ((name, holder),) = holders(tmp_path).items()
        assert name == first.name and holder.startswith("process ")
    with held(second.lock):
        assert list(holders(tmp_path)) == [second.name]
    assert holders(tmp_path) == holders(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("as_folder", [True, False])
def test_only_unfinished_files_of_running_shards_are_kept(tmp_path: Path, as_folder: bool) -> None:
    numbers = (0, 2), (1, 2), (3, 5)
    shards = running, _, _ = [make_shard(tmp_path, *pair) for pair in numbers]
    for shard in shards:
        if as_folder:
            (shard.aside / "case").mkdir(parents=True)
        else:
            shard.aside.with_name(f"{shard.aside.name}.case.nii.gz").write_text("half")
        shard.finished.write_text("{}\n")
    with held(running.lock):
        remove_unfinished(tmp_path)
    names = {path.name for path in tmp_path.glob(".writing_*")}
    assert names == {running.aside.name if as_folder else f"{running.aside.name}.case.nii.gz"}
    assert len(list(tmp_path.glob("*.jsonl"))) == 3  # lists of finished cases are kept
    remove_unfinished(tmp_path)
    assert not list(tmp_path.glob(".writing_*"))
