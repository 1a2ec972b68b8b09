"""Files of every kind that the commands write: damaged, moved, read-only, or of another time."""

from __future__ import annotations

import ast
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.end_to_end.every_file import (
    KINDS,
    WAS_DONE,
    FileKind,
    RefusedError,
    Workplace,
    compare,
    crossval,
    export,
    label,
    list_files,
    preprocess,
    report,
    select,
    status,
    write_everything,
)

ROUNDS = int(os.environ.get("SEMI_NNUNET_TORTURE", "1"))  # random damages of each kind
SEED = os.environ.get("SEMI_NNUNET_TORTURE_SEED", "0")
READ = [kind for kind in KINDS if kind.readers]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a workplace, and a copy of its content."""
    folder = tmp_path_factory.mktemp("everything")
    return folder / "work", folder / "kept"


@pytest.fixture
def place(
    everything: tuple[Path, Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """The workplace as the commands left it."""
    work, kept = everything
    made = Workplace(work, capsys, monkeypatch)
    if not kept.exists():
        write_everything(made, work.parent / "wheels")
        shutil.copytree(work, kept)
    monkeypatch.chdir("/")
    shutil.rmtree(work, ignore_errors=True)  # a test may have moved it
    shutil.copytree(kept, work)
    made.set_paths()
    return made


@pytest.mark.slow
def test_every_written_file_is_of_a_kind_in_the_table(place: Workplace) -> None:
    files = list_files(place.root)
    unknown = [name for name in files if not any(kind.matches(name) for kind in KINDS)]
    assert unknown == []
    unwritten = [kind.pattern for kind in READ if not any(map(kind.matches, files))]
    assert unwritten == []


# Names in the code of files that this package only reads, or writes for a moment.
NOT_WRITTEN = {
    "modules.json", "Thumbs.db", "x.html", "mlflow.db", "*information*.csv", "cases.json",
    "array_*.sh", "ray_*.log", "results.json", "results.md", "curves.png", "overlays.png",
    "outliers.csv", "outliers.png", "semi_predicted.json",
}  # fmt: skip


def test_every_file_name_in_the_code_is_of_a_kind_in_the_table() -> None:
    pattern = re.compile(
        r"[\w*.-]{3,}\.(jsonl?|csv|pth|npz|html|md|png|txt|lock|zip|db|log|b2nd|pkl)"
    )
    package = Path(__file__).parents[2] / "semi_nnunet"
    names: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        if path.parent.name == "datasets":  # files of other people
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts
            )
            if pattern.fullmatch(text):
                names[text] = path.name
    known = {Path(kind.pattern).name for kind in KINDS} - {"*", "*.*", "Dataset902*.*"}
    unknown = {
        name: file
        for name, file in names.items()
        if name not in NOT_WRITTEN
        and not any(fnmatchcase(name, other) or fnmatchcase(other, name) for other in known)
    }
    assert names and unknown == {}


def damage(content: bytes, kind: FileKind, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield damaged contents, with what was done."""
    yield "empty", b""
    yield "half", content[: len(content) // 2]
    for _ in range(ROUNDS):
        length = chance.randrange(len(content))
        yield f"the first {length} of {len(content)} bytes", content[:length]
        if kind.notices:
            place, bit = chance.randrange(len(content)), 1 << chance.randrange(8)
            changed = bytearray(content)
            changed[place] ^= bit
            yield f"byte {place} of {len(content)} changed by {bit}", bytes(changed)


def inject(kind: FileKind, place: Workplace) -> tuple[int, list[str]]:
    """Damage files of a kind; return how often, and what was lost."""
    chance = random.Random(f"{SEED} {kind.pattern}")
    names = [name for name in list_files(place.root) if kind.matches(name)]
    count, lost = 0, list[str]()
    for reader in kind.readers:
        expected = reader(place)
        path = place.root / chance.choice(names)
        content = path.read_bytes()
        for what, damaged in damage(content, kind, chance):
            path.write_bytes(damaged)
            count += 1
            if loss := find_loss(kind, reader, place, path, expected):
                lost.append(f"{reader.__name__} of {path.relative_to(place.root)}, {what}: {loss}")
            path.write_bytes(content)
    return count, lost


def find_loss(
    kind: FileKind,
    reader: Callable[[Workplace], object],
    place: Workplace,
    path: Path,
    expected: object,
) -> str | None:
    """Read a damaged file; return what went wrong, if anything.

    A refusal must have a fix, and name the file or the command that writes it again.
    """
    try:
        value = reader(place)
    except RefusedError as refusal:
        said = str(refusal)
        if "Traceback" in said:
            return f"a traceback: {said[-300:]}"
        is_named = path.name in said or f"semi_nnunet {kind.writer}" in said
        if not (is_named and "Fix: " in said):
            return f"no name of the file, or no fix: {said[-300:]}"
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None if value in (expected, WAS_DONE) else "another result"


@pytest.mark.slow
@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.pattern.replace("/", "|"))
def test_a_damaged_file_is_refused_with_a_fix_or_made_again(
    kind: FileKind, place: Workplace, record_property: Callable[[str, object], None]
) -> None:
    count, lost = inject(kind, place)
    record_property("injected", count)
    record_property("lost", len(lost))
    assert lost == []


