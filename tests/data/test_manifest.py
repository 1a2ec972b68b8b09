"""The list of finished cases survives a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cases").mkdir()
    return tmp_path / "cases"


def finished(
    folder: Path, case: str, source: str = "s", content: bytes = b"voxels"
) -> ManifestEntry:
    path = folder / f"{case}.b2nd"
    path.write_bytes(content)
    return ManifestEntry.of(case, source, [path], {"shape": [1, 2, 3]})


def test_entries_are_read_back(folder: Path) -> None:
    entries = [finished(folder, case) for case in ("a", "b with space", "ü")]
    for entry in entries:
        Manifest(folder).add(entry)
    assert list(Manifest(folder).read().values()) == entries


def test_a_missing_manifest_is_empty(folder: Path) -> None:
    assert Manifest(folder).read() == {}


@pytest.mark.parametrize("keep", [1, 10, -2, -1])
def test_a_torn_last_line_is_ignored_and_the_next_one_is_not_lost(folder: Path, keep: int) -> None:
    manifest = Manifest(folder)
    for case in "ab":
        manifest.add(finished(folder, case))
    first, last = manifest.path.read_bytes().splitlines(keepends=True)
    manifest.path.write_bytes(first + last[:keep])
    assert set(manifest.read()) == ({"a", "b"} if keep == -1 else {"a"})
    manifest.add(finished(folder, "c"))
    assert {"a", "c"} <= set(manifest.read())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 50, b"\xff\xfe", b"3\n", b'{"case": "z"}\n', b"[" * 100_000 + b"\n",
        b'{"case": [], "source": "s", "files": {"z.b2nd": [1, "a"]}}\n',
        b'{"case": "z", "source": "s", "files": {}}\n',  # done, and no file says otherwise
        b'{"case": "z", "source": "s", "files": null}\n',
        b'{"case": "z", "source": "s", "files": {"z.b2nd": [1]}}\n',
        b'{"case": "a", "source": "s", "files": {"a.b2nd": [6, "a"]}, "when": "later"}\n',
    ],
)  # fmt: skip
def test_garbage_between_lines_is_ignored(folder: Path, garbage: bytes) -> None:
    manifest = Manifest(folder)
    manifest.add(finished(folder, "a"))
    with open(manifest.path, "ab") as file:
        file.write(garbage)
    manifest.add(finished(folder, "b"))
    assert set(manifest.read()) == {"a", "b"}


def test_the_newest_entry_of_a_case_wins(folder: Path) -> None:
    manifest = Manifest(folder)
    for source in ("old", "new"):
        manifest.add(finished(folder, "a", source))
    assert manifest.read()["a"].source == "new"


def test_a_case_is_present_only_with_all_its_bytes(folder: Path) -> None:
    manifest = Manifest(folder)
    for case in "abc":
        manifest.add(finished(folder, case))
    (folder / "a.b2nd").unlink()
    (folder / "b.b2nd").write_bytes(b"vox")
    assert set(manifest.present()) == {"c"}


def test_a_changed_byte_is_present_but_not_intact(folder: Path) -> None:
    entry = finished(folder, "a")
    assert entry.is_present(folder) and entry.is_intact(folder)
    (folder / "a.b2nd").write_bytes(b"voxelS")
    assert entry.is_present(folder) and not entry.is_intact(folder)


def test_the_newest_entry_of_several_lists_wins(folder: Path) -> None:
    lists = [None, *(folder.with_name("cases.parts") / f"part_{n}.jsonl" for n in (1, 0))]
    for number, path in enumerate(lists):
        Manifest(folder, path).add(finished(folder, "a", f"source {number}"))
    Manifest(folder, lists[1]).add(finished(folder, "b"))
    assert {case: entry.source for case, entry in Manifest(folder).read().items()} == {
        "a": "source 2",
        "b": "s",
    }
    assert Manifest(folder, lists[1]).read()["a"].source == "source 1"
