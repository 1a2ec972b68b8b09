"""A container ends at its time limit, although it is not a child of the called program."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from semi_nnunet.challenge.sampling import measure_program, track_container

# As docker is: a server starts the container, the client waits for it and passes no SIGKILL on.
ENGINE = """#!/bin/bash
echo "$@" >> {folder}/calls
if [ "$1" = container ]; then shift; fi
case "$1" in
run)
    shift
    while [ "$1" != NAME ]; do
        if [ "$1" = --cidfile ]; then shift; file="$1"; fi
        if [ "${{1#--cidfile=}}" != "$1" ]; then file="${{1#--cidfile=}}"; fi
        shift
    done
    setsid -f sh -c 'echo $$ > {folder}/container; exec sleep {seconds}'
    until [ -s {folder}/container ]; do sleep 0.05; done
    echo "id$(cat {folder}/container)" > "$file"
    while kill -0 "$(cat {folder}/container)" 2> /dev/null; do sleep 0.05; done ;;
kill) kill -9 "${{2#id}}" ;;
*) exit 125 ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """The folder of a ``docker`` whose containers sleep."""
    yield tmp_path
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "container").read_text()), signal.SIGKILL)


def write_engine(folder: Path, seconds: float, name: str = "docker") -> str:
    program = folder / name
    program.write_text(ENGINE.format(folder=folder, seconds=seconds))
    program.chmod(0o755)
    return str(program)


def is_running(folder: Path) -> bool:
    number = int((folder / "container").read_text())
    with suppress(OSError):  # a zombie that nobody has waited for has ended, too
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
        return state.rsplit(")")[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--rm", "NAME", "predict"),
        ("container", "run", "-v", "a:/b", "NAME"),
        ("run", "--cidfile", "{folder}/own", "NAME"),
        ("run", "--cidfile={folder}/own", "NAME"),
    ],
)
def test_a_container_that_takes_too_long_is_killed(engine: Path, words: tuple[str, ...]) -> None:
    command = [write_engine(engine, 300), *(word.format(folder=engine) for word in words)]
    begin = time.monotonic()
    assert measure_program(command, limit=1.0).exit_code is None
    assert time.monotonic() - begin < 20
    assert not is_running(engine)
    calls = (engine / "calls").read_text().splitlines()
    group = ["container"] if words[0] == "container" else []
    assert len(calls) == 2 and calls[1].split()[:-1] == [*group, "kill"]


def test_a_container_that_ends_in_time_is_not_killed(engine: Path) -> None:
    cost = measure_program([write_engine(engine, 0.2, "podman"), "run", "--rm", "NAME"], limit=60)
    assert cost.exit_code == 0
    assert "kill" not in (engine / "calls").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("sh", "predict.sh"), ("python", "run", "docker"), ("docker", "version"),
        ("apptainer", "run", "NAME"),
    ],
)  # fmt: skip
def test_other_programs_are_called_unchanged(words: tuple[str, ...]) -> None:
    with track_container(words) as (words_to_run, killing):
        assert words_to_run == list(words) and killing == []


def test_containers_are_tracked_after_sudo_and_engine_options() -> None:
    words = ("sudo", "/usr/bin/docker", "--context", "other", "run", "NAME", "run")
    with track_container(words) as (changed, killing):
        file = killing[-1]
        assert changed == [*words[:5], "--cidfile", file, "NAME", "run"]
        assert killing[:-1] == [*words[:4]] and not Path(file).exists()
    assert not Path(file).parent.exists()