# Files whose damage is answered with the advice to remove them: nothing else writes them again.
REMOVED = (
    "dataset_fingerprint.json", "labelled/request.json", "pseudo_labels/*/request.json",
    "semi_crossval/jobs.json", "semi_auto/2d.json",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", REMOVED, ids=lambda ending: ending.replace("/", "|"))
def test_the_advice_to_remove_a_damaged_file_helps(ending: str, place: Workplace) -> None:
    for kind in (kind for kind in READ if kind.pattern.endswith(ending)):
        path = place.root / next(name for name in list_files(place.root) if kind.matches(name))
        for reader in kind.readers:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises(RefusedError, match="remove it"):
                reader(place)
            path.unlink()
            try:
                reader(place)
            except RefusedError as refusal:  # only another command writes the file
                assert "remove it" not in str(refusal) and "semi_nnunet" in str(refusal)
            path.write_bytes(content)


def move(place: Workplace) -> Workplace:
    """Move everything to another folder."""
    target = place.root.with_name("moved")
    shutil.rmtree(target, ignore_errors=True)
    place.root.rename(target)
    moved = Workplace(target, place.capture, place.patch)
    moved.set_paths()
    return moved


def date_to_the_future(place: Workplace) -> Workplace:
    """Give half of the files a time in 2090."""
    for name in list_files(place.root)[::2]:
        os.utime(place.root / name, (3_800_000_000, 3_800_000_000))
    return place


def set_clock_back(place: Workplace) -> Workplace:
    """Set the clock ten years back."""
    place.patch.setattr(time, "time", lambda now=time.time: now() - 10 * 365 * 86400)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("change", [move, date_to_the_future, set_clock_back])
def test_nothing_is_repeated_or_lost_at_another_place_or_time(
    change: Callable[[Workplace], Workplace], place: Workplace
) -> None:
    readers = (status, crossval, compare, preprocess, export)
    expected = {reader: without_root(reader(place), place) for reader in readers}
    changed = change(place)
    for reader, value in expected.items():
        assert without_root(reader(changed), changed) == value, reader.__name__


def without_root(value: object, place: Workplace) -> object:
    """Replace the place in a text."""
    return value.replace(str(place.root), "ROOT") if isinstance(value, str) else value


@pytest.mark.slow
def test_read_only_data_and_results_can_be_used(
    place: Workplace, read_only: Callable[[Path], None]
) -> None:
    readers = (status, compare, report, export)
    expected = [reader(place) for reader in readers]
    for name in ("raw", "preprocessed", "results"):
        read_only(place.root / name)
    assert [reader(place) for reader in readers] == expected
    for writer in (crossval, preprocess, label, select):
        try:
            writer(place)
        except RefusedError as refusal:
            assert "Traceback" not in str(refusal) and "Fix: " in str(refusal)
