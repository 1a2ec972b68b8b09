"""Atomic writing: the old content or the new one, whatever happens."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from semi_nnunet.util.errors import DiskError, UserError
from semi_nnunet.util.files import (
    amount,
    could_not_write,
    file_in_the_way,
    folder_aside,
    optional_json,
    read_json,
    remove_leftovers,
    sha256_of_file,
    undo,
    undone_on_failure,
    write_atomically,
    write_json,
    writing,
)
from tests.forking import ended_process
from tests.mounting import mount_small

OLD, NEW = b"old " * 500, b"new!" * 700

# Writes NEW in chunks, and kills itself before or after the k-th call of an os function.
KILLED_CHILD = """
import os, signal, sys
from semi_nnunet.util.files import write_atomically
path, k, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
calls = 0
def dying(function):
    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls == k and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if calls == k:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped
for name in ("write", "fsync", "replace"):
    setattr(os, name, dying(getattr(os, name)))
def write(temporary):
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT)
    for start in range(0, 2800, 700):
        os.write(descriptor, b"new!" * 175)
    os.close(descriptor)
write_atomically(path, write)
"""

LIMITED_CHILD = """
import resource, sys
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(sys.argv[1], lambda temporary: temporary.write_bytes(b"x" * 100_000))
except UserError as error:
    print(error)
    sys.exit(2)
