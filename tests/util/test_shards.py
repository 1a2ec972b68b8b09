"""Which part of a pool a case belongs to, and who works on it now."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.util.lock import held
from semi_nnunet.util.shards import Shard, holders, remove_unfinished, shard_of, shards_holding


@dataclass(frozen=True)
class Part(Shard):
    where: Path
    number: int
    of: int

    @property
    def folder(self) -> Path:
        return self.where


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 20))
def test_every_case_is_in_one_part_and_parts_without_a_case_are_not_begun(
    cases: set[str], count: int
) -> None:
    parts = [Part(Path("pool"), number, count) for number in range(count)]
    holding = [[part.number for part in parts if part.holds(case)] for case in cases]
    assert all(len(numbers) == 1 for numbers in holding)
    assert shards_holding(cases, count) == sorted({number for (number,) in holding})


def test_the_part_of_a_case_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Else two processes would work on one case, and none on another."""
    assert shard_of("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32
    assert shard_of("ü", 2**32) == zlib.crc32(b"\xc3\xbc")  # of UTF-8
    counts = [sum(shard_of(f"case{i}", 4) == part for i in range(4000)) for part in range(4)]
    assert min(counts) > 800  # they share the work


def test_parts_are_told_apart_by_all_of_their_files() -> None:
    parts = [Part(Path("pool"), *which) for which in ((0, 2), (1, 2), (0, 3), (1, 12))]
    for kind in ("finished", "log", "lock", "aside"):
        assert len({getattr(part, kind) for part in parts}) == len(parts)
    assert str(parts[1]) == "shard 2 of 2"
    assert parts[3].finished == Path("pool/part_00001_of_00012.jsonl")
    assert parts[3].lock == Path("pool/.part_00001_of_00012.lock")


def test_who_holds_a_part_is_known_while_it_is_held(tmp_path: Path) -> None:
    first, second = (Part(tmp_path, number, 2) for number in range(2))
    with held(first.lock):
        ((name, holder),) = holders(tmp_path).items()
        assert name == first.name and holder.startswith("process ")
    with held(second.lock):
        assert list(holders(tmp_path)) == [second.name]
    assert holders(tmp_path) == holders(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("as_folder", [True, False])
def test_what_the_living_write_stays_and_the_rest_is_removed(
    tmp_path: Path, as_folder: bool
) -> None:
    living, dead, of_before = (Part(tmp_path, *which) for which in ((0, 2), (1, 2), (3, 5)))
    for part in (living, dead, of_before):
        if as_folder:
            (part.aside / "case").mkdir(parents=True)
        else:
            part.aside.with_name(f"{part.aside.name}.case.nii.gz").write_text("half")
        part.finished.write_text("{}\n")
    with held(living.lock):
        remove_unfinished(tmp_path)
    left = {path.name for path in tmp_path.glob(".writing_*")}
    assert left == {living.aside.name if as_folder else f"{living.aside.name}.case.nii.gz"}
    assert len(list(tmp_path.glob("*.jsonl"))) == 3  # what is finished stays
    remove_unfinished(tmp_path)
    assert not list(tmp_path.glob(".writing_*"))