"""


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_point_leaves_the_old_content_or_the_new(target, when):
    seen = []
    for k in range(1, 20):
        target.write_bytes(OLD)
        child = run_child(KILLED_CHILD, target, k, when)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        seen.append(target.read_bytes())
        assert seen[-1] in (OLD, NEW)
        write_atomically(target, lambda temporary: temporary.write_bytes(b"next"))
        assert target.read_bytes() == b"next"
    assert len(seen) == 7  # four writes, two flushes, one rename
    renamed = 6 if when == "before" else 5
    assert seen == [OLD] * renamed + [NEW] * (7 - renamed)


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(target):
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyError("the writer's own mistake")

    with pytest.raises(KeyError):
        write_atomically(target, write)
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("torch's")])
def test_a_disk_error_is_reported_with_the_fix(target, error):
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(UserError, match=r"could not write .*GiB are free.*Fix: free"):
        write_atomically(target, write)
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


def test_a_file_size_limit_leaves_the_old_file_and_no_temporary(target):
    child = run_child(LIMITED_CHILD, target)
    assert child.returncode == 2, child.stderr
    assert "File too large" in child.stdout and "Fix:" in child.stdout
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount_small(folder, "1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tiny_disk):
    path = tiny_disk / "file.bin"
    path.write_bytes(OLD)
    with pytest.raises(UserError, match="No space left"):
        write_atomically(path, lambda temporary: temporary.write_bytes(b"x" * 2**21))
    assert path.read_bytes() == OLD
    assert list(tiny_disk.iterdir()) == [path]


def test_a_checkpoint_on_a_full_disk_leaves_the_old_one(tiny_disk):
    torch = pytest.importorskip("torch")
    from semi_nnunet.training import checkpoints

    path = tiny_disk / "checkpoint_latest.pth"
    checkpoints.save({"network_weights": {"w": torch.zeros(10)}}, path)
    with pytest.raises(UserError, match="could not write"):
        checkpoints.save({"network_weights": {"w": torch.zeros(2**20)}}, path)
    assert torch.equal(checkpoints.read_checkpoint(path)["network_weights"]["w"], torch.zeros(10))
    assert list(tiny_disk.iterdir()) == [path]


def test_a_folder_that_cannot_be_flushed_is_no_failure(target, monkeypatch):
    flush = os.fsync
    calls = []

    def only_files(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(22, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(target, lambda temporary: temporary.write_bytes(NEW))
    assert len(calls) == 2 and target.read_bytes() == NEW


@pytest.mark.parametrize("parent", ["absent", "file.bin"])
def test_a_parent_that_is_no_folder_is_reported(target, parent):
    path = target.parent / parent / "x.json"
    with pytest.raises(UserError, match="could not write"):
        write_json(path, {})


def test_a_folder_that_does_not_exist_is_no_full_disk(tmp_path):
    with pytest.raises(UserError, match="absent does not") as error:
        write_json(tmp_path / "absent" / "x.json", {})
    assert "create" in error.value.fix and "GiB" not in str(error.value)


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "device")
    with pytest.raises(UserError, match="is a device"):
        write_json(tmp_path / "device", {})
    assert (tmp_path / "device").is_fifo() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("path", [".", "", "folder"])
def test_a_folder_instead_of_a_file_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_json(path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_json_survives_the_round_trip(tmp_path):
    content = {"b": [1, 2.5, None, True], "a": {"ä": "ö"}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    assert list(read_json(tmp_path / "x.json")) == ["b", "a"]


def test_content_that_is_no_json_leaves_the_old_file(target):
    with pytest.raises(TypeError):
        write_json(target, {"x": object()})
    assert target.read_bytes() == OLD


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000],
    ids=["empty", "incomplete", "no UTF-8", "nested", "long number"],
)
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is not valid"):
        read_json(path)


def test_a_json_file_that_is_absent_or_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.json does not exist"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_an_optional_file_must_hold_an_object(tmp_path):
    path = tmp_path / "x.json"
    assert optional_json(path) == {}
    for content in (None, [["a", 1]], "x", 7):
        write_json(path, content)
        with pytest.raises(UserError, match=r"x\.json .*JSON object, got "):
            optional_json(path)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256_is_that_of_the_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    assert sha256_of_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_only_the_temporary_files_of_killed_writers_are_removed(tmp_path):
    leftover = tmp_path / ".checkpoint_latest.pth.4711.tmp"
    visible = [tmp_path / name for name in ("checkpoint_latest.pth", ".hidden", "notes.tmp")]
    for path in (leftover, *visible):
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(visible)


# ---- messages about a full disk ----

FULL = OSError(28, "No space left on device")


def full(_: Path) -> None:
    raise FULL


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kiB"),
        (1, "1 kiB"),
        (4096, "4 kiB"),
        (2**20 - 1, "1024 kiB"),
        (2**20, "1.0 MiB"),
        (10 * 2**20, "10.0 MiB"),
        (2**30, "1.00 GiB"),
        (3.25 * 2**30, "3.25 GiB"),
    ],
)
def test_bytes_are_shown_in_a_fitting_unit(count, text):
    assert amount(count) == text


def test_the_message_gives_the_needed_space_where_it_is_known(tmp_path):
    assert "; it takes about 90 kiB, and " in str(could_not_write("x", FULL, tmp_path, 90 * 2**10))
    assert "takes" not in str(could_not_write("x", FULL, tmp_path))
    with pytest.raises(DiskError, match=r"it takes about 1 kiB, and .* are free there"):
        write_atomically(tmp_path / "x", full, 5)


def test_an_error_is_one_line_with_the_free_space_and_the_state(tmp_path):
    error = RuntimeError("[enforce fail]\n. unexpected pos 128 vs 0")
    message = str(
        could_not_write("the model", error, tmp_path / "absent", state="Nothing was exported")
    )
    assert message.startswith(
        "could not write the model (RuntimeError: [enforce fail] . unexpected"
    )
    assert " are free there. Nothing was exported. Fix: free some space" in message
    assert "\n" not in message


def test_the_error_of_the_system_is_reported_instead_of_the_one_torch_makes_of_it(tmp_path):
    try:
        try:
            raise OSError(27, "File too large")
        except OSError:
            raise RuntimeError("unexpected pos 768 vs 662")  # noqa: B904
    except RuntimeError as error:
        assert "(OSError: File too large)" in str(could_not_write("x", error, tmp_path))


@pytest.mark.parametrize("number", [28, 122, 27, 30, 13])
def test_disk_errors_name_the_output(tmp_path, number):
    error = OSError(number, os.strerror(number))
    with (
        pytest.raises(DiskError, match=rf"could not write the atlas .*{os.strerror(number)}.*Fix:"),
        writing("the atlas", tmp_path),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyError("x"), OSError(2, "No such file"), RuntimeError("x")])
def test_other_errors_pass(tmp_path, error):
    with pytest.raises(type(error)) as raised, writing("the atlas", tmp_path):
        raise error
    assert raised.value is error


def test_an_unclear_error_is_a_disk_error_if_the_disk_is_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match=r"1\.0 MiB are free"), writing("x", tmp_path):
        raise RuntimeError("Error while creating the NDArray")


# ---- folders, and files that nnU-Net writes in place ----


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path):
    with folder_aside(tmp_path / "model", "Nothing was made") as aside:
        aside.mkdir()
        write_json(aside / "x.json", {})
        assert not (tmp_path / "model").exists()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["model/x.json"]


def test_of_two_processes_that_make_one_folder_the_first_wins_and_no_folder_is_half_written(
    tmp_path,
):
    target = tmp_path / "target"
    leftover = tmp_path / f".target.{os.uname().nodename}.{ended_process()}.tmp"
    of_another_host = tmp_path / ".target.elsewhere.1.tmp"
    for folder in (leftover, of_another_host):
        folder.mkdir()
    run = """
import sys
from pathlib import Path
from semi_nnunet.util.files import folder_aside
with folder_aside(Path(sys.argv[1]), "") as aside:
    aside.mkdir()
    (aside / "theirs").touch()
"""
    refused = pytest.raises(UserError, match="another process")
    with refused, folder_aside(target, "Nothing was made") as aside:
        aside.mkdir()
        (aside / "ours").touch()
        subprocess.run([sys.executable, "-c", run, str(target)], check=True)
        assert (aside / "ours").exists()  # the other process leaves it
    assert sorted(tmp_path.rglob("*")) == [of_another_host, target, target / "theirs"]


def test_a_folder_is_removed_if_the_disk_is_full(tmp_path):
    with (
        pytest.raises(DiskError, match=r"could not write \S*/model \(.*Nothing was made") as error,
        folder_aside(tmp_path / "model", "Nothing was made") as aside,
    ):
        aside.mkdir()
        write_atomically(aside / "x.json", full)
    assert not list(tmp_path.iterdir()) and ".tmp" not in str(error.value)


def test_files_that_are_written_in_place_are_restored_after_an_error(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("complete")
    with pytest.raises(OSError), undone_on_failure([old, new]):
        for path in (old, new):
            path.write_text("ha")
        raise FULL
    assert old.read_text() == "complete" and list(tmp_path.iterdir()) == [old]
    with undone_on_failure([old, new]):
        for path in (old, new):
            path.write_text("changed")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"changed"}


def test_files_of_a_killed_process_are_restored_later_and_named(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("complete")
    code = "import os, sys; from pathlib import Path\n"
    code += "from semi_nnunet.util.files import undone_on_failure\n"
    code += "paths = [*map(Path, sys.argv[1:])]\nwith undone_on_failure(paths):\n"
    code += "    for path in paths: path.write_text('ha')\n    os.kill(os.getpid(), 9)\n"
    assert run_child(code, old, new).returncode == -signal.SIGKILL
    assert new.read_text() == "ha"
    undo([old, new])
    assert old.read_text() == "complete" and list(tmp_path.iterdir()) == [old]
    warned = capsys.readouterr()
    assert all(str(path) in warned.out + warned.err for path in (old, new))
    undo([old, new])
    assert old.read_text() == "complete" and not capsys.readouterr().err


def test_a_file_that_blocks_a_folder_is_found(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("folder", "folder/new", "new/newer"):
        assert file_in_the_way(tmp_path / name) is None
    for name in ("file", "file/below", "file/far/below"):
        assert file_in_the_way(tmp_path / name) == tmp_path / "file"
